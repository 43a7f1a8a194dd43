"""Rows on disk between two passes: files of lines, and columns of numbers with one entry a row.

Neither is held in memory: lines are read a chunk at a time, columns a window of rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from escultor.data.jsonl_rows import RowKind
from escultor.datasets.disk.columns import Column
from escultor.datasets.rows import CurationRow, read_line

CHUNK_BYTES = 1 << 21  # of a source that one task reads
MAX_LINE_BYTES = 1 << 23  # a longer line is not read as a row


@dataclass(frozen=True, slots=True)
class LineRange:
    """Whole lines of a file; `too_long` marks one line over the limit, which is not read."""

    path: Path
    start: int
    end: int
    first_line: int
    too_long: bool = False


def line_ranges(path: Path, size: int = CHUNK_BYTES) -> Iterator[LineRange]:
    """Cut a file between lines into ranges of about `size` bytes, which depend on the file alone."""
    start, line, is_long = 0, 1, False
    with path.open("rb") as file:
        position, end, lines = 0, 0, 0  # read so far; end of the last whole line, and lines, since `start`
        while block := file.read(size):
            last = block.rfind(b"\n")
            if last >= 0:
                first = block.find(b"\n")
                if is_long:  # the rest of a line over the limit
                    yield LineRange(path, start, position + first + 1, line, True)
                    start, line, is_long = position + first + 1, line + 1, False
                    lines = block.count(b"\n") - 1
                else:
                    lines += block.count(b"\n")
                end = position + last + 1
            position += len(block)
            if end > start:
                yield LineRange(path, start, end, line)
                start, line, lines = end, line + lines, 0
            is_long = is_long or position - start > MAX_LINE_BYTES
        if position > start:
            yield LineRange(path, start, position, line, is_long)


@dataclass(frozen=True, slots=True)
class RowsHandle:
    """What another process needs to read rows on disk by number."""

    folder: Path
    kind: RowKind
    starts: np.ndarray  # (chunks + 1,) the number of each chunk's first row
    rows: int

    def read(self, numbers: np.ndarray) -> Iterator[CurationRow]:
        """The rows with these ascending numbers."""
        offsets = self._column("offset").take(numbers)
        chunk_of = np.searchsorted(self.starts, numbers, "right") - 1
        for chunk in np.unique(chunk_of):
            with (self.folder / f"{chunk:06d}.jsonl").open("rb") as file:
                for offset in offsets[chunk_of == chunk].tolist():
                    file.seek(offset)
                    yield read_line(self.kind, file.readline())

    def sizes(self, numbers: np.ndarray) -> np.ndarray:
        """Bytes of the lines of these rows, in the shape of `numbers`."""
        unique, inverse = np.unique(numbers, return_inverse=True)
        return self._column("size").take(unique)[inverse].reshape(numbers.shape)

    def _column(self, name: str) -> Column:
        return Column(self.folder / f"{name}.bin", np.dtype(np.int64), self.rows)


class RowsOnDisk:
    """The rows that one pass wrote: chunks of lines, and their columns."""

    def __init__(self, folder: Path, kind: RowKind):
        self.folder = folder
        self.kind: RowKind = kind
        self.counts: list[int] = []  # rows of each chunk
        self._types: dict[str, tuple[np.dtype, int]] = {}  # of a column: its type, and its files (0: one)
        folder.mkdir(parents=True)

    def chunk(self, number: int) -> Path:
        """The file of lines of one chunk."""
        return self.folder / f"{number:06d}.jsonl"

    def append(self, rows: int, columns: dict[str, np.ndarray]) -> None:
        """Add the columns of the next chunk, whose lines are already in `chunk(len(counts))`."""
        self.counts.append(rows)
        for name, values in columns.items():
            is_wide = values.ndim == 2
            self._types.setdefault(name, (values.dtype, values.shape[1] if is_wide else 0))
            files = (
                ((f"{name}.{i}", part) for i, part in enumerate(values.T)) if is_wide else [(name, values)]
            )
            for file_name, numbers in files:
                with (self.folder / f"{file_name}.bin").open("ab") as file:
                    file.write(np.ascontiguousarray(numbers).tobytes())

    def lines(self) -> Iterator[bytes]:
        """The lines of all rows, in order."""
        for number in range(len(self.counts)):
            with self.chunk(number).open("rb") as file:
                yield from file

    def __len__(self) -> int:
        return sum(self.counts)

    def has(self, name: str) -> bool:
        """Whether there is a column of this name."""
        return name in self._types

    def column(self, name: str) -> Column:
        """A column of one number a row."""
        return Column(self.folder / f"{name}.bin", self._types[name][0], len(self))

    def columns(self, name: str) -> tuple[Column, ...]:
        """The single columns of a column of several numbers a row."""
        dtype, width = self._types[name]
        return tuple(Column(self.folder / f"{name}.{i}.bin", dtype, len(self)) for i in range(width))

    def handle(self) -> RowsHandle:
        """The handle with which another process reads these rows."""
        starts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        return RowsHandle(self.folder, self.kind, starts, len(self))
