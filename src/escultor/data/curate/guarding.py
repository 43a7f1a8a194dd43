"""What a split holds out, kept from its own training side as it will be kept from every other dataset."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from escultor.data.crew import Crew
from escultor.data.curate.columns import among, spans
from escultor.data.curate.rows import line_of, read
from escultor.data.curate.spill import Place
from escultor.data.held_out import Guard, prompt_of
from escultor.data.jsonl_rows import Kind
from escultor.data.splits import LEFT_OUT, Sides

AT_ONCE = 4096  # rows


def apart(place: Place, parted: Sides, crew: Crew, folder: Path) -> Sides:
    """The sides without training rows in which a prompt of the held-out side stands: clusters hold prompts
    that are alike as wholes alone. They are left out, and counted in the manifest."""
    if not parted.held_out.any():
        return parted
    path = folder / "held-out.part"
    with path.open("wb") as file:
        for at in spans(place.rows):
            file.writelines(line_of(row) for row in place.read(among(parted.held_out, at)))
    tainted = np.zeros(place.rows, dtype=bool)
    for numbers in crew.over(_tainted, _pieces(place, path, parted.train)):
        tainted[numbers] = True
    path.unlink()
    return Sides(
        parted.train & ~tainted,
        parted.held_out,
        parted.left_out | tainted,
        parted.manifest | {LEFT_OUT: parted.manifest[LEFT_OUT] + int(np.count_nonzero(tainted))},
    )


def _pieces(place: Place, path: Path, train: np.ndarray) -> Iterator[tuple[Place, Path, np.ndarray]]:
    for window in spans(len(train)):
        numbers = among(train, window)
        for at in range(0, len(numbers), AT_ONCE):
            yield place, path, numbers[at : at + AT_ONCE]


def _tainted(shared: Any, piece: tuple[Place, Path, np.ndarray]) -> np.ndarray:
    place, path, numbers = piece
    """Which of these rows have a prompt that is held out."""
    reasons = _guard(path, place.kind).reasons([row.item for row in place.read(numbers)])
    return numbers[[reason is not None for reason in reasons]]


@lru_cache(maxsize=1)
def _guard(path: Path, kind: Kind) -> Guard:
    """Made once in each process."""

    def prompts() -> Iterator[Any]:
        with path.open("rb") as file:
            yield from (prompt_of(read(kind, line).item) for line in file)

    return Guard(prompts())
