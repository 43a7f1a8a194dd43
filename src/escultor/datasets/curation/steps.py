"""The table of steps. A new step is one pure function and one row here (its keys: `config/curation.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from escultor.config.curation import ORDER, Curation
from escultor.datasets.balance import watched
from escultor.datasets.curation import (
    contamination,
    filters,
    near_duplicates,
    personal_data,
    quality,
    text_repair,
)
from escultor.datasets.curation.balancing import balance_choice
from escultor.datasets.curation.perplexity import perplexity
from escultor.datasets.curation.rows import CurationRow, Dropped, parts_of
from escultor.datasets.curation.rows_on_disk import RowsOnDisk
from escultor.process_pool import ProcessPool

Left = dict[str, np.ndarray]  # (rows,) which of them to leave out, by reason


@dataclass(frozen=True, slots=True)
class View:
    """What a step that looks at all rows sees: their columns, which are still there, who can read them."""

    spill: RowsOnDisk
    kept: np.ndarray  # (rows,) bool
    settings: Curation
    crew: ProcessPool
    labels: dict[str, list[str]]  # value by code, by label
    found: list[str] = field(default_factory=list)  # warnings

    def comparing(self, texts: Callable[[CurationRow], Sequence[Any]]) -> near_duplicates.SimilarityChecker:
        """How rows are compared by some of their texts."""
        return near_duplicates.SimilarityChecker(self.spill.place(), self.crew, texts)


@dataclass(frozen=True, slots=True)
class RowStep:
    """A step that looks at one row at a time. What it needs is made `ready` before the first pass: memory
    that this takes for a moment is not taken again on top of what the passes leave behind."""

    function: Callable[[CurationRow, Curation, Any], CurationRow | Dropped]
    ready: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class BatchStep:
    """A step that is faster with many rows at a time; a row's result depends on that row alone."""

    function: Callable[[list[CurationRow], Curation], list[CurationRow | Dropped]]


@dataclass(frozen=True, slots=True)
class DatasetStep:
    """A step that looks at all rows: first columns of numbers for each, then the choice."""

    choose: Callable[[View], Left]
    columns: Callable[[Sequence[CurationRow], Curation], dict[str, np.ndarray]] | None = None


def _texts(row: CurationRow) -> Sequence[Any]:
    return parts_of(row.item)


def _exact(view: View) -> Left:
    content, name = view.spill.columns("content"), view.spill.column("name")
    return near_duplicates.exact_choice(content, name, view.kept, view.spill.folder)


def _near(view: View) -> Left:
    threshold = view.settings.near.threshold
    return near_duplicates.near_choice(
        view.spill.columns("bands"), view.kept, threshold, view.comparing(_texts)
    )


def _balance(view: View) -> Left:
    wanted, spill = view.settings.balance, view.spill
    labels = {name: (spill.column("label." + name), view.labels[name]) for name in watched(wanted)}
    kept, warnings = balance_choice(labels, spill.column("score"), spill.column("tie"), view.kept, wanted)
    view.found.extend(warnings)
    return {f"more of its {' and '.join(wanted.targets)} than wanted": view.kept & ~kept}


STEPS: dict[str, RowStep | BatchStep | DatasetStep] = {
    "exact": DatasetStep(_exact, near_duplicates.exact_columns),
    "near": DatasetStep(_near, near_duplicates.near_columns),
    "language": RowStep(filters.language, filters.identifier),
    "length": RowStep(filters.length),
    "repetition": RowStep(filters.repetition),
    "damage": RowStep(text_repair.damage),
    "private": RowStep(personal_data.private),
    "perplexity": BatchStep(perplexity),
    "quality": RowStep(quality.quality),
    "decontaminate": RowStep(contamination.decontaminate),
    "balance": DatasetStep(_balance),
}
assert set(ORDER) <= set(STEPS)
