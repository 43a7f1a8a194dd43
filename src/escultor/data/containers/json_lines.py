"""JSON Lines whose rows stand on one line each, read as bytes by a fast parser. From the first line that is
anything else on, a file is left to `json_stream`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from pydantic_core import from_json

from escultor.data.containers.bytes_of_files import text_blocks
from escultor.data.containers.json_stream import WRAPPERS, Numbered, json_values, rows_of_value
from escultor.strict_json import LARGEST, JsonObject, strict_loads

MAX_LINE_BYTES = 4 << 20  # of a line that is read whole
_BLANK_BEFORE_COLON = re.compile(rb'"[ \t\r]+:')


def json_rows(blocks: Iterator[bytes], name: str) -> Iterator[Numbered]:
    """The objects in the bytes of a file; see `json_values`."""
    number, has_rows, held = 1, False, b""
    for block in chain(blocks, (None,)):
        if block and not held and block.isspace():  # gigabytes of nothing, as a few kilobytes may hold
            number += block.count(b"\n")
            continue
        lines = (held + (block or b"")).split(b"\n")
        held = b"" if block is None else lines.pop()
        unread = None if len(held) < MAX_LINE_BYTES else held
        for at, line in enumerate(lines):
            if line and not line.isspace():
                row = _plain_row(line)
                if row is None or not (has_rows or row.keys().isdisjoint(WRAPPERS)):
                    unread = b"\n".join(lines[at:] if block is None else (*lines[at:], held))
                    break
                for each in rows_of_value(row):
                    yield number, each
                has_rows = True
            number += 1
        if unread is not None:
            encoding = None if number == 1 else "utf-8"
            text = text_blocks(chain((unread,), blocks), encoding)
            yield from json_values(text, name, number, not has_rows)
            return


def _plain_row(line: bytes) -> JsonObject | None:
    """The object on a line; None for anything else, and for one that `json_stream` refuses."""
    line = line.rstrip(b"\r ")
    try:
        row = from_json(line, allow_inf_nan=False)
        if not isinstance(row, dict):
            return None
        if not _has_keys_once(line, row):
            strict_loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return row


def _has_keys_once(line: bytes, row: JsonObject) -> bool:
    """Whether no key of a row can be given twice, which the parser does not tell, by the number of colons."""
    keys = _count_keys(row)
    if line.count(b":") == keys:
        return True
    if _BLANK_BEFORE_COLON.search(line):
        return False
    ends = line.count(b'":')
    if ends > keys and b'\\\\":' not in line:
        ends -= line.count(b'\\":')  # an escaped quote is part of a text
    return ends == keys


def _count_keys(value: JsonObject | list[Any]) -> int:
    """Raises ValueError for a number that no float holds."""
    keys, inner = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    for each in inner:
        if type(each) is str:
            continue
        if isinstance(each, dict | list):
            keys += _count_keys(each)
        elif isinstance(each, int | float) and not -LARGEST <= each <= LARGEST:  # 1e999 is read as infinity
            raise ValueError("a number is too large")
    return keys
