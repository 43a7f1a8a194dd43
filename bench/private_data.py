"""Private data: recall by kind on data planted in real text, and what is masked of real documentation.

python bench/private_data.py [--planted 2000] [--docs 100000]

Planted: of each kind, with right check digits, in a sentence between two real ones. Not planted: docstrings
of the installed packages, without those of libraries whose examples are such numbers. E-mail addresses and
IBANs found in these are real ones, and are counted apart; every other mask counts as false."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from escultor.datasets.personal_data import redacted
from escultor.demo.python_docs import mine

sys.path.insert(0, str(Path(__file__).parent))
from private_numbers import KINDS

FULL_OF_NUMBERS = ("stdnum", "phonenumbers")
REAL = ("email", "iban")


def recall(planted: int, texts: list[str]) -> tuple[dict[str, float], dict[str, list[str]]]:
    """The share of planted values that are gone, by kind; and some that are not."""
    found, missed = {}, {}
    for kind, (make, said) in sorted(KINDS.items()):
        draw = random.Random(f"planted {kind}")
        left = []
        for _ in range(planted):
            value = make(draw)
            text = (
                f"{draw.choice(texts)[:300]}\n{draw.choice(said).format(value)}\n{draw.choice(texts)[:300]}"
            )
            if value in redacted(text):
                left.append(draw.choice(said).format(value))
        found[kind], missed[kind] = 1 - len(left) / planted, left[:3]
    return found, {kind: some for kind, some in missed.items() if some}


def masks(texts: list[str]) -> dict[str, Any]:
    """What is masked of texts that hold no planted data: false masks in 2,000 documents, and all by
    kind."""
    by_kind: Counter[str] = Counter()
    examples: list[str] = []
    start = time.process_time()
    for text in texts:
        matches: list[tuple[str, str]] = []
        redacted(text, matches)
        by_kind.update(kind for kind, _ in matches)
        examples += [f"{kind}: {found}" for kind, found in matches if kind not in REAL]
    seconds = time.process_time() - start
    false = sum(count for kind, count in by_kind.items() if kind not in REAL)
    return {
        "documents": len(texts),
        "false_masks_per_2000": 2000 * false / len(texts),
        "masks": dict(by_kind),
        "examples": examples[:40],
        "mb_per_s": sum(len(text.encode("utf-8", "replace")) for text in texts) / 1e6 / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--planted", type=int, default=2000)
    parser.add_argument("--docs", type=int, default=100_000)
    args = parser.parse_args()
    entries = (entry for entry in mine(None) if entry.name.partition(".")[0] not in FULL_OF_NUMBERS)
    texts = [entry.doc for entry, _ in zip(entries, range(args.docs), strict=False)]
    found, missed = recall(args.planted, texts)
    result = masks(texts)
    print(json.dumps(missed, ensure_ascii=False))
    print(
        json.dumps(
            {"bench": "private_data", "planted": args.planted, "recall": found} | result, ensure_ascii=False
        )
    )


if __name__ == "__main__":
    main()
