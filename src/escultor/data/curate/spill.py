"""Rows on disk between two passes: files of lines, and columns of numbers beside them, one entry a row.

Memory holds neither: lines are read a chunk at a time, columns through the system's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from escultor.data.curate.rows import Row, read
from escultor.data.jsonl_rows import Kind

CHUNK_BYTES = 1 << 21  # of a source that are one piece of work
MAX_LINE = 1 << 23  # bytes; a longer line is no row


@dataclass(frozen=True, slots=True)
class Range:
    """Whole lines of a file; `too_long` is one line over the limit, which is not read."""

    path: Path
    start: int
    end: int
    first_line: int
    too_long: bool = False


def ranges(path: Path, size: int = CHUNK_BYTES) -> Iterator[Range]:
    """The file cut between lines into pieces of about `size` bytes. They depend on the file alone."""
    start, line, long = 0, 1, False
    with path.open("rb") as file:
        at, end, lines = 0, 0, 0  # read so far; end of the last whole line, and lines, since `start`
        while piece := file.read(size):
            last = piece.rfind(b"\n")
            if last >= 0:
                first = piece.find(b"\n")
                if long:  # the rest of a line that was given up
                    yield Range(path, start, at + first + 1, line, True)
                    start, line, long = at + first + 1, line + 1, False
                    lines = piece.count(b"\n") - 1
                else:
                    lines += piece.count(b"\n")
                end = at + last + 1
            at += len(piece)
            if end > start:
                yield Range(path, start, end, line)
                start, line, lines = end, line + lines, 0
            long = long or at - start > MAX_LINE
        if at > start:
            yield Range(path, start, at, line, long)


class Spill:
    """The rows that came out of one pass."""

    def __init__(self, folder: Path, kind: Kind):
        self.folder = folder
        self.kind: Kind = kind
        self.counts: list[int] = []
        self._shapes: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        folder.mkdir(parents=True)

    def chunk(self, number: int) -> Path:
        """The file of lines of one chunk."""
        return self.folder / f"{number:06d}.jsonl"

    def append(self, rows: int, columns: dict[str, np.ndarray]) -> None:
        """Add the columns of the next chunk, whose lines are in `chunk(len(counts))` already."""
        self.counts.append(rows)
        for name, values in columns.items():
            self._shapes.setdefault(name, (values.dtype, values.shape[1:]))
            with (self.folder / f"{name}.bin").open("ab") as file:
                file.write(np.ascontiguousarray(values).tobytes())

    def __len__(self) -> int:
        return sum(self.counts)

    def has(self, name: str) -> bool:
        """Whether there is such a column."""
        return name in self._shapes

    def column(self, name: str) -> np.ndarray:
        """A column, for reading: (rows, …)."""
        dtype, shape = self._shapes[name]
        size = (len(self), *shape)
        if not len(self):
            return np.empty(size, dtype)
        return np.memmap(self.folder / f"{name}.bin", dtype, "r", shape=size)

    def starts(self) -> np.ndarray:
        """(chunks + 1,) the number of each chunk's first row."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def place(self) -> Place:
        """What another process needs to read rows by number."""
        return Place(self.folder, self.kind, self.starts(), len(self))


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows are, by number."""

    folder: Path
    kind: Kind
    starts: np.ndarray
    rows: int

    def read(self, numbers: np.ndarray) -> Iterator[Row]:
        """The rows with these ascending numbers."""
        offsets = self._column("offset")
        chunk_of = np.searchsorted(self.starts, numbers, "right") - 1
        for chunk in np.unique(chunk_of):
            with (self.folder / f"{chunk:06d}.jsonl").open("rb") as file:
                for number in numbers[chunk_of == chunk]:
                    file.seek(int(offsets[number]))
                    yield read(self.kind, file.readline())

    def sizes(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) bytes of the lines of these rows."""
        return self._column("size")[numbers] if len(numbers) else np.empty(0, dtype=np.int64)

    def _column(self, name: str) -> np.ndarray:
        return np.memmap(self.folder / f"{name}.bin", np.int64, "r", shape=(self.rows,))
