"""JSON values of a file or stream, one at a time, from JSON Lines or from one array."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from escultor.data.jsonl_rows import Fault, short
from escultor.errors import DataError
from escultor.strict_json import JsonObject

BLOCK_BYTES = 1 << 16  # read at a time
MAX_VALUE_BYTES = 16 << 20
_BOM = b"\xef\xbb\xbf"
_MARK = re.compile(rb'["\[\]{},]')
_END_OF_STRING = re.compile(rb'(?:[^"\\]|\\.)*"', re.DOTALL)


def text_field(row: JsonObject, key: str, may_be_empty: bool = False) -> str:
    """A field that must be text. Raises Fault if it is anything else."""
    value = row.get(key)
    if not isinstance(value, str) or not (value or may_be_empty):
        raise Fault(f"`{key}` is of the wrong type", short(value), "text")
    return value


def values_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The values of a file with the number of the line each begins on, one in memory at a time.

    Raises DataError for a file that cannot be read, a value that is too large, an array that does not end.
    """
    try:
        with path.open("rb") as file:
            yield from values(iter(lambda: file.read(BLOCK_BYTES), b""), str(path))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path} cannot be read", reason, "a file of JSON", "check the path") from error


def values(blocks: Iterable[bytes], name: str, most: int = MAX_VALUE_BYTES) -> Iterator[tuple[int, bytes]]:
    """The values in a stream of bytes, without blank lines."""
    splitter = Splitter(name, most)
    for block in blocks:
        yield from splitter.feed(block)
    yield from splitter.end()


class Splitter:
    """Splits bytes, fed in blocks of any size, into values. Only the ends of values are parsed."""

    def __init__(self, name: str, most: int = MAX_VALUE_BYTES):
        self._name, self._most = name, most
        self._buffer = bytearray()
        self._line = 1  # on which the buffer begins
        self._array: bool | None = None  # unknown before the first byte that is not blank
        self._scanned = self._depth = 0  # in an array: the bytes scanned, and open brackets
        self._is_closed = False

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        """The values that end in this block."""
        self._buffer += block
        if self._array is None and not self._begin():
            return
        yield from self._elements() if self._array else self._lines()
        if len(self._buffer) > self._most:
            raise DataError(f"{self._name}:{self._line}: the value is too large", None, f"{self._most} bytes")

    def end(self) -> Iterator[tuple[int, bytes]]:
        """The last value, after all blocks."""
        if self._array and not self._is_closed:
            remedy = "copy the file again; it seems cut short"
            raise DataError(f"{self._name}:{self._line}: the array does not end", None, "]", remedy)
        if self._buffer.strip() and self._buffer != _BOM:
            yield self._line, bytes(self._buffer)
            self._buffer.clear()

    def _begin(self) -> bool:
        if self._line == 1 and self._buffer == _BOM[: len(self._buffer)]:
            return False  # undecided before more bytes
        if self._line == 1 and self._buffer[:3] == _BOM:
            del self._buffer[:3]
        blank = len(self._buffer) - len(self._buffer.lstrip())
        self._drop(blank)
        if not self._buffer:
            return False
        self._array = self._buffer[:1] == b"["
        if self._array:
            self._drop(1)
        return True

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        *whole, rest = self._buffer.split(b"\n")
        for line in whole:
            if line.strip():
                yield self._line, bytes(line) + b"\n"
            self._line += 1
        self._buffer = bytearray(rest)

    def _elements(self) -> Iterator[tuple[int, bytes]]:
        while not self._is_closed and (mark := _MARK.search(self._buffer, self._scanned)):
            at, sign = mark.start(), bytes(mark[0])  # copied: a match refers to the buffer, which changes
            if sign == b'"':
                closed = _END_OF_STRING.match(self._buffer, at + 1)
                if closed is None:
                    self._scanned = at  # the string goes on in the next block
                    return
                self._scanned = closed.end()
            elif sign in b"[{":
                self._depth, self._scanned = self._depth + 1, at + 1
            elif self._depth:
                self._depth, self._scanned = self._depth - (sign in b"]}"), at + 1
            else:  # a comma between values, or the end of the array
                yield from self._element(at)
                self._is_closed = sign == b"]"
        if self._is_closed and self._buffer.strip():
            raise DataError(f"{self._name}:{self._line}: something follows the array", None, "nothing")

    def _element(self, at: int) -> Iterator[tuple[int, bytes]]:
        blank = len(self._buffer[:at]) - len(self._buffer[:at].lstrip())
        self._drop(blank)
        line, value = self._line, bytes(self._buffer[: at - blank])
        self._drop(at - blank + 1)
        if value:
            yield line, value

    def _drop(self, count: int) -> None:
        self._line += self._buffer.count(b"\n", 0, count)
        del self._buffer[:count]
        self._scanned = 0
