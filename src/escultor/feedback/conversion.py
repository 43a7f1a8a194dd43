"""From a store's feedback to datasets: one call, cached, so that without new feedback it costs nothing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from escultor.code_closure import code_version
from escultor.config import FeedbackRules
from escultor.data.jsonl_rows import build, decode
from escultor.datasets.cards.head import card_head
from escultor.datasets.held_out import load_guard, registrations_hash
from escultor.datasets.versions import give_name
from escultor.feedback.card import advise, summarise
from escultor.feedback.index import FeedbackIndex, index_path
from escultor.feedback.items import FeedbackItem, write_rows
from escultor.feedback.labelling_rules import ItemKind
from escultor.feedback.raw_log import no_cycle_collection
from escultor.feedback.repeated_phrases import phrase_notes
from escultor.feedback.selection import HASHED_KINDS, KINDS, SelectionQuery, select
from escultor.ids import code_hash, hash_value
from escultor.store import Store, files
from escultor.types import DatasetVersion, Erasure

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion made: by kind the name of the rows' blob and their number, the card's section on
    feedback, and the entry of the log up to which feedback is in it. `reused`: it was made before."""

    blobs: dict[str, str]
    rows: dict[str, int]
    card: dict[str, Any]
    cursor: int
    reused: bool


def open_index(store: Store, settings: FeedbackRules) -> FeedbackIndex:
    """The index of a store, in its cache. Indexes that earlier versions left there are deleted: they would
    keep what the log erases."""
    folder = store.root / "cache"
    for stale in folder.glob("routes-*.sqlite*"):
        stale.unlink(missing_ok=True)
    return FeedbackIndex(index_path(folder, store.log.name, settings), settings)


@no_cycle_collection()
def convert(store: Store, settings: FeedbackRules, query: SelectionQuery) -> Conversion:
    """Read what is new in the log, and make items of all that holds, as blobs of the store.

    A conversion of the same state, by the same code, query and settings, is reused; of `query.now` only the
    day matters, since retention ends by the day. Prompts that are held out in the store, word for word or
    nearly, never enter, whatever else `query` holds out; nor do answers, as what is to be learnt, that break
    the schema of their skill.
    """
    query = replace(query, now=query.now // DAY_S * DAY_S)
    with open_index(store, settings) as index:
        while True:
            cursor = index.follow(store.log)
            held_out = registrations_hash(store)
            key = hash_value([index.state(), settings.model_dump(), query, held_out, _code()])
            if (cached := index.cached(key)) is not None:
                return Conversion(**json.loads(cached), cursor=cursor, reused=True)
            guard = load_guard(store)
            selection = select(index, settings, replace(query, held_out=query.held_out | guard.hashes))
            version = hash_value([held_out, query.schemas, _code()])
            last_blobs = index.last_blobs(version)
            rows, blobs = write_rows(store, selection, guard, last_blobs, dict(query.schemas))
            # Texts that were erased while they were read may be among the rows: then all is made again.
            if not any(store.log.raw_pages(Erasure, cursor)):
                break
        selection.notes += phrase_notes(selection, store.log)
        section = summarise(selection)
        card = section | {"advice": list(advise(section, settings).lines), "hashes": dict(blobs)}
        index.put_cached(key, json.dumps({"blobs": blobs, "rows": rows, "card": card}), blobs, version)
    return Conversion(blobs, rows, card, cursor, False)


def _code() -> str:
    """The version of the code that decides what a conversion makes."""
    return code_version("escultor.feedback.card", "escultor.feedback.items")


def read_items(store: Store, conversion: Conversion, kind: ItemKind) -> list[FeedbackItem]:
    """The items of one kind."""
    lines = store.blobs.get_bytes(conversion.blobs[kind]).splitlines()
    return [build(kind, decode(line), Counter(), "feedback") for line in lines]  # type: ignore[misc]


def make_card(conversion: Conversion, name: str, kind: str, rows: int, hash: str) -> dict[str, Any]:
    """The card of a dataset made of feedback, in the format of all cards (`datasets.cards`)."""
    head = card_head(hash, name=name, kind=kind, rows=rows)
    return head | {"feedback": conversion.card, "code": code_hash()}


def record(store: Store, conversion: Conversion, name: str) -> list[DatasetVersion]:
    """Record a dataset version with its card for every kind that has rows, named `name` and the kind. Rows
    that are recorded already are given the name too."""
    new, hashes = [], {}
    for kind in KINDS:
        n, blob, own_name = conversion.rows[kind], conversion.blobs[kind], f"{name}-{kind}"
        if not n:
            continue
        hash = hashes[own_name] = hash_value([HASHED_KINDS[kind], blob])
        if store.log.get(DatasetVersion, hash) is not None:
            continue
        card = json.dumps(make_card(conversion, own_name, kind, n, hash), ensure_ascii=False, sort_keys=True)
        counts = {f"rule {r}": n for r, n in conversion.card["kinds"][kind]["rules"].items()}
        counts |= conversion.card["counts"]
        card_blob = store.blobs.put_bytes(card.encode("utf-8", "replace"))
        new.append(DatasetVersion(hash, own_name, kind, n, counts, blob=blob, card=card_blob))
    store.log.append(*new)
    return [give_name(store, own_name, hash) for own_name, hash in hashes.items()]


def write(store: Store, conversion: Conversion, out: Path) -> dict[str, Path]:
    """Write a file for every kind that has rows, named `out` with the kind before its suffix."""
    paths = {}
    for kind in KINDS:
        if conversion.rows[kind]:
            paths[kind] = out.with_name(f"{out.stem}.{kind}{out.suffix}")
            with files.atomic_write(paths[kind]) as draft:
                files.copy_file(store.blobs.file(conversion.blobs[kind]), draft)
    return paths
