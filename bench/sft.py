"""SFT against TRL's SFTTrainer and against a padded loop written the obvious way: an 8M-parameter Llama,
float32, AdamW, completions alone labelled, the same rows in the same order.

    python bench/sft.py [--data FOLDER] [--steps 22]

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
    parsed,
    read,
    report,
    rows_per_s,
    share_of_peak,
    start,
    times_as_fast,
    tokens_per_s,
    write_models,
)

PACKED = {"packing": True, "max_length": 1024}  # two such rows hold about as many tokens as eight examples


def main() -> None:
    given = parsed(arguments(__doc__, steps=22))
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
        "share_of_gemm_peak_float32": max(share_of_peak(run) for run in runs["ours"]),
        "share_of_gemm_peak_bfloat16": share_of_peak(bf16),
        "gemm_gflops_float32": max(run.gemm_flops for run in runs["ours"]) / 1e9,
        "gemm_gflops_bfloat16": bf16.gemm_flops / 1e9,
        "memory_grown_mib": {name: max(run.grown_mib for run in pair) for name, pair in runs.items()},
    }
    report("sft", given, figures)


if __name__ == "__main__":
    main()
