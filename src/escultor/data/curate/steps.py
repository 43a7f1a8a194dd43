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

Left = dict[str, np.ndarray]  # numbers of rows to leave out, by reason


@dataclass(frozen=True, slots=True)
class View:
    """What a step that looks at all rows sees: their columns, which are still there, who can read them."""

    spill: Spill
    alive: np.ndarray  # numbers of rows, ascending
    settings: Curation
    crew: Crew
    labels: dict[str, list[str]]  # value by code, by label
    found: list[str] = field(default_factory=list)  # warnings

    def comparing(self, texts: Callable[[Row], Sequence[Any]]) -> near.Comparing:
        """How rows are compared by some of their texts."""
        return near.Comparing(self.spill.place(), self.crew, texts)


@dataclass(frozen=True, slots=True)
class Each:
    """A step that looks at one row at a time."""

    function: Callable[[Row, Curation, Any], Row | Drop]


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
    return near.exact_choice(view.spill.columns("content"), view.spill.column("name"), view.alive)


def _near(view: View) -> Left:
    threshold = view.settings.near.threshold
    return near.near_choice(view.spill.columns("bands"), view.alive, threshold, view.comparing(_texts))


def _balance(view: View) -> Left:
    wanted = view.settings.balance
    labels = {
        name: (np.asarray(view.spill.column("label." + name)[view.alive]), view.labels[name])
        for name in watched(wanted)
    }
    score, tie = view.spill.column("score")[view.alive], view.spill.column("tie")[view.alive]
    kept, warnings = balance_choice(labels, np.asarray(score), np.asarray(tie), wanted)
    view.found.extend(warnings)
    return {f"more of its {' and '.join(wanted.targets)} than wanted": view.alive[~kept]}


STEPS: dict[str, Each | Batch | All] = {
    "exact": All(_exact, near.exact_columns),
    "near": All(_near, near.near_columns),
    "language": Each(filters.language),
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
