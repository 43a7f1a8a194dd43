"""JSON objects of a text, one at a time: JSON Lines, objects over several lines or one behind another, an
array, or an object that wraps an array of rows. Memory holds one value, whatever the size of the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.errors import DataError
from escultor.strict_json import NUMBERS, JsonObject

Numbered = tuple[int, JsonObject | Fault | Skip]  # the line a value begins on; it, or why there is none
MAX_VALUE_CHARS = 64 << 20
WRAPPERS = ("data", "rows", "records", "items", "examples", "instances", "samples", "dataset", "train")
NOT_TEXT = Fault("the row is not UTF-8", None, "UTF-8, or UTF-16 with its mark", "name it with --encoding")
HALF_A_PAIR = Fault(
    "the row has an invalid escape",
    "half of a surrogate pair written as \\ud800 … \\udfff",
    "Unicode text",
    "correct the escape",
)
_TALKS = {"dialog", "dialogue", "conversation", "conversations", "messages", "turns", "data"}  # of one row
_HEAD_CHARS = 4096  # of an object in which the key that wraps rows must begin
_BLANK = re.compile(r"[ \t\r\n,\x1e]*")  # 1e: of RFC 7464
_MARK = re.compile(r'["\[\]{}\n]')
_STRING = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"')
_TURN = r'(?!\{\s*"(?:from|role|value|content|speaker)")'  # `items` of ShareGPT are turns, not rows
_WRAPPED = re.compile(rf'"(?:{"|".join(WRAPPERS)})"\s*:\s*\[\s*{_TURN}\{{')


def _object(pairs: list[tuple[str, object]]) -> JsonObject:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = sorted({key for key in keys if keys.count(key) > 1}) if len(keys) < 1000 else "many"
        raise Fault("the row gives a key twice", short(repeated), "each key once", "remove one")
    return unique


_DECODER = json.JSONDecoder(object_pairs_hook=_object, **NUMBERS)


def json_values(blocks: Iterable[str], name: str, line: int = 1, may_wrap: bool = True) -> Iterator[Numbered]:
    """The objects in a text that begins on this line of a file; the first of them may wrap the rows. What is
    broken is a Fault, a line of comment a Skip; the rest is read on.

    Raises DataError for a value of more than `MAX_VALUE_CHARS`.
    """
    return _Values(blocks, name, line, may_wrap).read()


class _Values:
    def __init__(self, blocks: Iterable[str], name: str, line: int, may_wrap: bool):
        self._blocks, self._name = iter(blocks), name
        self._text, self._at, self._line = "", 0, line  # the window, what is read of it, and the line there
        self._is_checked = True  # whether the window is known to be Unicode
        self._may_wrap = may_wrap  # the objects so far, if any, wrapped rows

    def read(self) -> Iterator[Numbered]:
        in_array = is_wrapped = False
        while sign := self._sign():
            if sign == "[" and not in_array:
                self._at, in_array = self._at + 1, True
            elif sign == "]" and in_array:
                self._at, in_array = self._at + 1, False
                if is_wrapped:
                    yield from self._rest_of_wrapper()
                is_wrapped = False
            elif sign == "#" or self._text.startswith("//", self._at):
                yield self._line, Skip("comment line")
                self._move(self._end_of_line())
            elif sign == "{" and not in_array and self._may_wrap and (start := self._wrapped_rows()):
                self._move(start)
                in_array = is_wrapped = True
            else:
                self._may_wrap = False
                line, value = self._value()
                if isinstance(value, Fault | Skip):
                    yield line, value
                else:
                    yield from ((line, row) for row in rows_of_value(value))
        if in_array:
            got, remedy = "the end of the file", "copy the file again; it seems cut short"
            yield self._line, Fault("the array does not end", got, "]", remedy)

    # --- the window ---------------------------------------------------------------------------

    def _grow(self) -> bool:
        """Read as much again as is unread, one block at least; False at the end of the text."""
        unread = self._text[self._at :]
        if len(unread) > MAX_VALUE_CHARS:
            what = f"{self._name}:{self._line}: the value is too large"
            raise DataError(what, f"over {MAX_VALUE_CHARS:,} characters", None, "split it into rows")
        blocks, size = [unread], 0
        for block in self._blocks:
            blocks.append(block)
            size += len(block)
            if size and size >= len(unread):
                break
        self._text, self._at = "".join(blocks), 0
        self._is_checked = is_unicode(self._text)
        return size > 0

    def _move(self, end: int) -> None:
        self._line += self._text.count("\n", self._at, end)
        self._at = end

    def _sign(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._move(blank.end() if blank else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow():
                return ""

    def _end_of_line(self) -> int:
        while (end := self._text.find("\n", self._at)) < 0:
            if not self._grow():
                return len(self._text)
        return end

    # --- values -------------------------------------------------------------------------------

    def _value(self) -> tuple[int, object]:
        """The value that begins here, or the Fault for what stands there instead."""
        line = self._line
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError, Fault) as error:
                value, end = _fault(error), self._end_of_broken()
            if end is not None and (end < len(self._text) or isinstance(value, dict)):
                break
            if not self._grow():  # a number at the end of the window may go on behind it
                end = len(self._text) if end is None else end
                break
        raw, begin = self._text, self._at
        self._move(end)
        if not isinstance(value, Fault):
            if not self._is_checked and not is_unicode(raw[begin:end]):
                return line, NOT_TEXT
            if raw.find("\\u", begin, end) >= 0 and not is_unicode(json.dumps(value, ensure_ascii=False)):
                return line, HALF_A_PAIR
        return line, value

    def _end_of_broken(self) -> int | None:
        """Where a value ends that cannot be decoded: behind its last bracket, or at the end of a line where
        it is cut short; None if the window ends before."""
        text, at, depth = self._text, self._at, 0
        while mark := _MARK.search(text, at):
            at, sign = mark.end(), mark[0]
            if sign == '"':
                string = _STRING.match(text, at - 1)
                if string is None:  # it does not end on its line
                    newline = text.find("\n", at)
                    return None if newline < 0 else newline
                at = string.end()
            elif sign in "{[":
                depth += 1
            elif sign == "\n":
                if depth == 0 or self._row_begins(at):
                    return at - 1
                continue
            else:
                depth -= 1
            if depth <= 0:
                return at
        return None

    def _row_begins(self, at: int) -> bool:
        """Whether a line that begins here begins with a whole row, so that the row before was cut short."""
        if not self._text.startswith("{", at):
            return False
        try:
            _DECODER.raw_decode(self._text, at)
        except (ValueError, RecursionError, Fault):
            return False
        return True  # whatever follows, which may lie behind the window

    # --- an object that wraps rows ------------------------------------------------------------

    def _wrapped_rows(self) -> int | None:
        """Behind the bracket that opens the array of rows which the object that begins here wraps."""
        while len(self._text) - self._at < _HEAD_CHARS and self._grow():
            pass
        found = _WRAPPED.search(self._text, self._at, self._at + _HEAD_CHARS)
        at = self._at + 1
        while found:
            at = _blank_end(self._text, at)
            if at == found.start():
                return self._text.index("[", at) + 1
            try:
                _, at = _DECODER.raw_decode(self._text, at)  # a key
                at = _blank_end(self._text, at)
                _, at = _DECODER.raw_decode(self._text, _blank_end(self._text, at + 1))
            except (ValueError, RecursionError, Fault):
                return None
            if at > found.start():
                return None
        return None

    def _rest_of_wrapper(self) -> Iterator[Numbered]:
        """Read past the keys behind the wrapped rows; further arrays of objects are counted."""
        while (sign := self._sign()) == '"':
            line, key = self._value()
            if self._sign() != ":":
                break
            self._at += 1
            self._sign()
            _, value = self._value()
            if isinstance(value, list) and value and isinstance(value[0], dict):
                yield line, Skip(f"an array beside the rows: {short(key)}")
        if sign == "}":
            self._at += 1


def _blank_end(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def is_unicode(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, as bytes that are not valid become when decoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def rows_of_value(value: object) -> Iterator[JsonObject | Fault]:
    """The rows that a value is or holds: an object, a list of messages, or a table that was written by
    columns, by row numbers (pandas), or as the hub's server does."""
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        yield {"messages": value}
    elif not isinstance(value, dict):
        yield Fault("the row is not an object", short(value), "a JSON object", "give its text a key")
    elif isinstance(value.get("row"), dict) and value.keys() <= {"row", "row_idx", "truncated_cells"}:
        yield value["row"]
    else:
        yield from _rows_of_table(value) or (value,)


