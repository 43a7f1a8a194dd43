"""Which datasets and checkpoints were made of entries that were erased since.

The origins in a dataset's rows name what each was made of. Of each dataset's blob the hashes of those
names are kept, sorted, in the store's cache: some 24 bytes a name, made by reading the blob once (about
5 s a gigabyte) when it is first asked about, and then a binary search each time. Blobs never change,
so neither do these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from escultor.store import Store
from escultor.store.erasing import FEEDBACK, INTERACTION, digest
from escultor.store.files import whole
from escultor.types import Checkpoint, DatasetVersion

ITEM = "item"  # a row of another dataset, which a row may be made of as well
_KINDS = (INTERACTION, FEEDBACK, ITEM)
# Inside the text of a row a quotation mark would have a backslash before it.
_PARENTS = re.compile(rb'(?<!\\)"parents": ?(\[[^\]]*\])')
_ID = re.compile(rb'(?<!\\)"id": ?("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True, slots=True)
class DerivedArtifacts:
    """What was made of erased entries. `descended` are checkpoints that began from one that was trained on
    such a dataset, or learnt from it; of `unknown` the store does not hold what they were trained on."""

    datasets: tuple[DatasetVersion, ...]
    trained: tuple[Checkpoint, ...]
    descended: tuple[Checkpoint, ...]
    unknown: tuple[Checkpoint, ...]

    def shown(self) -> dict[str, Any]:
        """Names and hashes, for a person to act on."""
        return {
            "datasets": [{"name": d.name, "hash": d.hash, "rows": d.rows} for d in self.datasets],
            "checkpoints": [{"name": c.name, "id": c.id, "how": "trained on it"} for c in self.trained]
            + [{"name": c.name, "id": c.id, "how": "descends from one that was"} for c in self.descended],
            "unknown": [{"name": c.name, "id": c.id} for c in self.unknown],
        }


def made_of(store: Store, erasures: Iterable[str]) -> DerivedArtifacts:
    """Datasets and checkpoints made of what these erasures removed, through any number of datasets.

    Works from the hashes that an erasure leaves, so it can be asked again at any time. Raises
    StoreError when a dataset's blob is missing or cannot be read.
    """
    wanted = _numbers(store.log.digests_of(list(erasures)))
    every = {d.hash: d for _, d in store.log.read(DatasetVersion)}
    found: dict[str, DatasetVersion] = {}
    while wanted.size:
        hit = [d for d in every.values() if d.hash not in found and _holds(store, d, wanted)]
        rows = [digest(ITEM, id) for d in hit for id in _rows_of(store, d, wanted)]
        found |= {d.hash: d for d in hit}
        wanted = np.union1d(wanted, _numbers(rows)) if rows else wanted[:0]
    checkpoints = [c for _, c in store.log.read(Checkpoint)]
    trained = [c for c in checkpoints if c.dataset_hash in found]
    unknown = [c for c in checkpoints if c.dataset_hash and c.dataset_hash not in every]
    return DerivedArtifacts(
        tuple(found.values()), tuple(trained), tuple(_descended(trained, checkpoints)), tuple(unknown)
    )


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


def _holds(store: Store, dataset: DatasetVersion, wanted: np.ndarray) -> bool:
    """Whether a row of a dataset is made of one of the entries with these hashes."""
    return any(np.isin(wanted, _index(store, blob)).any() for blob in _blobs(dataset))


def _rows_of(store: Store, dataset: DatasetVersion, wanted: np.ndarray) -> Iterator[str]:
    """Ids of the rows that are."""
    numbers = set(wanted.tolist())
    for blob in _blobs(dataset):
        for line in _lines(store, blob):
            if numbers.intersection(_numbers(_digests(line)).tolist()):
                yield from (json.loads(id) for id in _ID.findall(line))


def _index(store: Store, blob: str) -> np.ndarray:
    """The sorted hashes of all parents in a blob, from the cache where they are there already."""
    path = store.root / "cache" / "parents" / f"{blob}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # not there yet, or cut short by the end of its process
        made = np.unique(np.fromiter(_all_numbers(store, blob), np.uint64))
        _keep(path, made)
        return made


def _keep(path: Path, index: np.ndarray) -> None:
    with whole(path) as draft, draft.open("wb") as file:
        np.save(file, index, allow_pickle=False)


def _all_numbers(store: Store, blob: str) -> Iterator[int]:
    for line in _lines(store, blob):
        yield from (int(d[:16], 16) for d in _digests(line))


def _digests(line: bytes) -> Iterator[str]:
    for found in _PARENTS.findall(line):
        for parent in json.loads(found):
            yield from (digest(kind, parent) for kind in _KINDS)


def _numbers(digests: Iterable[str]) -> np.ndarray:
    return np.fromiter((int(d[:16], 16) for d in digests), np.uint64)


def _blobs(dataset: DatasetVersion) -> tuple[str, ...]:
    held_out = getattr(dataset, "held_out", "")
    return (dataset.blob, held_out) if held_out else (dataset.blob,)


def _lines(store: Store, blob: str) -> Iterator[bytes]:
    with store.blobs.file(blob).open("rb") as file:
        yield from file
