"""From a store to data sets: one call, remembered, so that with nothing new it costs nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from escultor.config import Routes
from escultor.data.crew import Crew
from escultor.data.jsonl_rows import row_of
from escultor.data.routes.card import Advice, advise, section
from escultor.data.routes.convert import (
    KINDS,
    READ_AT_ONCE,
    Asked,
    Chosen,
    Item,
    Named,
    Selection,
    select,
    with_texts,
)
from escultor.data.routes.index import Index, index_path
from escultor.data.routes.lean import uncollected, workers
from escultor.data.routes.table import Kind
from escultor.ids import code_hash, hash_value
from escultor.store import Store
from escultor.store.log import Log
from escultor.types import DatasetVersion, Erasure

DAY_S = 86_400.0
_json = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion made: by kind the name of the rows' blob and their number, the card's section, and
    the entry of the log up to which feedback is in it. `reused` when it was made before."""

    blobs: dict[str, str]
    rows: dict[str, int]
    card: dict[str, Any]
    cursor: int
    reused: bool


def open_index(store: Store, settings: Routes) -> Index:
    """The index of a store, in its cache."""
    return Index(index_path(store.root / "cache", store.log.name, settings), settings)


@uncollected()
def convert(store: Store, settings: Routes, asked: Asked) -> Converted:
    """Read what is new in the log and make items of all that holds.

    The rows are blobs of the store. A conversion of the same state, question and settings is found again;
    only the day of `asked.now` matters, since retention ends by the day.
    """
    asked = replace(asked, now=asked.now // DAY_S * DAY_S)
    with open_index(store, settings) as index:
        while True:
            cursor = index.follow(store.log)
            key = hash_value([index.state(), settings.model_dump(), asked])
            if (found := index.remembered(key)) is not None:
                return Converted(**json.loads(found), cursor=cursor, reused=True)
            selection = select(index, store.log, settings, asked)
            rows, blobs = _written(store, selection)
            # What was erased while the texts were read may be among them still.
            if not any(store.log.lean(Erasure, cursor)):
                break
        found = section(selection)
        card = found | {"advice": list(advise(found, settings).lines), "hashes": dict(blobs)}
        index.remember(key, json.dumps({"blobs": blobs, "rows": rows, "card": card}))
    return Converted(blobs, rows, card, cursor, False)


def _written(store: Store, selection: Selection) -> tuple[dict[str, int], dict[str, str]]:
    """How many rows of each kind, and the name of their blob."""
    rows, blobs = {}, {}
    n = sum(map(len, selection.chosen.values()))
    with Crew(workers(n), store.log) as crew:
        for kind in KINDS:
            counts: Counter[str] = Counter()
            blobs[kind] = store.blobs.put_pieces(_lines(crew, selection.chosen[kind], counts))
            rows[kind] = counts.pop("rows", 0)
            selection.counts += counts
    return rows, blobs


def _lines(crew: Crew, chosen: list[Chosen], counts: Counter[str]) -> Iterator[bytes]:
    starts = range(0, len(chosen), READ_AT_ONCE)
    pieces = ([each.named for each in chosen[at : at + READ_AT_ONCE]] for at in starts)
    for lines, found in crew.over(_lines_of, pieces):
        counts.update(found)
        yield lines


@uncollected()
def _lines_of(log: Log, found: list[Named]) -> tuple[bytes, Counter[str]]:
    """The rows of some items as JSONL, how many they are, and why others are none."""
    counts: Counter[str] = Counter()
    lines = [_json(row_of(item)) + "\n" for item in with_texts(found, log, counts)]
    counts["rows"] = len(lines)
    return "".join(lines).encode("utf-8", "surrogatepass"), counts


def advice_of(converted: Converted, settings: Routes) -> Advice:
    return advise(converted.card, settings)


def read_items(store: Store, converted: Converted, kind: Kind) -> list[Item]:
    """The items of one kind."""
    from escultor.data.jsonl_rows import build, decode

    lines = store.blobs.get_bytes(converted.blobs[kind]).splitlines()
    return [build(kind, decode(line), Counter(), "feedback") for line in lines]  # type: ignore[misc]


def card_of(converted: Converted, name: str, kind: str, rows: int, hash: str) -> dict[str, Any]:
    """The card of what was made, in the shape that all cards have (`data.cards`)."""
    return {
        "format": "card/1",
        "name": name,
        "hash": hash,
        "kind": kind,
        "rows": rows,
        "held_out": 0,
        "feedback": converted.card,
        "code": code_hash(),
    }


def record(store: Store, converted: Converted, name: str) -> list[DatasetVersion]:
    """Name what was made: a data set version with its card for every kind that has rows, `name` and its
    kind. Rows that are recorded already keep the name they have."""
    made = []
    for kind in KINDS:
        if not converted.rows[kind]:
            continue
        hash = hash_value([kind, converted.blobs[kind]])
        if (known := store.log.get(DatasetVersion, hash)) is not None:
            made.append(known)
            continue
        rows, own = converted.rows[kind], f"{name}-{kind}"
        card = json.dumps(card_of(converted, own, kind, rows, hash), ensure_ascii=False, sort_keys=True)
        written = store.blobs.put_bytes(card.encode("utf-8", "replace"))
        counts = {f"rule {r}": n for r, n in converted.card["kinds"][kind]["routes"].items()}
        counts |= converted.card["counts"]
        made.append(DatasetVersion(hash, own, kind, rows, counts, converted.blobs[kind], card=written))
    store.log.append(*made)
    return made


def write(store: Store, converted: Converted, out: Path) -> dict[str, Path]:
    """Files beside each other: `out` with the kind before its ending. Kinds without rows have none."""
    from escultor.store import files

    made = {}
    for kind in KINDS:
        if converted.rows[kind]:
            path = out.with_name(f"{out.stem}.{kind}{out.suffix}")
            with files.whole(path) as draft:
                files.copy_file(store.blobs.file(converted.blobs[kind]), draft)
            made[kind] = path
    return made
