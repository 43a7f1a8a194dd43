"""What a training method consists of. No method has a loop of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from escultor.text.chat import ChatTemplate
from escultor.train.distributed import ALONE, World
from escultor.train.loop import Objective, Stream
from escultor.types import RowKind

# (items, chat template, max_length, counts, settings) -> rows
RowBuilder = Callable[[Sequence[Any], ChatTemplate, int, Counter[str], Any], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Frozen:
    """The model that a method uses but does not train: a reference or a teacher. `cache` is the folder that
    keeps a reference's log-probs (None: memory); `counts` receives how many rows were computed and how many
    were reused. Each process of `world` computes its share of the rows."""

    model: nn.Module
    cache: Path | None
    counts: Counter[str]
    world: World = ALONE


@dataclass(frozen=True, slots=True)
class Method:
    """A row of the table `METHODS`. `rows` tokenises items of `kind`. `stream(rows, frozen, settings)` makes
    micro-batches and adds what the frozen model computes: a reference's log-probs once per row, a teacher's
    states in every step. `objective(settings)` is what the loop minimises."""

    kind: RowKind
    rows: RowBuilder
    stream: Callable[[Sequence[Any], Frozen, Any], Stream]
    objective: Callable[[Any], Objective]
    frozen: Literal["reference", "teacher"] | None = None

    def functions(self) -> list[Callable[..., Any]]:
        """The functions that this row is made of, with those that they close over: their files decide what
        the method computes."""
        return [f for column in (self.rows, self.stream, self.objective) for f in _functions(column)]


def _functions(value: Any) -> Iterator[Callable[..., Any]]:
    if isinstance(value, partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from _functions(part)
    elif hasattr(value, "__code__"):
        yield value
        for cell in value.__closure__ or ():
            yield from _functions(cell.cell_contents)


def without_settings(build: Callable[..., Sequence[Any]]) -> RowBuilder:
    """A row builder of one that needs no settings."""
    return lambda items, chat, max_length, counts, settings: build(items, chat, max_length, counts)
