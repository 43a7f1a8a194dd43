"""DPO against TRL's DPOTrainer: an 8M-parameter Llama, float32, AdamW, the same rows in the same order.

    python bench/dpo.py [--data FOLDER] [--steps 20]

TRL runs as it comes (the reference in every step) and with its reference log-probs precomputed, the best
it offers; bfloat16 and gradient checkpointing are off. Prints one JSON object last.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import (
    SKIPPED,
    Job,
    Run,
    arguments,
    in_turns,
    largest_gap,
    memory_grown,
    parsed,
    peak_figures,
    read,
    report,
    rows_per_s,
    start,
    times_as_fast,
    write_models,
)


def main() -> None:
    given = parsed(arguments(__doc__), {"cpu": {"steps": 20, "batch": 8}})
    with tempfile.TemporaryDirectory() as folder:
        data = read(given.data, "dpo", Path(folder))
        models = write_models(Path(folder), data, "dpo", ("8m",))
        ours = Job("ours", "dpo", models["8m"], str(data), given.steps, given.batch, threads=given.threads)
        jobs = {
            "ours": ours,
            "trl_precomputed": replace(ours, side="trl", rival={"precompute_ref_log_probs": True}),
            "trl": replace(ours, side="trl"),
        }
        runs = in_turns(jobs)
        bf16 = start(replace(ours, dtype="bfloat16"))
        figures = (
            speed(jobs, runs)
            | peak_figures(runs["ours"], bf16)
            | {
                "memory_grown_mib": memory_grown(runs),
                "second_run": second_run(replace(ours, cache=str(Path(folder) / "reference"))),
            }
        )
    report("dpo", given, figures)


def speed(jobs: dict[str, Job], runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Ratios over the steps alone, and over the steps with the reference pass that each needs once."""
    ours, precomputed, plain = runs["ours"], runs["trl_precomputed"], runs["trl"]
    return {
        "pairs_per_s": {name: rows_per_s(jobs[name], pair) for name, pair in runs.items()},
        "ratio_trl_precomputed": times_as_fast(ours, precomputed),
        "ratio_trl": times_as_fast(ours, plain),
        "ratio_with_reference_pass": {
            name: min(_whole(run) for run in runs[name]) / max(_whole(run) for run in ours)
            for name in ("trl_precomputed", "trl")
        },
        "reference_s": {name: min(run.reference_s for run in pair) for name, pair in runs.items()},
        "largest_loss_gap_first_20_steps": max(
            largest_gap(ours[0], each[0]) for each in (plain, precomputed)
        ),
        "losses_first_and_last": [ours[0].losses[0], ours[0].losses[-1]],
    }


def _whole(run: Run) -> float:
    """Seconds with the reference pass over all rows, which a first run of one epoch pays."""
    return run.reference_s + sum(run.seconds)


def second_run(first: Job) -> dict[str, float]:
    """What the reference costs a run with another learning rate, beside one that has computed it."""
    short = replace(first, steps=SKIPPED + 1)
    one, two = start(short), start(replace(short, learning_rate=3 * first.learning_rate))
    return {
        "rows": short.steps * short.batch,
        "rows_computed_first": one.reference_rows,
        "rows_computed_second": two.reference_rows,
        "reference_s_first": one.reference_s,
        "reference_s_second": two.reference_s,
    }


if __name__ == "__main__":
    main()