def _rows_of_table(value: JsonObject) -> list[JsonObject]:
    """The rows of a table in one object; none for an object that is a row."""
    first = next(iter(value.values()), None)
    if not isinstance(first, list | dict) or not first or not _is_table(value, type(first)):
        return []
    if isinstance(first, list):
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if all(key.isdigit() for key in value):  # by rows
        return list(value.values())
    return [{column: cells.get(n) for column, cells in value.items()} for n in first]


def _is_table(value: JsonObject, kind: type) -> bool:
    """Whether the values are columns of plain cells of one length, or objects keyed by row numbers."""
    parts = list(value.values())
    if not all(isinstance(part, kind) for part in parts):
        return False
    if not _TALKS.isdisjoint(value) or len(value) == 1:
        return False
    if kind is list:
        is_even = len({len(part) for part in parts}) == 1
        return is_even and not any(isinstance(cell, dict | list) for part in parts for cell in part)
    by_rows, by_columns = value.keys(), [key for part in parts for key in part]
    return all(key.isdigit() for key in by_rows) or all(key.isdigit() for key in by_columns)


def _fault(error: Exception) -> Fault:
    if isinstance(error, Fault):
        return error
    if isinstance(error, json.JSONDecodeError):
        start = error.doc.rfind("\n", 0, error.pos) + 1
        got = f"{error.msg.removesuffix(' at')} at column {error.pos - start + 1}"
    else:
        got = str(error) or type(error).__name__
    return Fault("the row is not JSON", got, "a JSON object")
