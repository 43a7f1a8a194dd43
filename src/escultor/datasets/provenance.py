"""Datasets and checkpoints derived from entries that have been erased.

The origin of each dataset row names its parents. For each dataset blob, the sorted hashes of those names are
kept in the store's cache (at most 24 bytes a name): built by reading the blob once (about 5 s a gigabyte)
at the first request, searched after that. Blobs never change, so neither do these indexes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from escultor.store import Store
from escultor.store.erasing import FEEDBACK, INTERACTION, digest
from escultor.store.files import atomic_write
from escultor.types import Checkpoint, DatasetVersion

ITEM = "item"  # a row of another dataset can be a parent too
_KINDS = (INTERACTION, FEEDBACK, ITEM)
# Inside the text of a row, a quotation mark would follow a backslash.
_PARENTS = re.compile(rb'(?<!\\)"parents": ?(\[[^\]]*\])')
_ID = re.compile(rb'(?<!\\)"id": ?("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True, slots=True)
class DerivedArtifacts:
    """What was derived from erased entries. `descended` checkpoints started from one that was `trained` on
    such a dataset, or learnt from it; the datasets of `unknown` ones are not in the store."""

    datasets: tuple[DatasetVersion, ...]
    trained: tuple[Checkpoint, ...]
    descended: tuple[Checkpoint, ...]
    unknown: tuple[Checkpoint, ...]

    def summary(self) -> dict[str, Any]:
        """Names and hashes, for a person to act on."""
        return {
            "datasets": [{"name": d.name, "hash": d.hash, "rows": d.rows} for d in self.datasets],
            "checkpoints": [{"name": c.name, "id": c.id, "how": "trained on it"} for c in self.trained]
            + [{"name": c.name, "id": c.id, "how": "descends from one that was"} for c in self.descended],
            "unknown": [{"name": c.name, "id": c.id} for c in self.unknown],
        }


def derived_from(store: Store, erasures: Iterable[str]) -> DerivedArtifacts:
    """Datasets and checkpoints derived from what these erasures removed, through any number of datasets.

    Works from the hashes that an erasure leaves, so that it can be repeated at any time. Raises StoreError
    if a dataset's blob is missing or cannot be read.
    """
    wanted = _numbers(store.log.erased_digests(list(erasures)))
    every = {d.hash: d for _, d in store.log.read(DatasetVersion)}
    datasets: dict[str, DatasetVersion] = {}
    while wanted.size:
        new = [d for d in every.values() if d.hash not in datasets and _contains(store, d, wanted)]
        rows = [digest(ITEM, id) for d in new for id in _matching_rows(store, d, wanted)]
        datasets |= {d.hash: d for d in new}
        wanted = np.union1d(wanted, _numbers(rows)) if rows else wanted[:0]
    checkpoints = [c for _, c in store.log.read(Checkpoint)]
    trained = [c for c in checkpoints if c.dataset_hash in datasets]
    unknown = [c for c in checkpoints if c.dataset_hash and c.dataset_hash not in every]
    descended = tuple(_descended(trained, checkpoints))
    return DerivedArtifacts(tuple(datasets.values()), tuple(trained), descended, tuple(unknown))


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


def _contains(store: Store, dataset: DatasetVersion, wanted: np.ndarray) -> bool:
    """Whether a row of a dataset has a parent among the entries with these hashes."""
    return any(np.isin(wanted, _index(store, blob)).any() for blob in _blobs(dataset))


def _matching_rows(store: Store, dataset: DatasetVersion, wanted: np.ndarray) -> Iterator[str]:
    """Ids of the rows with a parent among the entries with these hashes."""
    numbers = set(wanted.tolist())
    for blob in _blobs(dataset):
        for line in _lines(store, blob):
            if numbers.intersection(_numbers(_digests(line)).tolist()):
                yield from (json.loads(id) for id in _ID.findall(line))


def _index(store: Store, blob: str) -> np.ndarray:
    """The sorted hashes of all parents in a blob, from the cache if they are there."""
    path = store.root / "cache" / "parents" / f"{blob}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # not built yet, or truncated when a process ended
        index = np.unique(np.fromiter(_all_numbers(store, blob), np.uint64))
        with atomic_write(path) as draft, draft.open("wb") as file:
            np.save(file, index, allow_pickle=False)
        return index


def _all_numbers(store: Store, blob: str) -> Iterator[int]:
    for line in _lines(store, blob):
        yield from (int(d[:16], 16) for d in _digests(line))


def _digests(line: bytes) -> Iterator[str]:
    for parents in _PARENTS.findall(line):
        for parent in json.loads(parents):
            yield from (digest(kind, parent) for kind in _KINDS)


def _numbers(digests: Iterable[str]) -> np.ndarray:
    return np.fromiter((int(d[:16], 16) for d in digests), np.uint64)


def _blobs(dataset: DatasetVersion) -> tuple[str, ...]:
    return (dataset.blob, dataset.held_out) if dataset.held_out else (dataset.blob,)


def _lines(store: Store, blob: str) -> Iterator[bytes]:
    with store.blobs.file(blob).open("rb") as file:
        yield from file
