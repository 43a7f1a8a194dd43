"""The table of steps. A new step is one pure function and one row here; settings: `config/curation.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from escultor.config.curation import ORDER, Curation
from escultor.datasets.curation import contamination, filters, quality
from escultor.datasets.curation.balancing import choose_balanced, watched_labels
from escultor.datasets.curation.features import perplexity
from escultor.datasets.disk.rows_on_disk import RowsOnDisk
from escultor.datasets.personal_data import private
from escultor.datasets.rows import CurationRow, Dropped, text_parts
from escultor.datasets.similarity.duplicates import (
    SimilarityChecker,
    drop_exact_duplicates,
    drop_near_duplicates,
    exact_columns,
    near_columns,
)
from escultor.process_pool import ProcessPool
from escultor.text.languages import language_identifier

DroppedRows = dict[str, np.ndarray]  # masks (rows,) by reason


@dataclass(frozen=True, slots=True)
class DatasetView:
    """What a step that needs all rows sees: their columns, which of them are still there, and the pool."""

    rows: RowsOnDisk
    kept: np.ndarray  # (rows,) bool
    settings: Curation
    pool: ProcessPool
    labels: dict[str, list[str]]  # value by code, by label
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RowStep:
    """A step on a chunk of rows, in which the result of a row depends on that row alone. `prepare` loads what
    it needs before the first pass, while little memory is in use."""

    apply: Callable[[list[CurationRow], Curation, Any], list[CurationRow | Dropped]]
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class DatasetStep:
    """A step that needs all rows: columns of numbers for each row, then the choice of rows to drop."""

    choose: Callable[[DatasetView], DroppedRows]
    columns: Callable[[Sequence[CurationRow], Curation], dict[str, np.ndarray]] | None = None


def _each(function: Callable[[CurationRow, Curation, Any], CurationRow | Dropped]) -> Any:
    return lambda rows, settings, context: [function(row, settings, context) for row in rows]


def _exact(view: DatasetView) -> DroppedRows:
    content, name = view.rows.columns("content"), view.rows.column("name")
    return drop_exact_duplicates(content, name, view.kept, view.rows.folder)


def _near(view: DatasetView) -> DroppedRows:
    checker = SimilarityChecker(view.rows.handle(), view.pool, text_parts)
    threshold = view.settings.near.threshold
    return drop_near_duplicates(view.rows.columns("bands"), view.kept, threshold, checker)


def _balance(view: DatasetView) -> DroppedRows:
    settings, rows = view.settings.balance, view.rows
    labels = {name: (rows.column("label." + name), view.labels[name]) for name in watched_labels(settings)}
    kept, warnings = choose_balanced(labels, rows.column("score"), rows.column("tie"), view.kept, settings)
    view.warnings.extend(warnings)
    return {f"more of its {' and '.join(settings.targets)} than wanted": view.kept & ~kept}


STEPS: dict[str, RowStep | DatasetStep] = {
    "exact": DatasetStep(_exact, exact_columns),
    "near": DatasetStep(_near, near_columns),
    "language": RowStep(_each(filters.language), language_identifier),
    "length": RowStep(_each(filters.length)),
    "repetition": RowStep(_each(filters.repetition)),
    "damage": RowStep(_each(filters.damage)),
    "private": RowStep(_each(private)),
    "perplexity": RowStep(perplexity),
    "quality": RowStep(_each(quality.quality)),
    "decontaminate": RowStep(_each(contamination.decontaminate)),
    "balance": DatasetStep(_balance),
}
assert set(ORDER) <= set(STEPS)
