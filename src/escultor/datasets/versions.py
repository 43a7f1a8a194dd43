"""Dataset versions in the store: saved with their card, found by name or hash, read and compared."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from escultor.datasets.cards.head import card_head
from escultor.datasets.held_out import hold_out, load_guard
from escultor.datasets.rows import CurationRow, read_file
from escultor.errors import InputError
from escultor.ids import hash_value, new_id
from escultor.store import Store
from escultor.types import DatasetName, DatasetVersion, RetiredDataset

GUARD_BATCH = 4096  # rows compared with held-out prompts at a time
MAX_EXAMPLES = 5


def save_version(
    store: Store,
    name: str,
    kind: Any,
    train: Path,
    held_out: Path | None,
    counts: dict[str, int],
    card: Callable[[str], dict[str, Any]],
) -> DatasetVersion:
    """Put rows into the store as a version of a dataset; `card` makes the card, given the version's hash.

    Held-out rows are registered first, so that there is no moment at which they could be trained on. The
    hash is that of name, rows and counts: the same inputs and rules give the same version, recorded once.
    """
    rows = store.blobs.put_file(train)
    held_out_blob = store.blobs.put_file(held_out) if held_out else ""
    hash = hash_value(["dataset/1", name, kind, rows, held_out_blob, counts])
    if held_out_blob:
        hold_out(store, name, (row.item for row in read_file(kind, store.blobs.file(held_out_blob))))
    if store.log.get(DatasetVersion, hash) is not None:
        return give_name(store, name, hash)
    text = json.dumps(card(hash), ensure_ascii=False, sort_keys=True)
    card_blob = store.blobs.put_bytes(text.encode("utf-8", "replace"))
    with store.blobs.file(rows).open("rb") as file:
        number = sum(1 for _ in file)
    version = DatasetVersion(
        hash, name, kind, number, counts, blob=rows, held_out=held_out_blob, card=card_blob
    )
    store.log.append(version)
    return version


def give_name(store: Store, name: str, hash: str) -> DatasetVersion:
    """Let a name mean the recorded version of this hash from now on; nothing is written if it does already.
    The version is returned under that name."""
    version = store.log.get(DatasetVersion, hash)
    if version is None:
        raise InputError("there is no such dataset version", hash, remedy="see `escultor data list`")
    named = versions_named(store, name)
    if not named or named[-1].hash != hash:
        store.log.append(DatasetName(new_id("name"), time.time(), name, hash))
    return replace(version, name=name)


def retired_versions(store: Store) -> dict[str, RetiredDataset]:
    """By hash, the versions that an erasure took the place of."""
    return {record.id: record for _, record in store.log.read(RetiredDataset)}


def in_force(retired: dict[str, RetiredDataset], hash: str) -> str:
    """The hash of the version that stands for a version by now; empty where all of its rows were erased."""
    while hash in retired:
        hash = retired[hash].successor
    return hash


def versions_named(store: Store, name: str | None = None) -> list[DatasetVersion]:
    """The versions that a name was given to, each once, under that name and in the order in which it was
    last given: the last one is what the name means. None: the versions of all names. Where rows of a version
    were erased, the version without them stands for it."""
    recorded = {v.hash: v for _, v in store.log.read(DatasetVersion)}
    retired = retired_versions(store)
    entries: list[tuple[int, str, str]] = []
    entries += [(seq, v.name, v.hash) for seq, v in store.log.read(DatasetVersion, target=name)]
    entries += [(seq, n.name, n.dataset) for seq, n in store.log.read(DatasetName, target=name)]
    last = {(given, in_force(retired, hash)): seq for seq, given, hash in sorted(entries)}
    order = sorted(last, key=lambda key: last[key])
    return [replace(recorded[hash], name=given) for given, hash in order if hash in recorded]


def find_version(store: Store, name: str) -> DatasetVersion:
    """The version that this name was given to last, or the one whose hash starts with it (six characters or
    more).

    Raises InputError if there is none or more than one.
    """
    if versions := versions_named(store, name):
        return versions[-1]
    every = versions_named(store)
    retired, live = retired_versions(store), {v.hash: v for v in every}
    hashes = {in_force(retired, h) for h in (*live, *retired) if len(name) >= 6 and h.startswith(name)}
    matches = {hash: live[hash] for hash in hashes if hash in live}
    if len(matches) != 1:
        known = ", ".join(sorted({v.name for v in every})) or "none"
        got = f"{len(matches)} matches"
        raise InputError(f"there is no single dataset `{name}`", got, known, "see `escultor data list`")
    return matches.popitem()[1]


def read_rows(store: Store, version: DatasetVersion) -> Iterator[CurationRow]:
    """The training rows of a version, one at a time."""
    return read_file(version.kind, store.blobs.file(version.blob))


def allowed_rows(store: Store, version: DatasetVersion, counts: Counter[str]) -> Iterator[CurationRow]:
    """The training rows without those whose prompt is held out by now, which are counted by reason. For
    exports: programs that read them have no guard of their own."""
    guard, rows = load_guard(store), read_rows(store, version)
    while batch := list(islice(rows, GUARD_BATCH)):
        reasons = guard.reasons([row.item for row in batch])
        counts.update(reason for reason in reasons if reason is not None)
        yield from (row for row, reason in zip(batch, reasons, strict=True) if reason is None)


def load_card(store: Store, version: DatasetVersion) -> dict[str, Any]:
    """The card of a version, under the version's name. One without a card, as cycles record, has what the
    record says."""
    if version.card:
        return json.loads(store.blobs.get_bytes(version.card)) | {"name": version.name}
    head = card_head(version.hash, name=version.name, kind=version.kind, rows=version.rows)
    return head | {"counts": version.counts}


# --- comparison ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VersionDifference:
    """Rows of two versions by id and content: in both, in one only, and with one id but other content."""

    same: int
    only_a: int
    only_b: int
    changed: int
    labels: dict[str, dict[str, tuple[int, int]]]  # rows of A and B by value, where they differ
    examples: dict[str, tuple[str, ...]]


def compare_versions(store: Store, a: DatasetVersion, b: DatasetVersion) -> VersionDifference:
    """What changed from A to B. Memory holds two hashes a row.

    Raises InputError for versions of different kinds.
    """
    if a.kind != b.kind:
        raise InputError("only datasets of one kind compare", f"{a.kind} and {b.kind}", "one kind")
    old, old_labels = _hashes(store, a)
    new, new_labels = _hashes(store, b)
    ids = {
        "only a": old.keys() - new.keys(),
        "only b": new.keys() - old.keys(),
        "changed": {id for id in old.keys() & new.keys() if old[id] != new[id]},
    }
    labels: dict[str, dict[str, tuple[int, int]]] = {}
    for name in sorted(old_labels.keys() | new_labels.keys()):
        before, after = old_labels[name], new_labels[name]
        values = sorted(before.keys() | after.keys())
        if moved := {v: (before[v], after[v]) for v in values if before[v] != after[v]}:
            labels[name] = moved
    return VersionDifference(
        same=len(old.keys() & new.keys()) - len(ids["changed"]),
        only_a=len(ids["only a"]),
        only_b=len(ids["only b"]),
        changed=len(ids["changed"]),
        labels=labels,
        examples={what: tuple(sorted(each)[:MAX_EXAMPLES]) for what, each in ids.items()},
    )


def _hashes(store: Store, version: DatasetVersion) -> tuple[dict[str, int], defaultdict[str, Counter[str]]]:
    """By id the hash of a row's item; and rows by label and value."""
    hashes: dict[str, int] = {}
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in read_rows(store, version):
        hashes[row.item.id] = int(hash_value(row.item)[:16], 16)
        for name, value in row.labels.items():
            labels[name][value] += 1
    return hashes, labels
