"""JSON values of a file or stream, one at a time: of JSON Lines, of one array, or of objects on many lines.

Reading is linear in the bytes and holds one value. Only the ends of values are looked for; their content is
left to a parser, so that a broken value does not hide the ones after it.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from escultor.data.jsonl_rows import Fault, short
from escultor.errors import DataError
from escultor.strict_json import JsonObject

BLOCK_BYTES = 1 << 16  # read at a time
MAX_VALUE_BYTES = 32 << 20
_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
# Possessive quantifiers: the text is hostile, and nothing that was passed is looked at again.
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_TO_SEPARATOR = re.compile(rb'(?:[^"\[\]{},]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_BASE64_MARK = b";base64,"
_BASE64 = re.compile(rb"[A-Za-z0-9+/=_-]*+")
_Layout = Literal["lines", "array", "objects"]


def text_field(row: JsonObject, key: str, may_be_empty: bool = False) -> str:
    """A field that must be text. Raises Fault if it is anything else."""
    value = row.get(key)
    if not isinstance(value, str) or not (value or may_be_empty):
        raise Fault(f"`{key}` is of the wrong type", short(value), "text")
    return value


def values_of(path: Path, on_large: Callable[[int], None] | None = None) -> Iterator[tuple[int, bytes]]:
    """The values of a file, gzipped or not, with the number of the line each begins on, one in memory at a
    time. The base64 data of embedded pictures is left out.

    Raises DataError for a file that cannot be read, and at its place for an array that does not end and for
    a value that is too large, unless `on_large` is given: then it is called with the line, and the value is
    skipped.
    """
    try:
        with path.open("rb") as file:
            is_gzip = file.read(2) == _GZIP
            file.seek(0)
            source = gzip.GzipFile(fileobj=file) if is_gzip else file
            blocks = iter(lambda: source.read(BLOCK_BYTES), b"")
            yield from values(without_base64(blocks), str(path), on_large=on_large)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read", reason, "a file of JSON", "check the path") from error


def values(
    blocks: Iterable[bytes],
    name: str,
    most: int = MAX_VALUE_BYTES,
    on_large: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, bytes]]:
    """The values in a stream of bytes, without blank lines. Raises as `values_of`."""
    splitter = Splitter(name, most, on_large)
    for block in blocks:
        yield from splitter.feed(block)
    yield from splitter.end()


def without_base64(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks without the data of `data:…;base64,` addresses, however long they are."""
    held, is_in_data = b"", False
    for block in blocks:
        data, held, pieces = held + block, b"", list[bytes]()
        at = 0
        while at < len(data):
            if is_in_data:
                found = _BASE64.match(data, at)
                at = found.end() if found else at
                is_in_data = at == len(data)
            elif (mark := data.find(_BASE64_MARK, at)) >= 0:
                pieces.append(data[at : mark + len(_BASE64_MARK)])
                at, is_in_data = mark + len(_BASE64_MARK), True
            else:  # a mark may begin at the end of a block
                end = max(at, len(data) - len(_BASE64_MARK) + 1)
                pieces.append(data[at:end])
                held, at = data[end:], len(data)
        yield b"".join(pieces)
    yield held


