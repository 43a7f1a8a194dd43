"""Datasets in the store: kept with their card, found by name, compared, written out for others to read."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from escultor.datasets.curation.rows import CurationRow, read
from escultor.datasets.held_out import guard_of, hold_out
from escultor.errors import InputError
from escultor.ids import hash_value
from escultor.store import Store
from escultor.types import DatasetVersion

GUARDED = 4096  # rows compared with what is held out at a time


def keep(
    store: Store,
    name: str,
    kind: Any,
    train: Path,
    held_out: Path | None,
    counts: dict[str, int],
    card: Callable[[str], dict[str, Any]],
) -> DatasetVersion:
    """Put rows into the store as a version of a dataset; `card` gives the card of a version's hash.

    What is held out is registered first, so that there is no moment at which it could be trained on. The
    version's hash is that of its name, rows and counts: the same inputs and rules give the same one, which
    is recorded once.
    """
    rows = store.blobs.put_file(train)
    kept_out = store.blobs.put_file(held_out) if held_out else ""
    hash = hash_value(["dataset/1", name, kind, rows, kept_out, counts])
    if kept_out:
        hold_out(store, name, (row.item for row in _read(store, kind, kept_out)))
    if (known := store.log.get(DatasetVersion, hash)) is not None:
        return known
    text = json.dumps(card(hash), ensure_ascii=False, sort_keys=True)
    written = store.blobs.put_bytes(text.encode("utf-8", "replace"))
    number = sum(1 for _ in _read(store, kind, rows))
    version = DatasetVersion(hash, name, kind, number, counts, rows, kept_out, written)
    store.log.append(version)
    return version


def find(store: Store, name: str) -> DatasetVersion:
    """The version recorded last under a name, or that with this hash or its beginning.

    Raises InputError where there is none, or several.
    """
    versions = {v.hash: v for _, v in store.log.read(DatasetVersion, target=name)}
    if versions:
        return list(versions.values())[-1]
    every = [v for _, v in store.log.read(DatasetVersion)]
    found = [v for v in every if len(name) >= 6 and v.hash.startswith(name)]
    if len(found) != 1:
        known = ", ".join(sorted({v.name for v in every})) or "none"
        raise InputError(
            f"`{name}` names no dataset", f"{len(found)} that fit", known, "see `escultor data list`"
        )
    return found[0]


def rows_of(store: Store, version: DatasetVersion) -> Iterator[CurationRow]:
    """The rows that may be trained on, one at a time."""
    return _read(store, version.kind, version.blob)


def allowed_rows(store: Store, version: DatasetVersion, counts: Counter[str]) -> Iterator[CurationRow]:
    """The rows of which the prompt is not held out, by whatever was registered until now; the others are
    counted. For programs that read them outside, where no guard stands."""
    guard, rows = guard_of(store), rows_of(store, version)
    while batch := list(islice(rows, GUARDED)):
        reasons = guard.reasons([row.item for row in batch])
        counts.update(reason for reason in reasons if reason is not None)
        yield from (row for row, reason in zip(batch, reasons, strict=True) if reason is None)


def card_of(store: Store, version: DatasetVersion) -> dict[str, Any]:
    """The card of a version. Raises InputError where none was written."""
    if not version.card:
        raise InputError(f"the dataset {version.name} has no card", version.hash, "a curated dataset")
    return json.loads(store.blobs.get_bytes(version.card))


def _read(store: Store, kind: Any, blob: str) -> Iterator[CurationRow]:
    with store.blobs.file(blob).open("rb") as file:
        for line in file:
            yield read(kind, line)


@dataclass(frozen=True, slots=True)
class Difference:
    """Rows by what they say: in both, in one alone, and those of one id that say something else."""

    same: int
    only_a: int
    only_b: int
    changed: int
    labels: dict[str, dict[str, tuple[int, int]]]  # rows of A and B by value, where they differ
    examples: dict[str, tuple[str, ...]]


SHOWN = 5


def difference(store: Store, a: DatasetVersion, b: DatasetVersion) -> Difference:
    """What changed from A to B. Memory holds two hashes a row.

    Raises InputError for versions of different kinds.
    """
    if a.kind != b.kind:
        raise InputError("only datasets of one kind compare", f"{a.kind} and {b.kind}", "one kind")
    sides = [_hashed(store, version) for version in (a, b)]
    (old, old_labels), (new, new_labels) = sides
    gone, come = old.keys() - new.keys(), new.keys() - old.keys()
    changed = {id for id in old.keys() & new.keys() if old[id] != new[id]}
    labels = {
        name: {
            value: (old_labels[name][value], new_labels[name][value])
            for value in sorted(old_labels[name].keys() | new_labels[name].keys())
            if old_labels[name][value] != new_labels[name][value]
        }
        for name in sorted(old_labels.keys() | new_labels.keys())
    }
    examples = {
        what: tuple(sorted(ids)[:SHOWN])
        for what, ids in (("only a", gone), ("only b", come), ("changed", changed))
    }
    same = len(old.keys() & new.keys()) - len(changed)
    return Difference(
        same, len(gone), len(come), len(changed), {k: v for k, v in labels.items() if v}, examples
    )


def _hashed(store: Store, version: DatasetVersion) -> tuple[dict[str, int], defaultdict[str, Counter[str]]]:
    found: dict[str, int] = {}
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows_of(store, version):
        found[row.item.id] = int(hash_value(row.item)[:16], 16)
        for name, value in row.labels.items():
            labels[name][value] += 1
    return found, labels
