"""Two processes of one thread each (DDP over gloo) against one process of one thread: a Llama of 8 M.

    python bench/ddp.py [--data FOLDER] [--rounds 4]

They take turns (A B A B …) in one run, so that a machine whose speed drifts gives an honest ratio; while one
trains alone the other waits. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from common import SHAPES, fresh_model, read, tokenizer_of

from escultor.batching.batches import nll_batch
from escultor.batching.rows import NllRow, example_rows
from escultor.config import Sft
from escultor.data.jsonl import read_jsonl
from escultor.model.loaded import Loaded, count_parameters
from escultor.text.tokenizer import train_tokenizer
from escultor.train.distributed import ALONE, World, joined
from escultor.train.loop import train
from escultor.train.methods import METHODS
from escultor.train.streams import RowStream

STEPS = 4  # of a turn; the first prepares kernels and is not counted


def corpus(data: Path | None) -> tuple[Loaded, list[NllRow]]:
    """A fresh model, and rows from a folder or, without one, of random tokens and realistic lengths."""
    torch.manual_seed(0)
    if data is None:
        rng = np.random.default_rng(0)
        lengths = np.clip(rng.lognormal(5.1, 0.4, 512).astype(int), 40, 512)
        draw = [rng.integers(6, SHAPES["8m"].vocabulary, n).astype(np.int32) for n in lengths]
        rows = [NllRow(str(i), ids, len(ids) // 3) for i, ids in enumerate(draw)]
        return fresh_model("8m", train_tokenizer(["The cat sleeps here."], 300, 1024)), rows
    with tempfile.TemporaryDirectory() as folder:
        examples = read_jsonl(read(data, "sft", Path(folder)), "example").items
    loaded = fresh_model("8m", tokenizer_of(examples))
    return loaded, example_rows(examples, loaded.chat, 512, Counter())


def tokens_per_s(loaded: Loaded, rows: list[NllRow], turn: int, batch: int, world: World) -> float:
    """The median over a turn's steps but the first."""
    settings = Sft(batch_size=batch, max_steps=STEPS, dtype="float32", seed=turn)
    paces: list[float] = []
    stream = RowStream(rows, settings, nll_batch, world)
    objective = METHODS["sft"].objective(settings)
    train(
        loaded.model,
        stream,
        objective,
        settings,
        on_step=lambda report: paces.append(report.tokens_per_s),
        world=world,
    )
    return statistics.median(paces[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="folder that holds gsm8k/train.jsonl; default: random tokens"
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    if "RANK" not in os.environ:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        sys.exit(subprocess.call([*start, *sys.argv], env=os.environ | {"OMP_NUM_THREADS": "1"}))
    torch.set_num_threads(1)
    with joined() as world:
        loaded, rows = corpus(given.data)
        one, two = [], []
        for turn in range(given.rounds):
            world.barrier()
            if world.is_first:
                one.append(tokens_per_s(loaded, rows, turn, given.batch, ALONE))
            world.barrier()
            two.append(tokens_per_s(loaded, rows, turn, given.batch, world))
        if world.is_first:
            ratios = [b / a for a, b in zip(one, two, strict=True)]
            report = {
                "bench": "ddp",
                "processes": world.size,
                "threads_each": torch.get_num_threads(),
                "data": given.data.name if given.data else "synthetic",
                "parameters": count_parameters(loaded.model),
                "batch": given.batch,
                "tokens_per_s_one": statistics.median(one),
                "tokens_per_s_two": statistics.median(two),
                "ratio_two_over_one_median": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
            }
            print(json.dumps(report))


if __name__ == "__main__":
    main()