class Splitter:
    """Splits bytes, fed in blocks of any size, into values. Raises as `values_of`."""

    def __init__(self, name: str, most: int = MAX_VALUE_BYTES, on_large: Callable[[int], None] | None = None):
        self._name, self._most, self._on_large = name, most, on_large
        self._buffer = bytearray()
        self._line = 1  # on which the buffer begins
        self._layout: _Layout | None = None  # unknown before the first value
        self._scanned = self._depth = 0  # bytes of the buffer that were looked at, open brackets behind them
        self._is_in_string = self._is_closed = False
        self._large: int | None = None  # the line of a value of which the beginning was dropped

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        """The values that end in this block."""
        self._buffer += block
        if self._layout is None and not self._find_layout():
            return
        yield from self._lines() if self._layout == "lines" else self._elements()
        if len(self._buffer) > self._most:
            self._drop_large()

    def end(self) -> Iterator[tuple[int, bytes]]:
        """The last value, after all blocks."""
        if self._layout is None:
            self._buffer = self._buffer.removeprefix(_BOM)
            yield from self._lines()
        if self._layout == "array" and not self._is_closed:
            remedy = "copy the file again; it seems cut short"
            raise DataError(f"{self._name}:{self._line}: the array does not end", None, "]", remedy)
        yield from self._value(len(self._buffer))

    def _find_layout(self) -> bool:
        """Whether the layout is known: an array; objects on many lines, if the first line leaves one open;
        otherwise lines."""
        if self._line == 1 and self._buffer == _BOM[: len(self._buffer)]:
            return False  # undecided before more bytes
        if self._line == 1 and self._buffer[:3] == _BOM:
            del self._buffer[:3]
        if not self._scanned:
            self._drop(len(self._buffer) - len(self._buffer.lstrip()))
        end = self._buffer.find(b"\n", self._scanned)
        if self._buffer[:1] == b"[":
            self._drop(1)
            self._layout = "array"
        elif end >= 0:
            first = self._buffer[:end].rstrip()
            is_open = first[:1] == b"{" and first[-1:] in (b"{", b"[", b",") and first[-2:] != b"},"
            self._layout, self._scanned = "objects" if is_open else "lines", 0
        elif len(self._buffer) > self._most:
            self._layout = "lines"
        else:
            self._scanned = len(self._buffer)
        return self._layout is not None

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
                self._is_closed = sign == b"]" and self._layout == "array"
            elif sign in b"]}":
                self._depth -= 1
                if not self._depth and self._layout == "objects":
                    yield from self._value(self._scanned)
        if self._is_closed and self._buffer.strip():
            raise DataError(f"{self._name}:{self._line}: something follows the array", None, "nothing")

    def _next_sign(self) -> bytes:
        """Go behind the next bracket, or comma between values, and return it; nothing if it needs more
        bytes."""
        if self._is_in_string:
            self._skip(_IN_STRING)
            if self._buffer[self._scanned : self._scanned + 1] != b'"':
                return b""
            self._is_in_string = False
            self._scanned += 1
        self._skip(_TO_BRACKET if self._depth else _TO_SEPARATOR)
        sign = bytes(self._buffer[self._scanned : self._scanned + 1])
        self._scanned += len(sign)
        if sign == b'"':  # of a string that goes on in the next block
            self._skip(_IN_STRING)
            self._is_in_string, sign = True, b""
        return sign

    def _skip(self, pattern: re.Pattern[bytes]) -> None:
        found = pattern.match(self._buffer, self._scanned)
        self._scanned = found.end() if found else self._scanned

    def _value(self, end: int, but: int = 0) -> Iterator[tuple[int, bytes]]:
        """Take what is before `end` from the buffer: a value, unless it is blank or was too large."""
        value = bytes(self._buffer[: end - but])
        line, text = self._line, value.lstrip()
        self._drop(end)
        if self._large is not None and self._on_large is not None:
            self._on_large(self._large)
        elif text:
            yield line + value.count(b"\n", 0, len(value) - len(text)), text
        self._large = None

    def _drop_large(self) -> None:
        """Forget the beginning of a value that is too large."""
        if self._on_large is None:
            raise DataError(f"{self._name}:{self._line}: the value is too large", None, f"{self._most} bytes")
        blank = len(self._buffer) - len(self._buffer.lstrip())
        self._large = self._large or self._line + self._buffer.count(b"\n", 0, blank)
        self._drop(self._scanned)

    def _drop(self, count: int) -> None:
        self._line += self._buffer.count(b"\n", 0, count)
        del self._buffer[:count]
        self._scanned = 0
