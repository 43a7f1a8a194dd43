"""Datasets and checkpoints derived from entries that have been erased.

The origin of each dataset row names its parents. For each blob, the sorted hashes of those names are kept in
the store's cache (at most 24 bytes a name): built by reading the blob once (about 5 s a gigabyte) at the
first request, searched after that. Blobs never change, so neither do these indexes. Of a retired version,
whose blobs are removed, the record says what it held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic_core import from_json

from escultor.datasets.versions import retired_versions
from escultor.errors import StoreError
from escultor.store import Store
from escultor.store.erasing import FEEDBACK, INTERACTION, digest
from escultor.store.files import atomic_write
from escultor.types import Checkpoint, DatasetVersion

ITEM = "item"  # a row of another dataset can be a parent too
_KINDS = (INTERACTION, FEEDBACK, ITEM)


@dataclass(frozen=True, slots=True)
class DerivedArtifacts:
    """What was derived from erased entries. `descended` checkpoints started from one that was `trained` on
    such a dataset, or learnt from it; the datasets of `unknown` ones are not in the store. The rows of
    `unreadable` datasets are missing, so that nobody knows."""

    datasets: tuple[DatasetVersion, ...]
    trained: tuple[Checkpoint, ...]
    descended: tuple[Checkpoint, ...]
    unknown: tuple[Checkpoint, ...]
    unreadable: tuple[DatasetVersion, ...]
    digests: frozenset[str]  # of the erased entries, and of all rows made of them
    suites: tuple[str, ...] = ()  # names of those that an erasure removed
    files: tuple[str, ...] = ()  # in the store's folder, that it removed because a text occurred in them

    def summary(self) -> dict[str, Any]:
        """Names and hashes, for a person to act on."""
        return {
            "datasets": [{"name": d.name, "hash": d.hash, "rows": d.rows} for d in self.datasets],
            "checkpoints": [{"name": c.name, "id": c.id, "how": "trained on it"} for c in self.trained]
            + [{"name": c.name, "id": c.id, "how": "descends from one that was"} for c in self.descended],
            "unknown": [{"name": c.name, "id": c.id} for c in self.unknown],
            "unreadable": [{"name": d.name, "hash": d.hash} for d in self.unreadable],
            "suites": list(self.suites),
            "files": list(self.files),
        }


def derived_from(store: Store, erasures: Iterable[str]) -> DerivedArtifacts:
    """Datasets and checkpoints derived from what these erasures removed, through any number of datasets.

    Works from the hashes that an erasure leaves, so that it can be repeated at any time.
    """
    digests = set(store.log.erased_digests(list(erasures)))
    every = {d.hash: d for _, d in store.log.read(DatasetVersion)}
    retired = retired_versions(store)
    datasets: dict[str, DatasetVersion] = {}
    unreadable: dict[str, DatasetVersion] = {}
    new = set(digests)
    while new:
        rows: set[str] = set()
        numbers = _numbers(new)
        for d in every.values():
            try:
                if d.hash not in retired:
                    found = set(_matching_rows(store, d, numbers))
                else:
                    found = set(retired[d.hash].rows if not new.isdisjoint(retired[d.hash].parents) else ())
            except StoreError:
                unreadable[d.hash] = d
                continue
            if found:
                datasets[d.hash] = d
                rows |= found
        new = rows - digests
        digests |= rows
    checkpoints = [c for _, c in store.log.read(Checkpoint)]
    trained = [c for c in checkpoints if not datasets.keys().isdisjoint(versions_of(c))]
    unknown = [c for c in checkpoints if c.dataset_hash and every.keys().isdisjoint(versions_of(c))]
    return DerivedArtifacts(
        tuple(datasets.values()),
        tuple(trained),
        tuple(_descended(trained, checkpoints)),
        unknown=tuple(unknown),
        unreadable=tuple(unreadable.values()),
        digests=frozenset(digests),
    )


def versions_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The hashes of the dataset versions that a checkpoint was trained on: those its rows were read from, and
    that of the rows themselves, which a cycle records as a version."""
    return (*checkpoint.datasets, checkpoint.dataset_hash)


def _descended(trained: list[Checkpoint], checkpoints: list[Checkpoint]) -> Iterator[Checkpoint]:
    reached = {c.id for c in trained}
    grew = True
    while grew:
        grew = False
        for c in checkpoints:
            if c.id not in reached and reached & set(c.parents):
                reached.add(c.id)
                grew = True
                yield c


def _matching_rows(store: Store, dataset: DatasetVersion, wanted: np.ndarray) -> Iterator[str]:
    """Digests of the rows with a parent among the entries with these hashes."""
    numbers = set(wanted.tolist())
    for blob in blobs_of(dataset):
        if holds(store, blob, wanted):
            yield from (row for row, parents in rows_and_parents(lines_of(store, blob)) if parents & numbers)


# --- the rows of a blob and their parents, as hashes ------------------------------------------------------


def blobs_of(dataset: DatasetVersion) -> tuple[str, ...]:
    """The blobs with the rows of a dataset."""
    return (dataset.blob, dataset.held_out) if dataset.held_out else (dataset.blob,)


def lines_of(store: Store, blob: str) -> Iterator[bytes]:
    """The lines of a blob. Raises StoreError where it is missing."""
    with store.blobs.file(blob).open("rb") as file:
        yield from file


def rows_and_parents(lines: Iterable[bytes]) -> Iterator[tuple[str, set[int]]]:
    """For each line the digest of the row's id, and the numbers of its parents; empty for what is no row."""
    for line in lines:
        try:
            row = from_json(line)
            row = row["item"] if isinstance(row.get("item"), dict) else row
            id, parents = row.get("id"), row["origin"]["parents"]
        except (ValueError, KeyError, TypeError, AttributeError):
            yield "", set()
            continue
        digests = (digest(kind, each) for each in parents for kind in _KINDS)
        yield digest(ITEM, str(id)), {number_of(each) for each in digests}


def number_of(digest: str) -> int:
    """The beginning of a digest, which indexes hold."""
    return int(digest[:16], 16)


def holds(store: Store, blob: str, wanted: np.ndarray) -> bool:
    """Whether a row of a blob has a parent among these numbers."""
    return bool(np.isin(wanted, _index(store, blob)).any())


def _numbers(digests: Iterable[str]) -> np.ndarray:
    return np.fromiter(map(number_of, digests), np.uint64)


def _index(store: Store, blob: str) -> np.ndarray:
    """The sorted hashes of all parents in a blob, from the cache if they are there."""
    store.blobs.file(blob)
    path = store.root / "cache" / "parents" / f"{blob}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # not built yet, or truncated when a process ended
        index = np.unique(np.fromiter(_all_numbers(store, blob), np.uint64))
        with atomic_write(path) as draft, draft.open("wb") as file:
            np.save(file, index, allow_pickle=False)
        return index


def _all_numbers(store: Store, blob: str) -> Iterator[int]:
    for _, parents in rows_and_parents(lines_of(store, blob)):
        yield from parents
