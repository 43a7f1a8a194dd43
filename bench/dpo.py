"""DPO against TRL's DPOTrainer: an 8M-parameter Llama, float32, AdamW, the same rows in the same order.

    python bench/dpo.py [--data FOLDER] [--steps 22]

TRL runs as it comes (the reference in every step) and with its reference log-probs precomputed, the best
it offers; bfloat16 and gradient checkpointing are off. Prints one JSON object last.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import (
    SHAPES,
    TOKENIZER_VOCABULARY,
    Job,
    Run,
    arguments,
    in_turns,
    largest_gap,
    parsed,
    read,
    report,
    rows_per_s,
    share_of_peak,
    start,
    times_as_fast,
    write_models,
)


def main() -> None:
    given = parsed(arguments(__doc__, steps=22))
    with tempfile.TemporaryDirectory() as folder:
        data = read(given.data, "dpo", Path(folder))
        models = write_models(Path(folder), data, "dpo", ("8m", "8m-64k"))
        ours = Job("ours", "dpo", models["8m"], str(data), given.steps, given.batch, threads=given.threads)
        jobs = {
            "ours": ours,
            "trl_precomputed": replace(ours, side="trl", rival={"precompute_ref_log_probs": True}),
            "trl": replace(ours, side="trl"),
        }
        runs = in_turns(jobs)
        bf16 = start(replace(ours, dtype="bfloat16"))
        figures = speed(jobs, runs) | {
            "share_of_gemm_peak_float32": max(share_of_peak(run) for run in runs["ours"]),
            "share_of_gemm_peak_bfloat16": share_of_peak(bf16),
            "gemm_gflops_float32": max(run.gemm_flops for run in runs["ours"]) / 1e9,
            "gemm_gflops_bfloat16": bf16.gemm_flops / 1e9,
            "memory_grown_mib": {name: max(run.grown_mib for run in pair) for name, pair in runs.items()},
            "memory_of_the_vocabulary": vocabulary_memory(ours, models["8m-64k"]),
        }
    report("dpo", given, figures)


def speed(jobs: dict[str, Job], runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Ratios over the steps alone, and over the steps with the reference pass that each needs once."""
    ours, precomputed, plain = runs["ours"], runs["trl_precomputed"], runs["trl"]
    return {
        "pairs_per_s": {name: rows_per_s(jobs[name], pair) for name, pair in runs.items()},
        "ratio_trl_precomputed": times_as_fast(ours, precomputed),
        "ratio_trl": times_as_fast(ours, plain),
        "ratio_with_reference_pass": {
            "trl_precomputed": min(_whole(b) / _whole(a) for a, b in zip(ours, precomputed, strict=True)),
            "trl": _whole(plain[0]) / max(_whole(run) for run in ours),
        },
        "reference_s": {name: min(run.reference_s for run in pair) for name, pair in runs.items()},
        "largest_loss_gap_first_20_steps": max(
            largest_gap(ours[0], plain[0]), largest_gap(ours[0], precomputed[0])
        ),
        "losses_first_and_last": [ours[0].losses[0], ours[0].losses[-1]],
    }


def _whole(run: Run) -> float:
    """Seconds with the reference pass over all rows, which a first run of one epoch pays."""
    return run.reference_s + sum(run.seconds)


def vocabulary_memory(ours: Job, wide: str) -> dict[str, float]:
    """What a vocabulary eight times as wide costs, at one batch and at four times that batch.

    The embedding's gradient and AdamW's two moments explain the cost whatever the batch; a term of
    batch x length x vocabulary would show as a difference between the batches, up to `all_logits`.
    """
    short = replace(ours, steps=2)
    grown = {}
    for batch in (ours.batch, 4 * ours.batch):
        narrow = start(replace(short, batch=batch)).grown_mib
        broad = start(replace(short, batch=batch, model=wide))
        grown[batch] = broad.grown_mib - narrow
        labelled = sum(broad.tokens) / len(broad.tokens)
    extra = SHAPES["8m-64k"].vocabulary - TOKENIZER_VOCABULARY
    return {
        "grown_mib_small_batch": grown[ours.batch],
        "grown_mib_large_batch": grown[4 * ours.batch],
        "explained_mib_gradient_and_moments": 3 * extra * SHAPES["8m"].hidden_size * 4 / 2**20,
        "all_logits_mib_large_batch": labelled * extra * 4 / 2**20,
    }


if __name__ == "__main__":
    main()
