"""Splits into a training and a held-out side that share no prompt and no conversation: by prompt, subject or
time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from escultor.config.curation import Curation, Split
from escultor.data.jsonl_rows import RowKind
from escultor.data.row_messages import without_marks
from escultor.datasets.disk.columns import bounds, row_windows, select, selected_rows, sortable
from escultor.datasets.disk.rows_on_disk import RowsHandle, RowsOnDisk
from escultor.datasets.held_out import HeldOutGuard, prompts_of
from escultor.datasets.rows import CurationRow, prompt_part, read_file, write_line
from escultor.datasets.similarity.duplicates import (
    SimilarityChecker,
    band_hashes,
    bands_for,
    equal_pairs,
    merge_clusters,
    name_hashes,
    resolve_roots,
    similar_pairs,
)
from escultor.errors import DataError
from escultor.process_pool import ProcessPool
from escultor.text.shingles import mix64
from escultor.types import Document, Messages, Role

LEFT_OUT = "left out: prompt is held out"  # a key of the manifest
HELD_OUT = "held out"  # the column of rows whose prompt is held out already
BATCH = 4096  # rows whose prompts one task checks


@dataclass(frozen=True, slots=True)
class SplitSides:
    """(rows,) masks of the two sides; rows `left_out` are on neither. The manifest says how it was done."""

    train: np.ndarray
    held_out: np.ndarray
    left_out: np.ndarray
    manifest: dict[str, Any]


def split_columns(rows: Sequence[CurationRow], settings: Curation) -> dict[str, np.ndarray]:
    """The columns that a split needs: `prompt bands` (n, b), `prompt` (n,) one hash of those, `subject` (n,),
    which is unique for a row without one, and `time` (n,), not-a-number where it is unknown; and those of the
    conversation of a row (see `_of_one_conversation`)."""
    shape = bands_for(settings.split.threshold, settings.near.permutations)
    bands = band_hashes([prompt_part(row.item) for row in rows], *shape)
    prompt = np.zeros(len(rows), dtype=np.uint64)
    for column in bands.T:
        prompt = mix64(prompt ^ column)
    times = [float("nan") if row.time is None else row.time for row in rows]
    prompts = [() if isinstance(row.item, Document) else row.item.prompt for row in rows]
    starts = [_starts(messages) for messages in prompts]
    unique = [f"\x00{row.item.id}" for row in rows]
    return {
        "conversation": name_hashes([row.conversation or own for row, own in zip(rows, unique, strict=True)]),
        "opening": name_hashes([first for first, _ in starts]),
        "exchange": name_hashes([second or own for (_, second), own in zip(starts, unique, strict=True)]),
        "is opening": np.asarray([not second for _, second in starts], dtype=bool),
        "prompt": prompt,
        "prompt bands": bands,
        "subject": name_hashes([row.subject or own for row, own in zip(rows, unique, strict=True)]),
        "time": np.asarray(times, dtype=np.float64),
    }


def _starts(prompt: Messages) -> tuple[str, str]:
    """The prompts of the first and second answer of a conversation, as far as this prompt goes; before the
    first answer the second is empty."""
    answers = [i for i, message in enumerate(prompt) if message.role is Role.ASSISTANT]
    first, second = (*answers, *[len(prompt)] * 2)[:2]
    return repr(without_marks(prompt[:first])), repr(without_marks(prompt[:second])) if answers else ""


def split_rows(rows: RowsOnDisk, mask: np.ndarray, settings: Split, pool: ProcessPool) -> SplitSides:
    """Split the rows of a mask (rows,) into a training and a held-out side.

    Under every rule, near-duplicate prompts and turns of one conversation stay together. By `prompt`, their
    clusters are drawn by a hash of their content; by `subject`, all rows of a subject go to one side; by
    `time`, the latest rows are held out. If a cluster would have rows on both sides, those of the training
    side are left out and counted, and so are rows whose prompt is held out already. Raises DataError for a
    rule that the rows do not support.
    """
    none = np.zeros(len(mask), dtype=bool)
    if not settings.held_out:
        return SplitSides(mask, none, none, {"by": settings.by, "held_out": 0.0, LEFT_OUT: 0})
    cluster = prompt_clusters(rows, mask, settings.threshold, pool)
    held = _draw(rows, mask, settings, cluster)
    left_out = _whole_clusters(held, mask, cluster)
    if rows.has(HELD_OUT):
        left_out |= select(mask, lambda window: rows.column(HELD_OUT)[window])
    left_out &= ~held
    manifest = {
        "by": settings.by,
        "held_out": share(held, mask),
        "clusters": int(np.count_nonzero(_roots(cluster, mask))),
        LEFT_OUT: int(np.count_nonzero(left_out)),
    }
    return SplitSides(mask & ~held & ~left_out, held, left_out, manifest)


def share_warnings(manifest: dict[str, Any], settings: Split) -> list[str]:
    """A warning if the held-out share is far from the one that was asked for."""
    held = manifest["held_out"]
    if abs(held - settings.held_out) <= settings.held_out / 2:
        return []
    shares = f"{held:.0%} of the rows are held out where {settings.held_out:.0%} were asked for"
    clusters = f"{manifest['clusters']:,} clusters"
    return [f"{shares}: near-duplicate prompts stay on one side, and there are {clusters} of them"]


def share(part: np.ndarray, mask: np.ndarray) -> float:
    """The rows of one mask as a share of those of another."""
    return int(np.count_nonzero(part)) / int(np.count_nonzero(mask))


def _roots(cluster: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(rows,) the rows of a mask that are the first of their cluster."""
    return select(mask, lambda window: cluster[window] == np.arange(window.start, window.stop))


