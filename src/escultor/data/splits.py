"""Two sides that share nothing: by near-duplicate prompts, by subject, by time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from escultor.config.curation import Split
from escultor.errors import DataError

if TYPE_CHECKING:
    from escultor.data.crew import Crew
    from escultor.data.curate.rows import Row
    from escultor.data.curate.spill import Spill

LEFT_OUT = "left out: prompt is held out"  # in a manifest
HELD_OUT = "held out"  # the column of rows whose prompt was held out before


@dataclass(frozen=True, slots=True)
class Sides:
    """Numbers of the rows on either side; `left_out` are on neither. The manifest says how."""

    train: np.ndarray
    held_out: np.ndarray
    left_out: np.ndarray
    manifest: dict[str, Any]


def sides(spill: Spill, alive: np.ndarray, wanted: Split, crew: Crew) -> Sides:
    """Part rows into what is learnt and what is held out.

    Whatever the rule, near-duplicate prompts stay together: by `prompt` their clusters are drawn by the hash
    of their content; by `subject` all rows
    of a person go to one side; by `time` the latest rows are held
    out. Where a cluster of prompts would then have rows on both sides, those of the training side are left
    out, and counted; and so are those whose prompt was held out before. Raises DataError for a rule that the
    rows do not support.
    """
    nothing = np.empty(0, dtype=np.int64)
    if not wanted.held_out:
        return Sides(alive, nothing, nothing, {"by": wanted.by, "held_out": 0.0, LEFT_OUT: 0})
    before = np.asarray(spill.column(HELD_OUT)[alive]) if spill.has(HELD_OUT) else np.zeros(len(alive), bool)
    cluster = clusters(spill, alive, wanted.threshold, crew)  # (n,) the smallest number of each
    held = _drawn(spill, alive, wanted, cluster)
    tainted = (np.isin(cluster, cluster[held]) | before) & ~held
    manifest = {
        "by": wanted.by,
        "held_out": float(held.mean()),
        "clusters": len(np.unique(cluster)),
        LEFT_OUT: int(tainted.sum()),
    }
    return Sides(alive[~held & ~tainted], alive[held], alive[tainted], manifest)


def _drawn(spill: Spill, alive: np.ndarray, wanted: Split, cluster: np.ndarray) -> np.ndarray:
    """(n,) which rows are held out."""
    if wanted.by == "time":
        time = np.asarray(spill.column("time")[alive])
        if np.isnan(time).any():
            got = f"{int(np.isnan(time).sum()):,} rows without `time`"
            raise DataError("rows cannot be parted by time", got, "`time` in every row", "split by prompt")
        return time > np.quantile(time, 1 - wanted.held_out, method="lower")
    if wanted.by == "subject":
        return _fewest(np.asarray(spill.column("subject")[alive]), wanted.held_out)
    # A cluster's draw is by content, so that other rows do not change its side.
    group = np.unique(cluster, return_inverse=True)[1]
    key = np.full(group.max() + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(key, group, np.asarray(spill.column("tie")[alive]))
    return (key < np.uint64(wanted.held_out * 2**64))[group]


def _fewest(subject: np.ndarray, share: float) -> np.ndarray:
    """Subjects (n,) in the order of their hash until the share is reached: they differ too much in size for
    a draw of each."""
    keys, group, sizes = np.unique(subject, return_inverse=True, return_counts=True)
    taken = np.cumsum(sizes) - sizes < share * len(subject)
    if taken.all():
        got = f"{len(keys):,} subjects, the last one too large to leave anything"
        raise DataError("rows cannot be parted by subject", got, "smaller subjects", "split by prompt")
    return taken[group]


def clusters(spill: Spill, alive: np.ndarray, threshold: float, crew: Crew) -> np.ndarray:
    """(n,) for each row the least number of those whose prompts are tied to its own by similarity."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from escultor.data.curate.near import Comparing, edges

    bands = spill.columns("prompt bands")
    # Equal prompts have equal bands: one of each is compared.
    _, first, group = np.unique(spill.column("prompt")[alive], return_index=True, return_inverse=True)
    comparing = Comparing(spill.place(), crew, _prompt)
    alone = alive[np.sort(first)]
    found = list(edges(bands, alone, threshold, comparing, collapse=False))
    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *found])
    size = len(spill)
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    component = connected_components(graph, directed=False)[1]
    own = component[alive[first]][group]
    least = np.full(component.max() + 1, size, dtype=np.int64)
    np.minimum.at(least, own, alive)
    return least[own]


def _prompt(row: Row) -> Any:
    from escultor.data.curate.passes import prompt_parts

    return prompt_parts(row)
