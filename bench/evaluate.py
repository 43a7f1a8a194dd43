"""Evaluating a suite in batches beside answering it one item at a time, on the shape of the demo's student.

    python bench/evaluate.py [--items 1000] [--alone 200]

Weights are random: speed does not know what a model learnt. `--alone` items are answered one by one, and
their pace is taken for all; the evaluation answers and scores every item. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import torch

from escultor.config import Evaluation, Pretrain
from escultor.evaluate.scoring import evaluate
from escultor.model.folders import BUILT_IN
from escultor.model.generate import generate
from escultor.model.load import init_llama, load_shape
from escultor.model.loaded import Loaded
from escultor.skills.suites import make_suite
from escultor.types import Message, Role, Sampling, SuiteItem

STUDENT = Pretrain(hidden_size=192, layers=4, heads=3, kv_heads=1, intermediate_size=320)
WANTED = 5.0  # times the speed of one at a time
WORDS = ("model", "reads", "document", "writes", "down", "what", "says", "about", "files", "names")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--alone", type=int, default=200, help="items answered one by one")
    parser.add_argument("--tokens", type=int, default=48, help="of an answer at most")
    given = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = load_shape(BUILT_IN).tokenizer
    loaded = Loaded(init_llama(STUDENT, tokenizer), tokenizer)
    suite = make_suite(
        "bench", "chat", items(given.items), ("rouge_l", "f1"), Sampling(max_new_tokens=given.tokens)
    )
    prompts = [loaded.chat.prompt(item.prompt) for item in suite.items]
    generate(loaded, prompts[:2], suite.record.decoding, 2)  # the first call prepares kernels
    began = time.perf_counter()
    for prompt in prompts[: given.alone]:
        generate(loaded, [prompt], suite.record.decoding, 1)
    alone_s = (time.perf_counter() - began) / min(given.alone, given.items) * given.items
    began = time.perf_counter()
    done = evaluate(loaded, "bench", suite, Evaluation(speed_requests=1), 0.1)
    batched_s = time.perf_counter() - began
    ratio = alone_s / batched_s
    print(
        f"one at a time {alone_s:.1f} s (from {given.alone} items), evaluated {batched_s:.1f} s: {ratio:.1f}x"
    )
    print(
        json.dumps(
            {
                "items": given.items,
                "alone_items": given.alone,
                "alone_s": alone_s,
                "evaluated_s": batched_s,
                "ratio": ratio,
                "wanted": WANTED,
                "threads": torch.get_num_threads(),
                "scored": len(done.scores.items),
                "holds": ratio >= WANTED,
            }
        )
    )
    return 0 if ratio >= WANTED else 1


def items(count: int) -> list[SuiteItem]:
    """Prompts of 60 to 160 words."""
    made = []
    for n in range(count):
        text = " ".join(WORDS[(n + k) % len(WORDS)] for k in range(60 + n % 100))
        made.append(SuiteItem(f"i{n}", (Message(Role.USER, text),), f"i{n}", ("files and names",)))
    return made


if __name__ == "__main__":
    sys.exit(main())
