"""Rows for the benchmark of curation: real sentences put together anew, with planted faults named by id."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from escultor.datasets.similarity.duplicates import are_similar
from escultor.demo.python_docs import mine

THRESHOLD = 0.75
RECENT = 5000  # originals from which a copy may be made
SHARES = {"near": 0.10, "exact": 0.02, "private": 0.03, "suite": 0.01}
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def sentences(data: Path) -> list[str]:
    """Sentences of the installed documentation and of GSM8K's training rows."""
    texts = [entry.doc for entry in mine(None)]
    for line in (data / "gsm8k" / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        texts += (row["question"], row["answer"].split("####")[0])
    found = {" ".join(part.split()) for text in texts for part in _SENTENCE.split(text)}
    return sorted(part for part in found if 40 <= len(part) <= 240 and part.isascii() and part[-1] in ".!?")


def held_out_questions(data: Path) -> list[str]:
    """The questions of GSM8K's test rows: what must not be learnt."""
    return [json.loads(line)["question"] for line in (data / "gsm8k" / "test.jsonl").read_text().splitlines()]


def _digits(draw: random.Random, count: int) -> str:
    return "".join(str(draw.randrange(10)) for _ in range(count))


def _card(draw: random.Random) -> str:
    body = [4, *(draw.randrange(10) for _ in range(14))]
    total = sum(n if i % 2 else (2 * n - 9 * (n > 4)) for i, n in enumerate(body))
    text = "".join(map(str, [*body, -total % 10]))
    return draw.choice((text, " ".join(text[i : i + 4] for i in range(0, 16, 4))))


def _iban(draw: random.Random) -> str:
    body = _digits(draw, 18)
    check = 98 - int(body + "131400") % 97  # D = 13, E = 14
    text = draw.choice((f"DE{check:02d}{body}", f"de{check:02d}{body}"))
    return draw.choice((text, " ".join(text[i : i + 4] for i in range(0, 22, 4))))


def _random(draw: random.Random, count: int) -> str:
    letters = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
    return "aB3" + "".join(draw.choice(letters) for _ in range(count - 3))


def private(draw: random.Random) -> tuple[str, str]:
    """Kind and value of something private."""
    made = {
        "email": lambda: (
            f"user{draw.randrange(10**6)}.{draw.choice('abcdef')}@mail{draw.randrange(99)}.example.org"
        ),
        "phone": lambda: draw.choice(
            (
                f"+351 9{_digits(draw, 2)} {_digits(draw, 3)} {_digits(draw, 3)}",
                f"({draw.randrange(201, 989)}) 555-{_digits(draw, 4)}",
                f"({draw.randrange(201, 989)}) 555 {_digits(draw, 4)}",
                f"00351 9{_digits(draw, 2)} {_digits(draw, 3)} {_digits(draw, 3)}",
                f"0044 (0)20 7{_digits(draw, 3)} {_digits(draw, 4)}",
                f"+49.30.{draw.randrange(10**6, 10**7)}",
                f"+33 1 {' '.join(_digits(draw, 2) for _ in range(4))}",
            )
        ),
        "card": lambda: _card(draw),
        "iban": lambda: _iban(draw),
        "ip": lambda: f"8.{draw.randrange(1, 255)}.{draw.randrange(255)}.{draw.randrange(1, 255)}",
        "secret aws": lambda: (
            "AKIA" + "".join(draw.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))
        ),
        "secret github": lambda: "ghp_" + _random(draw, 36),
        "secret jwt": lambda: f"eyJ{_random(draw, 20)}.eyJ{_random(draw, 40)}.{_random(draw, 43)}",
        "secret pem": lambda: f"-----BEGIN PRIVATE KEY-----\n{_random(draw, 60)}\n-----END PRIVATE KEY-----",
        "secret random": lambda: _random(draw, 40),
    }
    kind = draw.choice(sorted(made))
    return kind, made[kind]()


def _changed(text: str, draw: random.Random) -> str:
    words = text.split()
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(words))
        words[at] = draw.choice((words[at].upper() + "x", "another", words[at][::-1], "of the"))
    return " ".join(words)


def rows(count: int, pool: list[str], questions: list[str], seed: int = 0) -> Iterator[dict[str, Any]]:
    """`count` examples; the id says what was planted: near, exact, private:KIND, suite, or row (nothing)."""
    draw = random.Random(seed)
    recent: list[dict[str, Any]] = []
    kinds, weights = [*SHARES, "row"], [*SHARES.values(), 1 - sum(SHARES.values())]
    for i in range(count):
        kind = draw.choices(kinds, weights)[0] if recent else "row"
        made = {"prompt": " ".join(draw.sample(pool, 2)), "completion": " ".join(draw.sample(pool, 3))}
        if kind in ("near", "exact"):
            made = dict(draw.choice(recent))
            if kind == "near":
                copy = made | {"completion": _changed(made["completion"], draw)}
                kind = "near" if _similar(made, copy) else "far"
                made = copy
            else:
                made["prompt"] = "  " + made["prompt"].upper()
        elif kind == "private":
            what, value = private(draw)
            kind, made["value"] = f"private:{what}", value
            made["completion"] = f"{made['completion']} Please use {value} for it."
        elif kind == "suite":
            words = draw.choice(questions).split()
            at = draw.randrange(max(1, len(words) - 15))
            made["prompt"] += " " + " ".join(words[at : at + 15])
        elif len(recent) < RECENT:
            recent.append(made)
        else:
            recent[draw.randrange(RECENT)] = made
        yield {**made, "id": f"{kind}:{i}"}


def _similar(one: dict[str, Any], other: dict[str, Any]) -> bool:
    # "prompt user" is the role of a prompt that is plain text.
    rows = [(("prompt user", row["prompt"]), ("response", row["completion"])) for row in (one, other)]
    return bool(are_similar(rows, np.asarray([[0, 1]]), THRESHOLD)[0])


def write(path: Path, count: int, pool: list[str], questions: list[str]) -> None:
    """The rows as JSONL."""
    with path.open("w") as file:
        for row in rows(count, pool, questions):
            file.write(json.dumps(row) + "\n")


def main(data: Path, *wanted: str) -> None:
    """`wanted` are paths and counts in turn."""
    pool, questions = sentences(data), held_out_questions(data)
    for path, count in zip(wanted[::2], wanted[1::2], strict=True):
        write(Path(path), int(count), pool, questions)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
