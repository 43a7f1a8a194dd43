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
from escultor.datasets.similarity.exact_duplicates import drop_exact_duplicates, exact_columns
from escultor.datasets.similarity.near_duplicates import SimilarityChecker, drop_near_duplicates, near_columns
from escultor.process_pool import ProcessPool

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
    """A step that reads one row at a time. `prepare` loads what it needs before the first pass, while little
    memory is in use."""

    function: Callable[[CurationRow, Curation, Any], CurationRow | Dropped]
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class BatchStep:
    """A step that is faster with many rows at a time; a row's result depends on that row alone."""

    function: Callable[[list[CurationRow], Curation], list[CurationRow | Dropped]]


@dataclass(frozen=True, slots=True)
class DatasetStep:
    """A step that needs all rows: columns of numbers for each row, then the choice of rows to drop."""

    choose: Callable[[DatasetView], DroppedRows]
    columns: Callable[[Sequence[CurationRow], Curation], dict[str, np.ndarray]] | None = None


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


STEPS: dict[str, RowStep | BatchStep | DatasetStep] = {
    "exact": DatasetStep(_exact, exact_columns),
    "near": DatasetStep(_near, near_columns),
    "language": RowStep(filters.language, filters.language_identifier),
    "length": RowStep(filters.length),
    "repetition": RowStep(filters.repetition),
    "damage": RowStep(filters.damage),
    "private": RowStep(private),
    "perplexity": BatchStep(perplexity),
    "quality": RowStep(quality.quality),
    "decontaminate": RowStep(contamination.decontaminate),
    "balance": DatasetStep(_balance),
}
assert set(ORDER) <= set(STEPS)
