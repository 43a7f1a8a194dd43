"""JSON values of a stream that comes in blocks, one at a time: of JSON Lines, or of one array.

Reading is linear in the bytes and holds one value. Only the ends of values are looked for; their content is
left to a parser, so that a broken value does not hide the ones after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from escultor.errors import DataError

MAX_VALUE_BYTES = 32 << 20
_BOM = b"\xef\xbb\xbf"
# Possessive quantifiers: the text is hostile, and nothing that was passed is looked at again.
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_TO_SEPARATOR = re.compile(rb'(?:[^"\[\]{},]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)


def values(blocks: Iterable[bytes], name: str, most: int = MAX_VALUE_BYTES) -> Iterator[tuple[int, bytes]]:
    """The values in a stream of bytes, without blank lines. Raises as `Splitter`."""
    splitter = Splitter(name, most)
    for block in blocks:
        yield from splitter.feed(block)
    yield from splitter.end()


class Splitter:
    """Splits bytes, fed in blocks of any size, into values with the number of the line each begins on. Raises
    DataError for an array that does not end, and for a value that is too large."""

    def __init__(self, name: str, most: int = MAX_VALUE_BYTES):
        self._name, self._most = name, most
        self._buffer = bytearray()
        self._line = 1  # on which the buffer begins
        self._array: bool | None = None  # unknown before the first byte that is not blank
        self._scanned = self._depth = 0  # bytes of the buffer that were looked at, open brackets behind them
        self._is_in_string = self._is_closed = False

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
        self._buffer = self._buffer.removeprefix(_BOM)
        yield from self._value(len(self._buffer))

    def _begin(self) -> bool:
        if self._line == 1 and self._buffer == _BOM[: len(self._buffer)]:
            return False  # undecided before more bytes
        if self._line == 1 and self._buffer[:3] == _BOM:
            del self._buffer[:3]
        self._drop(len(self._buffer) - len(self._buffer.lstrip()))
        if self._buffer:
            self._array = self._buffer[:1] == b"["
            self._drop(int(self._array))
        return bool(self._buffer) or bool(self._array)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            yield from self._value(end + 1)
        self._scanned = len(self._buffer)

    def _elements(self) -> Iterator[tuple[int, bytes]]:
        while not self._is_closed and (sign := self._next_sign()):
            if sign in b"[{":
                self._depth += 1
            elif not self._depth:  # behind a value: a comma, or the end of the array
                yield from self._value(self._scanned, but=1)
                self._is_closed = sign == b"]"
            elif sign in b"]}":
                self._depth -= 1
        if self._is_closed and self._buffer.strip():
            raise DataError(f"{self._name}:{self._line}: something follows the array", None, "nothing")

    def _next_sign(self) -> bytes:
        """Go behind the next bracket, or comma between values, and return it; nothing if it needs more
        bytes."""
        if self._is_in_string:
            self._skip(_IN_STRING.match)
            if self._buffer[self._scanned : self._scanned + 1] != b'"':
                return b""
            self._is_in_string = False
            self._scanned += 1
        self._skip(_TO_BRACKET.match if self._depth else _TO_SEPARATOR.match)
        sign = bytes(self._buffer[self._scanned : self._scanned + 1])
        self._scanned += len(sign)
        if sign == b'"':  # of a string that goes on in the next block
            self._skip(_IN_STRING.match)
            self._is_in_string, sign = True, b""
        return sign

    def _skip(self, match: Callable[[bytearray, int], re.Match[bytes] | None]) -> None:
        found = match(self._buffer, self._scanned)
        self._scanned = found.end() if found else self._scanned

    def _value(self, end: int, but: int = 0) -> Iterator[tuple[int, bytes]]:
        """Take what is before `end` from the buffer: a value, unless it is blank."""
        value = bytes(self._buffer[: end - but])
        line, text = self._line, value.lstrip()
        self._drop(end)
        if text:
            yield line + value.count(b"\n", 0, len(value) - len(text)), text

    def _drop(self, count: int) -> None:
        self._line += self._buffer.count(b"\n", 0, count)
        del self._buffer[:count]
        self._scanned = 0
