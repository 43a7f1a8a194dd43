"""From a store to data sets: one call, remembered, so that with nothing new it costs nothing."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from escultor.config import Routes
from escultor.data.jsonl_rows import row_of
from escultor.data.routes.card import Advice, advise, section
from escultor.data.routes.convert import KINDS, Asked, Item, items, select
from escultor.data.routes.index import Index, index_path
from escultor.data.routes.table import Kind
from escultor.ids import hash_value
from escultor.store import Store
from escultor.types import DatasetVersion

DAY_S = 86_400.0


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


def convert(store: Store, settings: Routes, asked: Asked) -> Converted:
    """Read what is new in the log and make items of all that holds.

    The rows are blobs of the store. A conversion of the same state, question and settings is found again;
    only the day of `asked.now` matters, since retention ends by the day.
    """
    asked = replace(asked, now=asked.now // DAY_S * DAY_S)
    with open_index(store, settings) as index:
        cursor = index.follow(store.log)
        key = hash_value([index.state(), settings.model_dump(), asked])
        if (found := index.remembered(key)) is not None:
            return Converted(**json.loads(found), cursor=cursor, reused=True)
        selection = select(index, store.log, settings, asked)
        counts: Counter[str] = Counter()
        blobs, rows = {}, {}
        for kind in KINDS:
            text, rows[kind] = _lines(items(selection.chosen[kind], store.log, counts))
            blobs[kind] = store.blobs.put_bytes(text)
        selection.counts += counts
        card = section(selection) | {"hashes": dict(blobs)}
        index.remember(key, json.dumps({"blobs": blobs, "rows": rows, "card": card}))
    return Converted(blobs, rows, card, cursor, False)


def _lines(made: Any) -> tuple[bytes, int]:
    parts = [json.dumps(row_of(item), ensure_ascii=False).encode("utf-8", "surrogatepass") for item in made]
    return b"".join(part + b"\n" for part in parts), len(parts)


def advice_of(converted: Converted, settings: Routes) -> Advice:
    return advise(converted.card, settings)


def read_items(store: Store, converted: Converted, kind: Kind) -> list[Item]:
    """The items of one kind."""
    from escultor.data.jsonl_rows import build, decode

    lines = store.blobs.get_bytes(converted.blobs[kind]).splitlines()
    return [build(kind, decode(line), Counter(), "feedback") for line in lines]  # type: ignore[misc]


def record(store: Store, converted: Converted, name: str) -> list[DatasetVersion]:
    """Name what was made: a data set version for every kind that has rows, `name` and its kind. Rows that
    are recorded already keep the name they have."""
    made = []
    for kind in KINDS:
        if not converted.rows[kind]:
            continue
        hash = hash_value([kind, converted.blobs[kind]])
        known = store.log.get(DatasetVersion, hash)
        counts = {f"rule {r}": n for r, n in converted.card["kinds"][kind]["routes"].items()}
        counts |= converted.card["counts"]
        made.append(
            known
            or DatasetVersion(
                hash, f"{name}-{kind}", kind, converted.rows[kind], counts, converted.blobs[kind]
            )
        )
    store.log.append(*made)
    return made


def write(store: Store, converted: Converted, out: Path) -> dict[str, Path]:
    """Files beside each other: `out` with the kind before its ending. Kinds without rows have none."""
    from escultor.store import files

    made = {}
    for kind in KINDS:
        if converted.rows[kind]:
            path = out.with_name(f"{out.stem}.{kind}{out.suffix}")
            with files.explained("write", path):
                path.parent.mkdir(parents=True, exist_ok=True)
                draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
                draft.unlink(missing_ok=True)
                files.write_file(draft, store.blobs.get_bytes(converted.blobs[kind]))
                draft.replace(path)
            made[kind] = path
    return made
