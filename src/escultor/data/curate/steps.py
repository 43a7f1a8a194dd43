"""The table of steps. A new step is one pure function and one row here (its keys: `config/curation.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from escultor.config.curation import ORDER, Curation
from escultor.data.balance import watched
from escultor.data.crew import Crew
from escultor.data.curate import contamination, damage, filters, near, private, quality
from escultor.data.curate.balancing import balance_choice
from escultor.data.curate.perplexity import perplexity
from escultor.data.curate.rows import Drop, Row, parts_of
from escultor.data.curate.spill import Spill

Left = dict[str, np.ndarray]  # (rows,) which of them to leave out, by reason


@dataclass(frozen=True, slots=True)
class View:
    """What a step that looks at all rows sees: their columns, which are still there, who can read them."""

    spill: Spill
    kept: np.ndarray  # (rows,) bool
    settings: Curation
    crew: Crew
    labels: dict[str, list[str]]  # value by code, by label
    found: list[str] = field(default_factory=list)  # warnings

    def comparing(self, texts: Callable[[Row], Sequence[Any]]) -> near.Comparing:
        """How rows are compared by some of their texts."""
        return near.Comparing(self.spill.place(), self.crew, texts)


@dataclass(frozen=True, slots=True)
class Each:
    """A step that looks at one row at a time. What it needs is made `ready` before the first pass: memory
    that this takes for a moment is not taken again on top of what the passes leave behind."""

    function: Callable[[Row, Curation, Any], Row | Drop]
    ready: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class Batch:
    """A step that is faster with many rows at a time; a row's result depends on that row alone."""

    function: Callable[[list[Row], Curation], list[Row | Drop]]


@dataclass(frozen=True, slots=True)
class All:
    """A step that looks at all rows: first columns of numbers for each, then the choice."""

    choose: Callable[[View], Left]
    columns: Callable[[Sequence[Row], Curation], dict[str, np.ndarray]] | None = None


def _texts(row: Row) -> Sequence[Any]:
    return parts_of(row.item)


def _exact(view: View) -> Left:
    content, name = view.spill.columns("content"), view.spill.column("name")
    return near.exact_choice(content, name, view.kept, view.spill.folder)


def _near(view: View) -> Left:
    threshold = view.settings.near.threshold
    return near.near_choice(view.spill.columns("bands"), view.kept, threshold, view.comparing(_texts))


def _balance(view: View) -> Left:
    wanted, spill = view.settings.balance, view.spill
    labels = {name: (spill.column("label." + name), view.labels[name]) for name in watched(wanted)}
    kept, warnings = balance_choice(labels, spill.column("score"), spill.column("tie"), view.kept, wanted)
    view.found.extend(warnings)
    return {f"more of its {' and '.join(wanted.targets)} than wanted": view.kept & ~kept}


STEPS: dict[str, Each | Batch | All] = {
    "exact": All(_exact, near.exact_columns),
    "near": All(_near, near.near_columns),
    "language": Each(filters.language, filters.identifier),
    "length": Each(filters.length),
    "repetition": Each(filters.repetition),
    "damage": Each(damage.damage),
    "private": Each(private.private),
    "perplexity": Batch(perplexity),
    "quality": Each(quality.quality),
    "decontaminate": Each(contamination.decontaminate),
    "balance": All(_balance),
}
assert set(ORDER) <= set(STEPS)
