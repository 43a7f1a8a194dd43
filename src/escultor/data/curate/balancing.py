"""The step that balances: which rows stay so that the shares of labels are those that are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from escultor.config.curation import Balance
from escultor.data.balance import allocate, counted, lacking, lopsided, watched
from escultor.data.joint_balance import Cell, allocate_jointly

Coded = tuple[np.ndarray, Sequence[str]]  # (n,) codes of a label, and the values they stand for


def balance_choice(
    labels: Mapping[str, Coded], score: np.ndarray, tie: np.ndarray, wanted: Balance
) -> tuple[np.ndarray, list[str]]:
    """(n,) which rows stay, the best-scored of each combination of values, and what a person should know.

    Raises DataError where nothing that is wanted is there, and where targets of several labels exclude each
    other.
    """
    keep = np.ones(len(score), dtype=bool)
    said: list[str] = []
    if wanted.targets:
        for label, targets in wanted.targets.items():
            said += lacking(label, counted(*labels[label]), targets)
        cell, cells = _cells([labels[label] for label in wanted.targets])
        supply = dict(zip(cells, np.bincount(cell, minlength=len(cells)).tolist(), strict=True))
        dealt = _dealt(supply, wanted)
        keep = _best(cell, np.asarray([dealt[each] for each in cells]), score, tie)
    for label in watched(wanted):
        codes, names = labels[label]
        said += lopsided(label, counted(codes[keep], names), wanted.warn_above)
    return keep, said


def _dealt(supply: Mapping[Cell, int], wanted: Balance) -> dict[Cell, int]:
    if len(wanted.targets) > 1:
        return allocate_jointly(supply, tuple(wanted.targets), tuple(wanted.targets.values()), wanted.rows)
    (targets,) = wanted.targets.values()
    return {(v,): n for v, n in allocate({c[0]: n for c, n in supply.items()}, targets, wanted.rows).items()}


def _cells(labels: Sequence[Coded]) -> tuple[np.ndarray, list[Cell]]:
    """(n,) the number of each row's combination of values, and the combinations that there are."""
    cell = labels[0][0].astype(np.int64)
    cells: list[Cell] = [(name,) for name in labels[0][1]]
    for codes, names in labels[1:]:
        there, cell = np.unique(cell * len(names) + codes, return_inverse=True)
        size = len(names)
        cells = [cells[each // size] + (names[each % size],) for each in there.tolist()]
    return cell, cells


def _best(cell: np.ndarray, dealt: np.ndarray, score: np.ndarray, tie: np.ndarray) -> np.ndarray:
    """(n,) the best-scored `dealt` (c,) rows of each cell (n,)."""
    order = np.lexsort((tie, -score, cell))
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=len(dealt)))])
    own = cell[order]
    keep = np.zeros(len(cell), dtype=bool)
    keep[order[np.arange(len(cell)) - starts[own] < dealt[own]]] = True
    return keep
