"""A model of SmolLM2's shape (random weights) against TRL: time and peak memory of its steps.

    python bench/shape_135m.py                                          DPO on the processor, float32
    python bench/shape_135m.py --device cuda --dtype bfloat16 --shape 360m   SFT and DPO on a GPU

Prints one JSON object last; where there is no GPU, that says that it was not run.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import (
    Job,
    arguments,
    in_turns,
    largest_gap,
    memory_grown,
    parsed,
    read,
    report,
    rows_per_s,
    times_as_fast,
    write_models,
)

DEFAULTS = {"cpu": {"steps": 4, "batch": 2, "phases": ["dpo"]}}  # some 10 s a step for TRL
DEFAULTS["cuda"] = {"steps": 22, "batch": 8, "phases": ["sft", "dpo"]}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--device", choices=list(DEFAULTS), default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--shape", choices=["135m", "360m"], default="135m")
    parser.add_argument("--phases", nargs="+", choices=["sft", "dpo"])
    given = parsed(parser, DEFAULTS)
    if given.device == "cuda" and not torch.cuda.is_available():
        report("shape_135m", given, {"not_run": "no GPU on this machine"})
        return
    report("shape_135m", given, {phase: against_trl(phase, given) for phase in given.phases})


def against_trl(phase: str, given: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = read(given.data, phase, Path(folder))
        model = write_models(Path(folder), data, phase, (given.shape,))[given.shape]
        ours = Job(
            "ours",
            phase,
            model,
            str(data),
            given.steps,
            given.batch,
            dtype=given.dtype,
            device=given.device,
            threads=given.threads,
        )
        best = {"precompute_ref_log_probs": True} if phase == "dpo" else {}
        jobs = {"ours": ours, "trl": replace(ours, side="trl", rival=best)}
        runs = in_turns(jobs)
    return {
        "rows_per_s": {name: rows_per_s(jobs[name], each) for name, each in runs.items()},
        "ratio_trl": times_as_fast(runs["ours"], runs["trl"]),
        "reference_s": {name: min(run.reference_s for run in each) for name, each in runs.items()},
        "largest_loss_gap": largest_gap(runs["ours"][0], runs["trl"][0]),
        "memory_grown_mib": memory_grown(runs),
        "memory_base_mib": {name: max(run.base_mib for run in each) for name, each in runs.items()},
    }


if __name__ == "__main__":
    main()
