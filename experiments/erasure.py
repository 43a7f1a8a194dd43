"""Erase a person from stores with random histories, and count the bytes that are left of them.

    python experiments/erasure.py                       1,000 histories
    python experiments/erasure.py --histories 20 --rows 10 --seed 3

In each, several people ask, answers are corrected and remarked on, rows are converted, saved as a dataset
and drawn as a suite, and files of other programs quote them, in the forms of JSON and HTML. Every text of a
person holds a word of its own. Half of the erasures are interrupted at a random step and finished by the next
start. Prints one JSON object last: `bytes_left` are those of the erased person's words in the store's folder,
`others_lost` the people of whom a record is missing.
"""

from __future__ import annotations

import argparse
import html
import json
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from escultor.config import Config
from escultor.datasets import erasure
from escultor.datasets.rows import CurationRow, write_line
from escultor.datasets.versions import save_version
from escultor.feedback.conversion import convert, record
from escultor.feedback.selection import SelectionQuery
from escultor.serve.in_flight import draft_interaction
from escultor.skills.suites import make_suite, register
from escultor.store import Store, open_store
from escultor.types import (
    Correction,
    Example,
    Interaction,
    Message,
    Origin,
    Rating,
    Remark,
    Role,
    Sampling,
    SuiteItem,
)

PIECES = (
    '"',
    "\\",
    "\\u0041",
    "]",
    "{",
    "\n",
    "\u2028",
    "é",
    "漢字",
    "😀",
    "<b>",
    "&amp;",
    "\x00",
    "  ",
    "'",
)
STEPS = ("derived_from", "_retire", "_remove_suites", "_remove_blobs", "_remove_caches", "remove_traces")


class Interrupted(BaseException):
    """Stands for a process that is killed."""


def write_text(dice: random.Random, word: str) -> str:
    """A text with a person's word between pieces that break careless parsers."""
    around = ["".join(dice.choices(PIECES, k=dice.randrange(30))) for _ in range(2)]
    return f"{around[0]}{word}{around[1] * dice.choice((1, 1, 50))}"


def make_history(store: Store, dice: random.Random, people: dict[str, str], rows: int) -> None:
    """Records, rows, suites and files of several people."""
    examples, items, texts = list[Example](), list[SuiteItem](), list[str]()
    for number in range(rows):
        person = dice.choice(list(people))
        text, id = write_text(dice, people[person]), f"row{number}"
        texts.append(text)
        asked = (Message(Role.USER, text),)
        draft = draft_interaction(asked, id=id, subject=person, version="v", sampling=Sampling())
        row = replace(draft, time=1.0 + number, answer=f"An answer to {text}", finish_reason="stop")
        said = [
            Correction(f"c{number}", 2.0, id, person, write_text(dice, people[person])),
            Remark(f"m{number}", 2.0, id, person, write_text(dice, people[person])),
            Rating(f"r{number}", 2.0, id, person, "thumb", dice.random() < 0.5),
        ]
        store.log.append(row, *dice.sample(said, dice.randrange(4)))
        examples.append(Example(f"e{number}", asked, text, Origin((id,), "rule")))
        items.append(SuiteItem(f"i{number}", asked, f"i{number}", (text,), parents=(id,)))
    record(store, convert(store, Config().feedback, SelectionQuery(now=9.0)), "converted")
    file = store.root / "rows.tmp"
    file.write_bytes(b"".join(write_line(CurationRow(each, "rule")) for each in examples))
    save_version(
        store, "rows", kind="example", train=file, held_out=None, counts={},
        card=lambda hash: {"format": "card/1", "hash": hash, "kind": "example", "rows": rows, "counts": {}},
    )  # fmt: skip
    file.unlink()
    for name in ("one", "two"):
        drawn = dice.sample(items, dice.randrange(1, rows + 1))
        register(store, make_suite(name, "chat", drawn, ["exact_match"], Sampling()))
    store.blobs.put_bytes(json.dumps({"answers": [dice.sample(texts, min(3, rows))]}).encode())
    forms = (json.dumps, html.escape, lambda text: json.dumps(json.dumps(text, ensure_ascii=False)), str)
    for number in range(dice.randrange(6)):
        path = (
            store.root / dice.choice(("verdicts/v", "runs/r", "exports", "cache/evaluations")) / f"f{number}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("some words\n" * dice.choice((0, 99_999)) + dice.choice(forms)(dice.choice(texts)))


def erase(url: str, dice: random.Random, person: str) -> None:
    """Erase a person; the process may be killed at any step, and the next start finishes it."""
    step = dice.choice((*STEPS, *[None] * len(STEPS)))
    original = getattr(erasure, step) if step else None

    def killed(*arguments: object) -> None:
        raise Interrupted

    if step:
        setattr(erasure, step, killed)
    try:
        with open_store(url) as store:
            erasure.erase_everywhere(store, person, by="experiment")
    except Interrupted:
        pass
    finally:
        if step:
            setattr(erasure, step, original)
    with open_store(url) as store:
        erasure.finish_erasures(store)


def main() -> None:
    parser = argparse.ArgumentParser(description="Erase people from random stores; count what is left.")
    for name, default in (("histories", 1000), ("rows", 6), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    begun, left, lost, where = time.monotonic(), 0, 0, set[str]()
    for number in range(given.histories):
        dice = random.Random(f"{given.seed} {number}")
        people = {name: "".join(dice.choices("bcdfghklmnprstvz", k=16)) for name in ("ann", "bob", "eve")}
        with tempfile.TemporaryDirectory() as folder:
            root, url = Path(folder) / "store", str(Path(folder) / "store")
            with open_store(url) as store:
                make_history(store, dice, people, given.rows)
                before = {name: len([*store.log.read(Interaction, subject=name)]) for name in people}
            gone = dice.choice(list(people))
            erase(url, dice, gone)
            for path in filter(Path.is_file, root.rglob("*")):
                if found := path.read_bytes().count(people[gone].encode()):
                    left += found * len(people[gone])
                    where.add(path.relative_to(root).parts[0])
            with open_store(url) as store:
                after = {name: len([*store.log.read(Interaction, subject=name)]) for name in people}
            lost += sum(after[name] != before[name] for name in people if name != gone) + after[gone]
    seconds = round(time.monotonic() - begun, 1)
    figures = {
        "histories": given.histories,
        "bytes_left": left,
        "left_in": sorted(where),
        "others_lost": lost,
    }
    print(json.dumps(figures | {"seconds": seconds, "held": not left and not lost}))


if __name__ == "__main__":
    main()
