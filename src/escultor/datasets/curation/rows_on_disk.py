"""Rows on disk between two passes: files of lines, and columns of numbers beside them, one entry a row.

Memory holds neither: lines are read a chunk at a time, columns a window at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from escultor.data.jsonl_rows import RowKind
from escultor.datasets.curation.columns import Column
from escultor.datasets.curation.rows import CurationRow, read

CHUNK_BYTES = 1 << 21  # of a source that are one piece of work
MAX_LINE = 1 << 23  # bytes; a longer line is no row


@dataclass(frozen=True, slots=True)
class LineRange:
    """Whole lines of a file; `too_long` is one line over the limit, which is not read."""

    path: Path
    start: int
    end: int
    first_line: int
    too_long: bool = False


def ranges(path: Path, size: int = CHUNK_BYTES) -> Iterator[LineRange]:
    """The file cut between lines into pieces of about `size` bytes. They depend on the file alone."""
    start, line, long = 0, 1, False
    with path.open("rb") as file:
        at, end, lines = 0, 0, 0  # read so far; end of the last whole line, and lines, since `start`
        while piece := file.read(size):
            last = piece.rfind(b"\n")
            if last >= 0:
                first = piece.find(b"\n")
                if long:  # the rest of a line that was given up
                    yield LineRange(path, start, at + first + 1, line, True)
                    start, line, long = at + first + 1, line + 1, False
                    lines = piece.count(b"\n") - 1
                else:
                    lines += piece.count(b"\n")
                end = at + last + 1
            at += len(piece)
            if end > start:
                yield LineRange(path, start, end, line)
                start, line, lines = end, line + lines, 0
            long = long or at - start > MAX_LINE
        if at > start:
            yield LineRange(path, start, at, line, long)


def _numbered(name: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    return ((f"{name}.{at}", each) for at, each in enumerate(values))


class RowsOnDisk:
    """The rows that came out of one pass."""

    def __init__(self, folder: Path, kind: RowKind):
        self.folder = folder
        self.kind: RowKind = kind
        self.counts: list[int] = []
        self._types: dict[str, tuple[np.dtype, int]] = {}  # and of how many files a column consists
        folder.mkdir(parents=True)

    def chunk(self, number: int) -> Path:
        """The file of lines of one chunk."""
        return self.folder / f"{number:06d}.jsonl"

    def append(self, rows: int, columns: dict[str, np.ndarray]) -> None:
        """Add the columns of the next chunk, whose lines are in `chunk(len(counts))` already."""
        self.counts.append(rows)
        for name, values in columns.items():
            self._types.setdefault(name, (values.dtype, values.shape[1] if values.ndim == 2 else 0))
            each = ((name, values),) if values.ndim == 1 else _numbered(name, values.T)
            for part, numbers in each:
                with (self.folder / f"{part}.bin").open("ab") as file:
                    file.write(np.ascontiguousarray(numbers).tobytes())

    def __len__(self) -> int:
        return sum(self.counts)

    def has(self, name: str) -> bool:
        """Whether there is such a column."""
        return name in self._types

    def column(self, name: str) -> Column:
        """A column of one number a row."""
        return Column(self.folder / f"{name}.bin", self._types[name][0], len(self))

    def columns(self, name: str) -> tuple[Column, ...]:
        """A column of several numbers a row, each for itself."""
        dtype, width = self._types[name]
        return tuple(Column(self.folder / f"{name}.{at}.bin", dtype, len(self)) for at in range(width))

    def starts(self) -> np.ndarray:
        """(chunks + 1,) the number of each chunk's first row."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def place(self) -> RowsHandle:
        """What another process needs to read rows by number."""
        return RowsHandle(self.folder, self.kind, self.starts(), len(self))


@dataclass(frozen=True, slots=True)
class RowsHandle:
    """Where rows are, by number."""

    folder: Path
    kind: RowKind
    starts: np.ndarray
    rows: int

    def read(self, numbers: np.ndarray) -> Iterator[CurationRow]:
        """The rows with these ascending numbers."""
        offsets = self._column("offset").at(numbers)
        chunk_of = np.searchsorted(self.starts, numbers, "right") - 1
        for chunk in np.unique(chunk_of):
            with (self.folder / f"{chunk:06d}.jsonl").open("rb") as file:
                for offset in offsets[chunk_of == chunk].tolist():
                    file.seek(offset)
                    yield read(self.kind, file.readline())

    def sizes(self, numbers: np.ndarray) -> np.ndarray:
        """Bytes of the lines of these rows, in the shape of their numbers."""
        each, inverse = np.unique(numbers, return_inverse=True)
        return self._column("size").at(each)[inverse].reshape(numbers.shape)

    def _column(self, name: str) -> Column:
        return Column(self.folder / f"{name}.bin", np.dtype(np.int64), self.rows)
