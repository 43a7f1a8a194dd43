"""Clusters of rows tied by pairs: a disjoint-set forest in which a root is the lowest row number."""

from __future__ import annotations

import numpy as np

from escultor.datasets.disk.columns import row_windows


def resolve_roots(root: np.ndarray) -> None:
    """Replace each row's link (rows,) to an earlier row, or to itself, by the end of its chain of links."""
    for window in row_windows(len(root)):
        # Pointer doubling: each round follows twice as many links.
        while ((further := root[root[window]]) != root[window]).any():
            root[window] = further


def merge_clusters(root: np.ndarray, pairs: np.ndarray) -> None:
    """Merge the clusters of the two rows of each pair (m, 2): the greater root is linked to the lesser."""
    while len(pairs):
        ends = root[pairs]
        while ((further := root[ends]) != ends).any():
            ends = further
        pairs = np.sort(ends[ends[:, 0] != ends[:, 1]].astype(np.int64), axis=1)
        np.minimum.at(root, pairs[:, 1], pairs[:, 0].astype(np.uint32))
        linked = np.unique(pairs)
        while ((further := root[root[linked]]) != root[linked]).any():
            root[linked] = further
