"""From a store to data sets: one call, remembered, so that with nothing new it costs nothing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from escultor.config import FeedbackRules
from escultor.datasets.held_out import load_guard, registrations_hash
from escultor.feedback import repeated_phrases
from escultor.feedback.card import Advice, advise, section
from escultor.feedback.index import FeedbackIndex, index_path
from escultor.feedback.item_writer import written
from escultor.feedback.labelling_rules import ItemKind
from escultor.feedback.raw_log import uncollected
from escultor.feedback.selection import KINDS, FeedbackItem, SelectionQuery, select
from escultor.ids import code_hash, hash_value
from escultor.store import Store
from escultor.types import DatasetVersion, Erasure

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion made: by kind the name of the rows' blob and their number, the card's section, and
    the entry of the log up to which feedback is in it. `reused` when it was made before."""

    blobs: dict[str, str]
    rows: dict[str, int]
    card: dict[str, Any]
    cursor: int
    reused: bool


def open_index(store: Store, settings: FeedbackRules) -> FeedbackIndex:
    """The index of a store, in its cache."""
    return FeedbackIndex(index_path(store.root / "cache", store.log.name, settings), settings)


@uncollected()
def convert(store: Store, settings: FeedbackRules, asked: SelectionQuery) -> Conversion:
    """Read what is new in the log and make items of all that holds.

    The rows are blobs of the store. A conversion of the same state, question and settings is found again;
    only the day of `asked.now` matters, since retention ends by the day. Prompts that are held out in the
    store, word for word or nearly, never get through, whatever `asked` names beside them.
    """
    asked = replace(asked, now=asked.now // DAY_S * DAY_S)
    with open_index(store, settings) as index:
        while True:
            cursor = index.follow(store.log)
            held = registrations_hash(store)
            key = hash_value([index.state(), settings.model_dump(), asked, held])
            if (found := index.remembered(key)) is not None:
                return Conversion(**json.loads(found), cursor=cursor, reused=True)
            guard = load_guard(store)
            wanted = replace(asked, held_out=asked.held_out | guard.hashes)
            selection = select(index, store.log, settings, wanted)
            rows, blobs = written(store, selection, guard, index.written(held))
            # What was erased while the texts were read may be among them still.
            if not any(store.log.lean(Erasure, cursor)):
                break
        selection.notes += repeated_phrases.notes(selection, store.log)
        found = section(selection)
        card = found | {"advice": list(advise(found, settings).lines), "hashes": dict(blobs)}
        index.remember(key, json.dumps({"blobs": blobs, "rows": rows, "card": card}), blobs, held)
    return Conversion(blobs, rows, card, cursor, False)


def advice_of(converted: Conversion, settings: FeedbackRules) -> Advice:
    return advise(converted.card, settings)


def read_items(store: Store, converted: Conversion, kind: ItemKind) -> list[FeedbackItem]:
    """The items of one kind."""
    from escultor.data.jsonl_rows import build, decode

    lines = store.blobs.get_bytes(converted.blobs[kind]).splitlines()
    return [build(kind, decode(line), Counter(), "feedback") for line in lines]  # type: ignore[misc]


def card_of(converted: Conversion, name: str, kind: str, rows: int, hash: str) -> dict[str, Any]:
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


def record(store: Store, converted: Conversion, name: str) -> list[DatasetVersion]:
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


def write(store: Store, converted: Conversion, out: Path) -> dict[str, Path]:
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
