"""SFT against TRL's SFTTrainer and against a padded loop written the obvious way: an 8M-parameter Llama,
float32, AdamW, completions alone labelled, the same rows in the same order.

    python bench/sft.py [--data FOLDER] [--steps 20]

TRL runs without packing (its default) and, for information, packed. Prints one JSON object last.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from common import (
    Job,
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
    tokens_per_s,
    write_models,
)

# Two such rows hold about as many tokens as eight examples.
PACKED = {"packing": True, "max_length": 1024, "per_device_train_batch_size": 2}


def main() -> None:
    given = parsed(arguments(__doc__), {"cpu": {"steps": 20, "batch": 8}})
    with tempfile.TemporaryDirectory() as folder:
        data = read(given.data, "sft", Path(folder))
        models = write_models(Path(folder), data, "sft", ("8m",))
        ours = Job("ours", "sft", models["8m"], str(data), given.steps, given.batch, threads=given.threads)
        jobs = {"ours": ours, "trl": replace(ours, side="trl"), "padded": replace(ours, side="padded")}
        runs = in_turns(jobs)
        bf16 = start(replace(ours, dtype="bfloat16"))
        bf16_padded = start(replace(ours, side="padded", dtype="bfloat16"))
        packed = start(replace(ours, side="trl", rival=PACKED))
    gaps = {name: largest_gap(runs["ours"][0], runs[name][0]) for name in ("padded", "trl")}
    figures = {
        "examples_per_s": {name: rows_per_s(jobs[name], pair) for name, pair in runs.items()},
        "tokens_per_s": {name: tokens_per_s(pair) for name, pair in runs.items()}
        | {"trl_packed": tokens_per_s((packed,))},
        "ratio_trl": times_as_fast(runs["ours"], runs["trl"]),
        "ratio_padded": times_as_fast(runs["ours"], runs["padded"]),
        "ratio_padded_bfloat16": times_as_fast((bf16,), (bf16_padded,)),
        "largest_loss_gap_first_20_steps": gaps,
        "losses_first_and_last": [runs["ours"][0].losses[0], runs["ours"][0].losses[-1]],
        "memory_grown_mib": memory_grown(runs),
    } | peak_figures(runs["ours"], bf16)
    report("sft", given, figures)


if __name__ == "__main__":
    main()
