"""Two sides that share nothing: by near-duplicate prompts, by subject, by time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from escultor.config.curation import Split
from escultor.datasets.curation.columns import among, spans
from escultor.datasets.curation.lowest_keys import bounds, sortable
from escultor.datasets.curation.near_duplicates import SimilarityChecker, edges, follow, repeats
from escultor.errors import DataError

if TYPE_CHECKING:
    from escultor.datasets.curation.rows import CurationRow
    from escultor.datasets.curation.rows_on_disk import RowsOnDisk
    from escultor.process_pool import ProcessPool

LEFT_OUT = "left out: prompt is held out"  # in a manifest
HELD_OUT = "held out"  # the column of rows whose prompt was held out before


@dataclass(frozen=True, slots=True)
class SplitSides:
    """(rows,) which of them are on either side; `left_out` are on neither. The manifest says how."""

    train: np.ndarray
    held_out: np.ndarray
    left_out: np.ndarray
    manifest: dict[str, Any]


def sides(spill: RowsOnDisk, mask: np.ndarray, wanted: Split, crew: ProcessPool) -> SplitSides:
    """Part the rows of a mask (rows,) into what is learnt and what is held out.

    Whatever the rule, near-duplicate prompts stay together: by `prompt` their clusters are drawn by the hash
    of their content; by `subject` all rows
    of a person go to one side; by `time` the latest rows are held
    out. Where a cluster of prompts would then have rows on both sides, those of the training side are left
    out, and counted; and so are those whose prompt was held out before. Raises DataError for a rule that the
    rows do not support.
    """
    nothing = np.zeros(len(mask), dtype=bool)
    if not wanted.held_out:
        return SplitSides(mask, nothing, nothing, {"by": wanted.by, "held_out": 0.0, LEFT_OUT: 0})
    cluster = clusters(spill, mask, wanted.threshold, crew)
    held = _drawn(spill, mask, wanted, cluster)
    tainted = _spread(held, mask, cluster)
    if spill.has(HELD_OUT):
        before = spill.column(HELD_OUT)
        for at in spans(len(mask)):
            tainted[at] |= before[at] & mask[at]
    tainted &= ~held
    manifest = {
        "by": wanted.by,
        "held_out": share(held, mask),
        "clusters": sum(int((cluster[at][mask[at]] == among(mask, at)).sum()) for at in spans(len(mask))),
        LEFT_OUT: int(np.count_nonzero(tainted)),
    }
    return SplitSides(mask & ~held & ~tainted, held, tainted, manifest)


def uneven(manifest: dict[str, Any], wanted: Split) -> list[str]:
    """What a person should know of a split that is far from the share that was asked for."""
    held = manifest["held_out"]
    if abs(held - wanted.held_out) <= wanted.held_out / 2:
        return []
    given = f"{held:.0%} of the rows are held out where {wanted.held_out:.0%} were asked for"
    return [f"{given}: alike prompts stay on one side, and there are {manifest['clusters']:,} kinds of them"]


def share(some: np.ndarray, mask: np.ndarray) -> float:
    """What share of the rows of a mask are some of them."""
    return int(np.count_nonzero(some)) / int(np.count_nonzero(mask))


def _spread(some: np.ndarray, mask: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """(rows,) the rows of a mask of whose cluster one is among some."""
    held, found = np.zeros(len(mask), dtype=bool), np.zeros(len(mask), dtype=bool)
    for at in spans(len(mask)):
        held[cluster[at][some[at]]] = True
    for at in spans(len(mask)):
        found[at] = held[cluster[at]] & mask[at]
    return found


def _drawn(spill: RowsOnDisk, mask: np.ndarray, wanted: Split, cluster: np.ndarray) -> np.ndarray:
    """(rows,) which rows of the mask are held out."""
    rows = int(np.count_nonzero(mask))
    if wanted.by == "time":
        time = spill.column("time")
        unknown = sum(int(np.isnan(time[at][mask[at]]).sum()) for at in spans(len(mask)))
        if unknown:
            got = f"{unknown:,} rows without `time`"
            raise DataError("rows cannot be parted by time", got, "`time` in every row", "split by prompt")
        rank = int((rows - 1) * (1 - wanted.held_out))  # the quantile, and no time between two rows
        return _above(lambda at: sortable(time[at][mask[at]]), mask, rank)
    if wanted.by == "subject":
        # Subjects in the order of their hash until the share is reached: they differ too much in size for a
        # draw of each.
        subject = spill.column("subject")
        held = mask & ~_above(lambda at: subject[at][mask[at]], mask, math.ceil(wanted.held_out * rows) - 1)
        if np.array_equal(held, mask):
            count = rows - sum(map(len, repeats([subject], mask, spill.folder)))
            got = f"{count:,} subjects, the last one too large to leave anything"
            raise DataError("rows cannot be parted by subject", got, "smaller subjects", "split by prompt")
        return held
    # A cluster's draw is by content, so that other rows do not change its side.
    tie, drawn = spill.column("tie"), np.zeros(len(mask), dtype=bool)
    for at in spans(len(mask)):
        drawn[at] = (tie[at] < np.uint64(wanted.held_out * 2**64)) & mask[at]
    return _spread(drawn, mask, cluster)


def _above(key: Callable[[slice], np.ndarray], mask: np.ndarray, rank: int) -> np.ndarray:
    """(rows,) the rows of a mask whose key is greater than that of the row of this rank, from 0."""

    def keyed(at: slice) -> tuple[np.ndarray, np.ndarray]:
        found = key(at)[None]
        return np.zeros(found.shape[1], dtype=np.int64), found

    bound = bounds(keyed, len(mask), 1, np.asarray([rank + 1]))[0][0, 0]
    above = np.zeros(len(mask), dtype=bool)
    for at in spans(len(mask)):
        above[at][mask[at]] = key(at) > bound
    return above


def clusters(spill: RowsOnDisk, mask: np.ndarray, threshold: float, crew: ProcessPool) -> np.ndarray:
    """(rows,) for each row of a mask the least number of those whose prompts are tied to its own by
    similarity."""
    root = np.arange(len(mask), dtype=np.uint32)
    # Equal prompts have equal bands: one of each is compared.
    for pairs in repeats([spill.column("prompt")], mask, spill.folder):
        root[pairs[:, 1]] = pairs[:, 0]
    alone = np.zeros(len(mask), dtype=bool)
    for at in spans(len(mask)):
        alone[among(mask, at)] = root[at][mask[at]] == among(mask, at)
    comparing = SimilarityChecker(spill.place(), crew, _prompt)
    for pairs in edges(spill.columns("prompt bands"), alone, threshold, comparing, collapse=False):
        join(root, pairs)
    follow(root)
    return root


def join(root: np.ndarray, pairs: np.ndarray) -> None:
    """Make the clusters of pairs (m, 2) of rows one each: the greater root gets the lesser one."""
    while len(pairs):
        ends = root[pairs]
        while ((further := root[ends]) != ends).any():
            ends = further
        pairs = np.sort(ends[ends[:, 0] != ends[:, 1]].astype(np.int64), axis=1)
        np.minimum.at(root, pairs[:, 1], pairs[:, 0].astype(np.uint32))
        tied = np.unique(pairs)
        while ((further := root[root[tied]]) != root[tied]).any():
            root[tied] = further


def _prompt(row: CurationRow) -> Any:
    from escultor.datasets.curation.passes import prompt_parts

    return prompt_parts(row)
