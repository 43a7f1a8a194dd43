"""What a split holds out, kept from its own training side as it will be kept from every other dataset."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from escultor.data.crew import Crew
from escultor.data.curate.rows import line_of, read
from escultor.data.curate.spill import Place
from escultor.data.held_out import Guard, prompt_of
from escultor.data.jsonl_rows import Kind
from escultor.data.splits import LEFT_OUT, Sides

AT_ONCE = 4096  # rows


def apart(place: Place, parted: Sides, crew: Crew, folder: Path) -> Sides:
    """The sides without training rows in which a prompt of the held-out side stands: clusters hold prompts
    that are alike as wholes alone. They are left out, and counted in the manifest."""
    if not len(parted.held_out):
        return parted
    path = folder / "held-out.part"
    with path.open("wb") as file:
        file.writelines(line_of(row) for row in place.read(parted.held_out))
    train = parted.train
    pieces = ((place, path, train[at : at + AT_ONCE]) for at in range(0, len(train), AT_ONCE))
    tainted = np.concatenate([np.empty(0, dtype=bool), *crew.over(_tainted, pieces)])
    path.unlink()
    return Sides(
        train[~tainted],
        parted.held_out,
        np.sort(np.concatenate([parted.left_out, train[tainted]])),
        parted.manifest | {LEFT_OUT: parted.manifest[LEFT_OUT] + int(tainted.sum())},
    )


def _tainted(shared: Any, piece: tuple[Place, Path, np.ndarray]) -> np.ndarray:
    place, path, numbers = piece
    reasons = _guard(path, place.kind).reasons([row.item for row in place.read(numbers)])
    return np.asarray([reason is not None for reason in reasons], dtype=bool)


@lru_cache(maxsize=1)
def _guard(path: Path, kind: Kind) -> Guard:
    """Made once in each process."""

    def prompts() -> Iterator[Any]:
        with path.open("rb") as file:
            yield from (prompt_of(read(kind, line).item) for line in file)

    return Guard(prompts())
