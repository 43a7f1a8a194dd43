"""A file or stream of JSON values, one at a time: JSON Lines, or one array, whichever it turns out to be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from escultor.errors import DataError

PIECE = 1 << 16  # bytes read at a time
MOST = 16 << 20  # bytes of one value
_BOM = b"\xef\xbb\xbf"
_MARK = re.compile(rb'["\[\]{},]')
_END_OF_STRING = re.compile(rb'(?:[^"\\]|\\.)*"', re.DOTALL)


def values_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The values of a file, each with the number of the line it begins on; one in memory at a time.

    Raises DataError for a file that cannot be read, a value that is too large, an array that does not end.
    """
    try:
        with path.open("rb") as file:
            yield from values(iter(lambda: file.read(PIECE), b""), str(path))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path} cannot be read", reason, "a file of JSON", "check the path") from error


def values(pieces: Iterable[bytes], name: str, most: int = MOST) -> Iterator[tuple[int, bytes]]:
    """The values in a stream of bytes; blank lines between them are no values."""
    splitter = Splitter(name, most)
    for piece in pieces:
        yield from splitter.feed(piece)
    yield from splitter.end()


class Splitter:
    """Cuts bytes, fed in pieces of any size, into values. Nothing is parsed but where a value ends."""

    def __init__(self, name: str, most: int = MOST):
        self._name, self._most = name, most
        self._held = bytearray()
        self._line = 1  # on which what is held begins
        self._array: bool | None = None  # not known before the first byte that is no blank
        self._scanned = self._depth = 0  # inside an array: how far `held` was looked at, and open brackets
        self._over = False

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """The values that end in this piece."""
        self._held += piece
        if self._array is None and not self._begin():
            return
        yield from self._elements() if self._array else self._lines()
        if len(self._held) > self._most:
            raise DataError(f"{self._name}:{self._line}: the value is too large", None, f"{self._most} bytes")

    def end(self) -> Iterator[tuple[int, bytes]]:
        """The value that nothing follows."""
        if self._array and not self._over:
            remedy = "copy the file again; it seems cut short"
            raise DataError(f"{self._name}:{self._line}: the array does not end", None, "]", remedy)
        if self._held.strip() and self._held != _BOM:
            yield self._line, bytes(self._held)
            self._held.clear()

    def _begin(self) -> bool:
        if self._line == 1 and self._held == _BOM[: len(self._held)]:
            return False  # what follows tells
        if self._line == 1 and self._held[:3] == _BOM:
            del self._held[:3]
        blank = len(self._held) - len(self._held.lstrip())
        self._drop(blank)
        if not self._held:
            return False
        self._array = self._held[:1] == b"["
        if self._array:
            self._drop(1)
        return True

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        *whole, rest = self._held.split(b"\n")
        for line in whole:
            if line.strip():
                yield self._line, bytes(line) + b"\n"
            self._line += 1
        self._held = bytearray(rest)

    def _elements(self) -> Iterator[tuple[int, bytes]]:
        while not self._over and (mark := _MARK.search(self._held, self._scanned)):
            at, sign = mark.start(), bytes(mark[0])  # a match looks into `held`, which changes
            if sign == b'"':
                closed = _END_OF_STRING.match(self._held, at + 1)
                if closed is None:
                    self._scanned = at  # the string goes on in the next piece
                    return
                self._scanned = closed.end()
            elif sign in b"[{":
                self._depth, self._scanned = self._depth + 1, at + 1
            elif self._depth:
                self._depth, self._scanned = self._depth - (sign in b"]}"), at + 1
            else:  # a comma between values, or the end of the array
                yield from self._element(at)
                self._over = sign == b"]"
        if self._over and self._held.strip():
            raise DataError(f"{self._name}:{self._line}: something follows the array", None, "nothing")

    def _element(self, at: int) -> Iterator[tuple[int, bytes]]:
        blank = len(self._held[:at]) - len(self._held[:at].lstrip())
        self._drop(blank)
        line, value = self._line, bytes(self._held[: at - blank])
        self._drop(at - blank + 1)
        if value:
            yield line, value

    def _drop(self, count: int) -> None:
        self._line += self._held.count(b"\n", 0, count)
        del self._held[:count]
        self._scanned = 0
