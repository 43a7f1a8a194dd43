"""What a vocabulary eight times as wide costs a DPO run in memory, at one batch and at four times that batch.

    python bench/vocabulary.py [--data FOLDER] [--steps 3]

The embedding's gradient and AdamW's two moments explain the cost whatever the batch; a term of batch x
length x vocabulary would show as a difference between the batches, up to `all_logits`. Prints one JSON
object last.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from common import SHAPES, Job, arguments, parsed, read, report, start, write_models


def main() -> None:
    given = parsed(arguments(__doc__), {"cpu": {"steps": 3, "batch": 8}})
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        data = read(given.data, "dpo", Path(folder))
        models = write_models(Path(folder), data, "dpo", ("8m", "8m-64k"))
        for name, batch in (("batch", given.batch), ("batch_x4", 4 * given.batch)):
            job = Job("ours", "dpo", models["8m"], str(data), given.steps, batch, threads=given.threads)
            narrow, wide = start(job), start(replace(job, model=models["8m-64k"]))
            figures[f"grown_mib_{name}"] = wide.grown_mib - narrow.grown_mib
            figures[f"all_logits_mib_{name}"] = max(wide.labelled) * _extra() * 4 / 2**20
    figures["explained_mib_gradient_and_moments"] = 3 * _extra() * SHAPES["8m"].hidden_size * 4 / 2**20
    report("vocabulary", given, figures)


def _extra() -> int:
    return SHAPES["8m-64k"].vocabulary - SHAPES["8m"].vocabulary


if __name__ == "__main__":
    main()
