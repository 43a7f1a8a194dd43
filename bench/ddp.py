"""Two processes of one thread each (DDP over gloo) against one process of one thread: a Llama of 8 M.

    python bench/ddp.py [--data gsm8k/train.jsonl] [--rounds 4]

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
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from escultor.config import Pretrain, Sft
from escultor.data.batches import nll_batch
from escultor.data.rows import NllRow, example_rows
from escultor.model.load import Loaded, count_parameters, fresh
from escultor.text.chat import Chat
from escultor.text.tokenizer import train_tokenizer
from escultor.train.distributed import ALONE, World, joined
from escultor.train.loop import train
from escultor.train.phases import PHASES
from escultor.train.streams import RowStream
from escultor.types import Example, Message, Origin, Role

VOCABULARY, STEPS = 8192, 4  # steps of a turn; the first prepares kernels and is not counted
SHAPE = Pretrain(vocabulary=VOCABULARY, hidden_size=256, layers=8, heads=4, kv_heads=4, intermediate_size=640)


def corpus(data: Path | None) -> tuple[Loaded, list[NllRow]]:
    """A fresh model, and rows from a file or, without one, of random tokens and realistic lengths."""
    torch.manual_seed(0)
    if data is None:
        rng = np.random.default_rng(0)
        tokenizer = train_tokenizer(["The cat sleeps here."], 300, SHAPE.context)
        lengths = np.clip(rng.lognormal(5.1, 0.4, 512).astype(int), 40, 512)
        draw = [rng.integers(6, VOCABULARY, n).astype(np.int32) for n in lengths]
        rows = [NllRow(str(i), ids, len(ids) // 3) for i, ids in enumerate(draw)]
        model = fresh(SHAPE, tokenizer)
        model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
        return Loaded(model, tokenizer), rows
    read = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    origin = Origin((data.name,), "bench/1")
    examples = [
        Example(str(i), (Message(Role.USER, row["question"]),), row["answer"], origin)
        for i, row in enumerate(read)
    ]
    texts = (f"{e.prompt[-1].content}\n{e.response}" for e in examples)
    tokenizer = train_tokenizer(texts, VOCABULARY, SHAPE.context)
    rows = example_rows(examples, Chat(tokenizer), 512, Counter())
    return Loaded(fresh(SHAPE, tokenizer), tokenizer), rows


def tokens_per_s(loaded: Loaded, rows: list[NllRow], turn: int, batch: int, world: World) -> float:
    """The median over a turn's steps but the first."""
    settings = Sft(batch_size=batch, max_steps=STEPS, dtype="float32", seed=turn)
    paces: list[float] = []
    stream = RowStream(rows, settings, nll_batch, world)
    objective = PHASES["sft"].objective(settings)
    train(loaded.model, stream, objective, settings, None, lambda r: paces.append(r.tokens_per_s), world)
    return statistics.median(paces[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help='JSONL of {"question", "answer"}; default: random tokens')
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
            world.wait()
            if world.first:
                one.append(tokens_per_s(loaded, rows, turn, given.batch, ALONE))
            world.wait()
            two.append(tokens_per_s(loaded, rows, turn, given.batch, world))
        if world.first:
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