def _whole_clusters(part: np.ndarray, mask: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """(rows,) the rows of a mask whose cluster has a row in `part`."""
    chosen = np.zeros(len(mask), dtype=bool)
    for window in row_windows(len(mask)):
        chosen[cluster[window][part[window]]] = True
    return select(mask, lambda window: chosen[cluster[window]])


def _draw(rows: RowsOnDisk, mask: np.ndarray, settings: Split, cluster: np.ndarray) -> np.ndarray:
    """(rows,) which rows of the mask are held out."""
    count = int(np.count_nonzero(mask))
    if settings.by == "time":
        time = rows.column("time")
        unknown = sum(int(np.isnan(time[window][mask[window]]).sum()) for window in row_windows(len(mask)))
        if unknown:
            got = f"{unknown:,} rows without `time`"
            raise DataError("rows cannot be split by time", got, "`time` in every row", "split by prompt")
        rank = int((count - 1) * (1 - settings.held_out))  # the quantile, never a time between two rows
        return _above(lambda window: sortable(time[window]), mask, rank)
    if settings.by == "subject":
        # Subjects in the order of their hash until the share is reached: their sizes differ too much to draw
        # each one independently.
        subject, rank = rows.column("subject"), math.ceil(settings.held_out * count) - 1
        held = mask & ~_above(subject.__getitem__, mask, rank)
        if np.array_equal(held, mask):
            subjects = count - sum(map(len, equal_pairs([subject], mask, rows.folder)))
            got = f"{subjects:,} subjects, the last one too large to leave anything"
            raise DataError("rows cannot be split by subject", got, "smaller subjects", "split by prompt")
        return held
    # A cluster is drawn by content, so that other rows do not change its side.
    tie, limit = rows.column("tie"), np.uint64(settings.held_out * 2**64)
    return _whole_clusters(select(mask, lambda window: tie[window] < limit), mask, cluster)


def _above(key: Callable[[slice], np.ndarray], mask: np.ndarray, rank: int) -> np.ndarray:
    """(rows,) the rows of a mask whose key is greater than that of the row of this rank, from 0."""

    def keyed(window: slice) -> tuple[np.ndarray, np.ndarray]:
        keys = key(window)[mask[window]]
        return np.zeros(len(keys), dtype=np.int64), keys[None]

    bound = bounds(keyed, len(mask), 1, np.asarray([rank + 1]))[0][0, 0]
    return select(mask, lambda window: key(window) > bound)


def prompt_clusters(rows: RowsOnDisk, mask: np.ndarray, threshold: float, pool: ProcessPool) -> np.ndarray:
    """(rows,) for each row of a mask the lowest row number in its cluster of similar prompts and of turns of
    one conversation."""
    root = np.arange(len(mask), dtype=np.uint32)
    # Equal prompts have equal bands: one of each is compared.
    for pairs in equal_pairs([rows.column("prompt")], mask, rows.folder):
        root[pairs[:, 1]] = pairs[:, 0]
    distinct, checker = _roots(root, mask), SimilarityChecker(rows.handle(), pool, prompt_part)
    for pairs in similar_pairs(rows.columns("prompt bands"), distinct, threshold, checker, collapse=False):
        merge_clusters(root, pairs)
    for pairs in _of_one_conversation(rows, mask):
        merge_clusters(root, pairs)
    resolve_roots(root)
    return root


def _of_one_conversation(rows: RowsOnDisk, mask: np.ndarray) -> Iterator[np.ndarray]:
    """(m, 2) pairs of rows of a mask that are turns of one conversation: they name the same one; or their
    prompts are equal as far as the second answer; or the prompt of one is that of the first answer of the
    other. Common openings alone (“Hello”) do not make one conversation of many."""
    yield from equal_pairs([rows.column("conversation")], mask, rows.folder)
    is_opening = rows.column("is opening")[slice(None)]
    if is_opening[mask].all():
        return
    yield from equal_pairs([rows.column("exchange")], mask, rows.folder)
    is_asked = np.zeros(len(mask), dtype=bool)  # of the first row of an opening: a row asks no more than it
    for pairs in equal_pairs([rows.column("opening")], mask, rows.folder):
        is_asked[pairs[is_opening[pairs].any(1), 0]] = True
    for pairs in equal_pairs([rows.column("opening")], mask, rows.folder):
        yield pairs[is_asked[pairs[:, 0]]]


# --- the guard on the training side -------------------------------------------------------------


def drop_held_out_prompts(rows: RowsHandle, sides: SplitSides, pool: ProcessPool, folder: Path) -> SplitSides:
    """The sides without those training rows that training would refuse once the split is registered: the
    clusters compare whole prompts, the guard also finds a prompt inside another. They are counted in the
    manifest."""
    if not sides.held_out.any():
        return sides
    path = folder / "held-out.part"
    with path.open("wb") as file:
        for window in row_windows(rows.rows):
            file.writelines(write_line(row) for row in rows.read(selected_rows(sides.held_out, window)))
    refused = np.zeros(rows.rows, dtype=bool)
    batches = (
        (rows, path, numbers[start : start + BATCH])
        for numbers in (selected_rows(sides.train, window) for window in row_windows(rows.rows))
        for start in range(0, len(numbers), BATCH)
    )
    for numbers in pool.map(_refused_rows, batches):
        refused[numbers] = True
    path.unlink()
    manifest = sides.manifest | {LEFT_OUT: sides.manifest[LEFT_OUT] + int(np.count_nonzero(refused))}
    train, left_out = sides.train & ~refused, sides.left_out | refused
    return SplitSides(train, sides.held_out, left_out, manifest)


def _refused_rows(shared: Any, task: tuple[RowsHandle, Path, np.ndarray]) -> np.ndarray:
    """The numbers of the rows whose prompt is held out."""
    rows, path, numbers = task
    reasons = _guard_of_file(path, rows.kind).reasons([row.item for row in rows.read(numbers)])
    return numbers[[reason is not None for reason in reasons]]


@lru_cache(maxsize=1)
def _guard_of_file(path: Path, kind: RowKind) -> HeldOutGuard:
    """The guard of the rows of a file, built once in each process."""
    return HeldOutGuard(prompt for row in read_file(kind, path) for prompt in prompts_of(row.item))
