"""The balance step: which rows stay so that the values of labels have their target shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from escultor.config.curation import Balance
from escultor.datasets.balance import allocate, count_values, dominant_value, missing_values, watched_labels
from escultor.datasets.disk.columns import Numbers, count_codes, lowest, row_windows, sortable
from escultor.datasets.joint_balance import LabelCell, allocate_jointly

CodedLabel = tuple[Numbers, Sequence[str]]  # (rows,) codes of a label, and the value of each code


def choose_balanced(
    labels: Mapping[str, CodedLabel], score: Numbers, tie: Numbers, mask: np.ndarray, settings: Balance
) -> tuple[np.ndarray, list[str]]:
    """(rows,) the rows of a mask that stay, the best-scored of each combination of values; and warnings.

    Raises DataError if no target value has a row, or if the targets of several labels exclude each other.
    """
    kept = mask
    warnings: list[str] = []
    if settings.targets:
        targeted = [labels[label] for label in settings.targets]
        for (label, targets), (codes, names) in zip(settings.targets.items(), targeted, strict=True):
            counts = count_values(count_codes(codes, mask, len(names)), names)
            warnings += missing_values(label, counts, targets)
        cells, supply = _cells(targeted, mask)
        if cells:
            counts = _allocate(dict(zip(cells.values(), supply, strict=True)), settings)
            kept = _best(
                targeted,
                cells=cells,
                counts=[counts[cell] for cell in cells.values()],
                score=score,
                tie=tie,
                mask=mask,
            )
    for label in watched_labels(settings):
        codes, names = labels[label]
        counts = count_values(count_codes(codes, kept, len(names)), names)
        warnings += dominant_value(label, counts, settings.warn_above)
    return kept, warnings


def _allocate(supply: Mapping[LabelCell, int], settings: Balance) -> dict[LabelCell, int]:
    if len(settings.targets) > 1:
        labels, targets = tuple(settings.targets), tuple(settings.targets.values())
        return allocate_jointly(supply, labels, targets, settings.rows)
    (targets,) = settings.targets.values()
    counts = allocate({cell[0]: n for cell, n in supply.items()}, targets, settings.rows)
    return {(value,): n for value, n in counts.items()}


def _cell_numbers(labels: Sequence[CodedLabel], window: slice, mask: np.ndarray) -> np.ndarray:
    """(m,) the combination of values of each row of a window that is in the mask (rows,), as a number in
    mixed radix: one digit a label, in the base of its number of values."""
    number = np.zeros(int(np.count_nonzero(mask[window])), dtype=np.int64)
    for codes, names in labels:
        number = number * len(names) + codes[window][mask[window]]
    return number


def _cells(labels: Sequence[CodedLabel], mask: np.ndarray) -> tuple[dict[int, LabelCell], list[int]]:
    """The combinations of values that occur, by ascending number; and how many rows have each."""
    rows: Counter[int] = Counter()
    for window in row_windows(len(mask)):
        numbers, counts = np.unique(_cell_numbers(labels, window, mask), return_counts=True)
        rows.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
    cells: dict[int, LabelCell] = {}
    for number in sorted(rows):
        rest, values = number, []
        for _, names in reversed(labels):
            rest, code = divmod(rest, len(names))
            values.append(names[code])
        cells[number] = tuple(reversed(values))
    return cells, [rows[number] for number in cells]


def _best(
    labels: Sequence[CodedLabel],
    cells: Mapping[int, LabelCell],
    counts: Sequence[int],
    score: Numbers,
    tie: Numbers,
    mask: np.ndarray,
) -> np.ndarray:
    """(rows,) the best-scored rows of each cell, as many as `counts` says."""
    known = np.asarray(list(cells))

    def keyed(window: slice) -> tuple[np.ndarray, np.ndarray]:
        in_mask = mask[window]
        key = np.stack([sortable(-score[window][in_mask]), tie[window][in_mask]])  # (2, m)
        return np.searchsorted(known, _cell_numbers(labels, window, mask)), key

    return lowest(keyed, mask, 2, np.asarray(counts))
