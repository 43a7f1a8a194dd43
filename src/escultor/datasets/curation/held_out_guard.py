"""What a split holds out, kept from its own training side as it will be kept from every other dataset."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from escultor.data.jsonl_rows import RowKind
from escultor.datasets.curation.columns import among, spans
from escultor.datasets.curation.rows import line_of, read
from escultor.datasets.curation.rows_on_disk import RowsHandle
from escultor.datasets.held_out import HeldOutGuard, prompt_of
from escultor.datasets.splits import LEFT_OUT, SplitSides
from escultor.process_pool import ProcessPool

AT_ONCE = 4096  # rows


def apart(place: RowsHandle, parted: SplitSides, crew: ProcessPool, folder: Path) -> SplitSides:
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
    return SplitSides(
        parted.train & ~tainted,
        parted.held_out,
        parted.left_out | tainted,
        parted.manifest | {LEFT_OUT: parted.manifest[LEFT_OUT] + int(np.count_nonzero(tainted))},
    )


def _pieces(
    place: RowsHandle, path: Path, train: np.ndarray
) -> Iterator[tuple[RowsHandle, Path, np.ndarray]]:
    for window in spans(len(train)):
        numbers = among(train, window)
        for at in range(0, len(numbers), AT_ONCE):
            yield place, path, numbers[at : at + AT_ONCE]


def _tainted(shared: Any, piece: tuple[RowsHandle, Path, np.ndarray]) -> np.ndarray:
    place, path, numbers = piece
    """Which of these rows have a prompt that is held out."""
    reasons = _guard(path, place.kind).reasons([row.item for row in place.read(numbers)])
    return numbers[[reason is not None for reason in reasons]]


@lru_cache(maxsize=1)
def _guard(path: Path, kind: RowKind) -> HeldOutGuard:
    """Made once in each process."""

    def prompts() -> Iterator[Any]:
        with path.open("rb") as file:
            yield from (prompt_of(read(kind, line).item) for line in file)

    return HeldOutGuard(prompts())
