"""The balance step: which rows stay so that the values of labels have their target shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from escultor.config.curation import Balance
from escultor.datasets.balance import REST, LabelCell, allocate, allocate_jointly
from escultor.datasets.curation.labels import UNLABELLED
from escultor.datasets.disk.columns import Numbers, count_codes, lowest, row_windows, sortable
from escultor.errors import DataError

CodedLabel = tuple[Numbers, Sequence[str]]  # (rows,) codes of a label, and the value of each code
WATCHED = ("domain", "purpose")


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
        for (label, targets), coded in zip(settings.targets.items(), targeted, strict=True):
            warnings += missing_values(label, count_values(coded, mask), targets)
        cells, supply = _cells(targeted, mask)
        if cells:
            counts = _allocate(dict(zip(cells.values(), supply, strict=True)), settings)
            known, wanted = np.asarray(list(cells)), np.asarray([counts[cell] for cell in cells.values()])

            def keyed(window: slice) -> tuple[np.ndarray, np.ndarray]:
                in_mask = mask[window]
                key = np.stack([sortable(-score[window][in_mask]), tie[window][in_mask]])  # (2, m)
                return np.searchsorted(known, _cell_numbers(targeted, window, mask)), key

            kept = lowest(keyed, mask, 2, wanted)
    for label in watched_labels(settings):
        warnings += dominant_value(label, count_values(labels[label], kept), settings.warn_above)
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


# --- warnings -----------------------------------------------------------------------------------


def count_values(label: CodedLabel, mask: np.ndarray) -> dict[str, int]:
    """Rows of a mask (rows,) by value of a label, sorted by value."""
    codes, names = label
    counts = count_codes(codes, mask, len(names)).tolist()
    return {name: n for name, n in sorted(zip(names, counts, strict=True)) if n}


def watched_labels(settings: Balance) -> tuple[str, ...]:
    """The labels whose balance is checked: those with targets, domain and purpose."""
    return tuple(dict.fromkeys((*settings.targets, *WATCHED)))


def missing_values(label: str, counts: Mapping[str, int], targets: Mapping[str, float]) -> list[str]:
    """A warning for each target value without a row. Raises DataError if no target value has one."""
    if not set(counts) & set(targets) and REST not in targets:
        raise DataError(
            f"no row has a {label} that is wanted",
            ", ".join(sorted(counts)) or "no rows",
            ", ".join(targets),
            "correct balance.targets, or give the rows labels",
        )
    return [
        f"no row of {label} {name}, of which {share:.0%} were wanted"
        for name, share in targets.items()
        if name != REST and name not in counts
    ]


def dominant_value(label: str, counts: Mapping[str, int], limit: float) -> list[str]:
    """A warning if one value has a larger share of the rows than the limit."""
    total = sum(counts.values())
    name, most = max(Counter(counts).items(), key=lambda pair: (pair[1], pair[0]), default=("", 0))
    if not total or round(most / total, 2) <= limit or (len(counts) == 1 and name == UNLABELLED):
        return []
    if name == UNLABELLED:
        return [f"{most / total:.0%} of the rows have no {label}: their balance is unknown"]
    kind = f"{label} " if label != "domain" else ""
    return [f"{most / total:.0%} {kind}{name}: the model will be good at {kind}{name} and worse elsewhere"]
