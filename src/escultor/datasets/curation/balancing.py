"""The step that balances: which rows stay so that the shares of labels are those that are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from escultor.config.curation import Balance
from escultor.datasets.balance import allocate, counted, lacking, lopsided, watched
from escultor.datasets.curation.columns import Numbers, frequencies, spans
from escultor.datasets.curation.lowest_keys import least, sortable
from escultor.datasets.joint_balance import LabelCell, allocate_jointly

Coded = tuple[Numbers, Sequence[str]]  # (rows,) codes of a label, and the values they stand for


def balance_choice(
    labels: Mapping[str, Coded], score: Numbers, tie: Numbers, mask: np.ndarray, wanted: Balance
) -> tuple[np.ndarray, list[str]]:
    """(rows,) which rows of a mask stay, the best-scored of each combination of values, and what a person
    should know.

    Raises DataError where nothing that is wanted is there, and where targets of several labels exclude each
    other.
    """
    keep = mask
    said: list[str] = []
    if wanted.targets:
        coded = [labels[label] for label in wanted.targets]
        for (label, targets), (codes, names) in zip(wanted.targets.items(), coded, strict=True):
            said += lacking(label, counted(frequencies(codes, mask, len(names)), names), targets)
        cells, supply = _cells(coded, mask)
        if cells:
            dealt = _dealt(dict(zip(cells.values(), supply, strict=True)), wanted)
            keep = _best(coded, cells, [dealt[each] for each in cells.values()], score, tie, mask)
    for label in watched(wanted):
        codes, names = labels[label]
        said += lopsided(label, counted(frequencies(codes, keep, len(names)), names), wanted.warn_above)
    return keep, said


def _dealt(supply: Mapping[LabelCell, int], wanted: Balance) -> dict[LabelCell, int]:
    if len(wanted.targets) > 1:
        return allocate_jointly(supply, tuple(wanted.targets), tuple(wanted.targets.values()), wanted.rows)
    (targets,) = wanted.targets.values()
    return {(v,): n for v, n in allocate({c[0]: n for c, n in supply.items()}, targets, wanted.rows).items()}


def _numbered(labels: Sequence[Coded], at: slice, mask: np.ndarray) -> np.ndarray:
    """(m,) the number of the combination of values of each row of a window that is in the mask (rows,)."""
    cell = np.zeros(int(np.count_nonzero(mask[at])), dtype=np.int64)
    for codes, names in labels:
        cell = cell * len(names) + codes[at][mask[at]]
    return cell


def _cells(labels: Sequence[Coded], mask: np.ndarray) -> tuple[dict[int, LabelCell], list[int]]:
    """The combinations of values that there are, by their number, ascending; and how many rows have each."""
    found: Counter[int] = Counter()
    for at in spans(len(mask)):
        cells, counts = np.unique(_numbered(labels, at, mask), return_counts=True)
        found.update(dict(zip(cells.tolist(), counts.tolist(), strict=True)))
    named: dict[int, LabelCell] = {}
    for number in sorted(found):
        rest, values = number, []
        for _, names in reversed(labels):
            rest, code = divmod(rest, len(names))
            values.append(names[code])
        named[number] = tuple(reversed(values))
    return named, [found[number] for number in named]


def _best(
    labels: Sequence[Coded],
    cells: Mapping[int, LabelCell],
    dealt: Sequence[int],
    score: Numbers,
    tie: Numbers,
    mask: np.ndarray,
) -> np.ndarray:
    """(rows,) the best-scored rows of each cell, as many as are dealt to it."""
    known = np.asarray(list(cells))

    def keyed(at: slice) -> tuple[np.ndarray, np.ndarray]:
        own = mask[at]
        key = np.stack([sortable(-score[at][own]), tie[at][own]])  # (2, m)
        return np.searchsorted(known, _numbered(labels, at, mask)), key

    return least(keyed, mask, 2, np.asarray(dealt))
