"""Erasing a person everywhere in a store: from the log, then from all that was made of it.

The log goes first, so that no reader finds the records; what follows works from the hashes that are left of
them, can be repeated, and is finished by the next start (`finish_erasures`) where it was interrupted.
Datasets with rows of the person are retired: a version without those rows takes their names, and their blobs
are removed, with the prompts that were held out with them. Suites with items drawn from the person's entries
are removed. Caches that hold texts are deleted, as are other files and blobs in which a text occurs
(`datasets/traces.py`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from escultor.datasets.held_out import prompts_of
from escultor.datasets.provenance import (
    DerivedArtifacts,
    blobs_of,
    derived_from,
    holds,
    lines_of,
    number_of,
    rows_and_parents,
)
from escultor.datasets.rows import read_line
from escultor.datasets.traces import note_texts, noted, remove_traces
from escultor.datasets.versions import load_card, retired_versions
from escultor.errors import StoreError
from escultor.ids import hash_bytes, hash_value, new_id
from escultor.skills.suites import load_items
from escultor.store import Store, files
from escultor.store.erasing import FEEDBACK, INTERACTION, digest
from escultor.types import DatasetVersion, Erasure, HeldOut, RetiredDataset, Review, Suite

MARK = "erased.json"  # the log's last entry when everything that is erased had left the folder
LOCK = "erasure.lock"
_WATCHED = (Erasure, DatasetVersion, Suite)  # after which there may be something to remove
_CACHES = ("feedback-*.sqlite*", "routes-*.sqlite*", "judge.jsonl")  # that hold texts of people


def erase_everywhere(store: Store, subject: str, by: str) -> tuple[Erasure, DerivedArtifacts]:
    """Remove a person's records and everything in the store's folder that was made of them; what remains is
    the Erasure, and hashes. What they were in is returned, for those who use it elsewhere. Raises StoreError
    where that cannot be done now: the records are gone, and the next start goes on with the rest."""
    with files.locked(store.root / LOCK):  # no other process looks for the texts before they are erased
        note_texts(store, subject)
        erasure = store.log.erase(subject, by)
    suites, removed = _finish(store) or ([], [])
    derived = derived_from(store, [e.id for _, e in store.log.read(Erasure, target=subject)])
    return erasure, replace(derived, suites=tuple(suites), files=tuple(removed))


def finish_erasures(store: Store) -> bool:
    """Remove what was made of erased records and is still there; False where there is nothing to do. Several
    processes may call it at once. Raises StoreError."""
    return _finish(store) is not None


def _finish(store: Store) -> tuple[list[str], list[str]] | None:
    """The names of the suites and files that were removed; None where there was nothing to do."""
    if not _is_pending(store):
        return None
    with files.locked(store.root / LOCK):
        last = store.log.last_seq()
        found = derived_from(store, [erasure.id for _, erasure in store.log.read(Erasure)])
        numbers = {number_of(each) for each in found.digests}
        retired = retired_versions(store)
        own = {
            _retire(store, dataset, found.digests, numbers)
            for dataset in found.datasets
            if dataset.hash not in retired
        }
        suites = _remove_suites(store, found.digests)
        live = _remove_blobs(store, numbers)
        _remove_caches(store)
        notes = noted(store)
        removed = remove_traces(store, notes, live)
        store.log.scrub()
        end = store.log.last_seq()
        mark = last if _is_changed(store, last, own) else max(last, end)
        with files.atomic_write(store.root / MARK) as draft:
            draft.write_text(json.dumps({"log": mark}) + "\n")
        for path in notes:
            _unlink(path)
    return suites, removed


def _is_pending(store: Store) -> bool:
    """Whether anything was erased, or anything was made that could be of what was erased, since the mark."""
    if noted(store):
        return True
    try:
        mark = int(json.loads((store.root / MARK).read_text())["log"])
    except (OSError, ValueError, KeyError, TypeError):
        mark = 0
    if not store.log.count(Erasure):
        return False
    return any(any(store.log.raw_pages(each, mark)) for each in _WATCHED)


def _is_changed(store: Store, last: int, own: set[str]) -> bool:
    """Whether others erased or made anything since this entry; `own` versions were made here."""
    records = (record for each in _WATCHED for _, record in store.log.read(each, last))
    return any(not isinstance(each, DatasetVersion) or each.hash not in own for each in records)


# --- datasets ---------------------------------------------------------------------------------------------


def _retire(store: Store, dataset: DatasetVersion, digests: frozenset[str], numbers: set[int]) -> str:
    """Let a version without the rows of erased entries take the place of a dataset, and record that its blobs
    are to be removed: in one transaction. Returns the hash of that version."""
    removed: list[bytes] = []
    blobs = [_without(store, blob, numbers, removed) for blob in blobs_of(dataset)]
    (train, rows), (held_out, held) = blobs[0], (blobs[1] if blobs[1:] else ("", 0))
    counts = dataset.counts | {"erased": dataset.counts.get("erased", 0) + len(removed)}
    hash = hash_value(["dataset/1", dataset.name, dataset.kind, train, held_out if held else "", counts])
    card = load_card(store, dataset) | {"hash": hash, "rows": rows, "held_out": held, "counts": counts}
    successor = replace(
        dataset,
        hash=hash,
        rows=rows,
        counts=counts,
        blob=train,
        held_out=held_out if held else "",
        card=store.blobs.put_bytes(
            json.dumps(card, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")
        ),
    )
    gone, registrations, texts = _held_out_without(store, dataset, removed)
    parents = {number for _, found in rows_and_parents(removed) for number in found}
    ids = {id for id, _ in rows_and_parents(removed)}
    reviews = [review for _, review in store.log.read(Review, target=dataset.hash)]
    kept = [review for review in reviews if digest("item", review.row) not in ids and rows]
    record = RetiredDataset(
        dataset.hash,
        time.time(),
        successor.hash if rows else "",
        tuple(sorted(each for each in digests if number_of(each) in parents)),
        rows=tuple(sorted(ids)),
        blobs=tuple(dict.fromkeys((*blobs_of(dataset), *filter(None, (dataset.card,)), *texts))),
    )
    moved = [replace(review, id=new_id("review"), dataset=hash) for review in kept]
    gone += [(Review, review.id) for review in reviews]
    store.log.replace(gone, *([successor] if rows else []), *registrations, *moved, record)
    return hash


def _without(store: Store, blob: str, numbers: set[int], removed: list[bytes]) -> tuple[str, int]:
    """A blob of the lines without rows of erased entries, and their number; the others go to `removed`."""
    count = 0

    def kept() -> Iterator[bytes]:
        nonlocal count
        for line in lines_of(store, blob):
            ((_, parents),) = rows_and_parents([line])
            if parents & numbers:
                removed.append(line)
            else:
                count += 1
                yield line

    return store.blobs.put_chunks(kept()), count


def _held_out_without(
    store: Store, dataset: DatasetVersion, removed: list[bytes]
) -> tuple[list[tuple[type, str]], list[HeldOut], list[str]]:
    """The registrations of held-out prompts that hold prompts of removed rows, those that take their place,
    and the blobs with the texts."""
    prompts = {p.hash for line in removed for p in prompts_of(read_line(dataset.kind, line).item)}
    gone: list[tuple[type, str]] = []
    instead, texts = list[HeldOut](), list[str]()
    for _, record in store.log.read(HeldOut):
        lines = store.blobs.get_bytes(record.blob).splitlines(keepends=True)
        left = [line for line in lines if json.loads(line)["hash"] not in prompts]
        if len(left) == len(lines):
            continue
        gone.append((HeldOut, record.id))
        texts.append(record.blob)
        if left:
            text = b"".join(left)
            instead.append(HeldOut(hash_bytes(text), record.name, len(left), store.blobs.put_bytes(text)))
    known = {record.id: record for _, record in store.log.read(HeldOut)}
    return gone, [known.get(each.id, each) for each in instead], texts


# --- files ------------------------------------------------------------------------------------------------


def _remove_suites(store: Store, digests: frozenset[str]) -> list[str]:
    """Remove the suites with items drawn from erased entries; their names. Scores on them stay."""
    gone: list[Suite] = []
    for _, suite in store.log.read(Suite):
        try:
            parents = {parent for item in load_items(store.blobs, suite) for parent in item.parents}
        except StoreError:  # removed by an erasure that was interrupted, or missing
            gone.append(suite)
            continue
        if not digests.isdisjoint(digest(kind, each) for kind in (INTERACTION, FEEDBACK) for each in parents):
            gone.append(suite)
    for suite in gone:
        store.blobs.remove_bytes(suite.blob)
    if gone:
        store.log.replace([(Suite, suite.id) for suite in gone])
    return [suite.name for suite in gone]


def _remove_blobs(store: Store, numbers: set[int]) -> set[str]:
    """Remove the blobs of retired versions that no version is left with, and those that no record names, as
    conversions make them, where a row in them is of erased entries. Returns the blobs that are in use."""
    retired = retired_versions(store)
    live = {
        v for _, d in store.log.read(DatasetVersion) if d.hash not in retired for v in (*blobs_of(d), d.card)
    }
    live |= {record.blob for each in (HeldOut, Suite) for _, record in store.log.read(each)}
    for blob in {blob for record in retired.values() for blob in record.blobs} - live:
        _remove_blob(store, blob)
    wanted = np.fromiter(numbers, np.uint64)
    for blob in store.blobs.each_bytes():
        if blob not in live and holds(store, blob, wanted):
            _remove_blob(store, blob)
    return live


def _remove_blob(store: Store, blob: str) -> None:
    store.blobs.remove_bytes(blob)
    _unlink(store.root / "cache" / "parents" / f"{blob}.npy")


def _unlink(path: Path) -> None:
    with files.wrap_os_errors("delete", path):
        path.unlink(missing_ok=True)


def _remove_caches(store: Store) -> None:
    """Remove what can be made again of the log, and what killed processes left."""
    cache = store.root / "cache"
    for path in [each for pattern in _CACHES for each in cache.glob(pattern)]:
        _unlink(path)
    for folder in (store.root / "partial", store.blobs.root / "partial"):
        if folder.is_dir():
            files.sweep(folder)
