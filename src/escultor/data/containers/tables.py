"""Rows of tables: CSV and TSV in the dialect that fits, Parquet and Arrow with their nested columns."""

from __future__ import annotations

import ast
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from math import isnan
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from tempfile import TemporaryFile
from typing import Any

from escultor.data.containers import columnar_process
from escultor.data.containers.bytes_of_files import EXTRA
from escultor.data.containers.json_stream import MAX_VALUE_CHARS, NOT_TEXT, Numbered, is_unicode
from escultor.data.jsonl_rows import Fault, short
from escultor.errors import DataError, InputError
from escultor.strict_json import JsonObject, check_numbers, strict_loads

DELIMITERS = ",;\t|"
_SAMPLE_LINES = 50
_LITERAL_CHARS = 1 << 20  # of a cell that is read as Python writes it, which takes 200 bytes a character


# --- text -------------------------------------------------------------------------------------


def csv_rows(blocks: Iterable[str], name: str) -> Iterator[Numbered]:
    """The rows of a CSV file by the names in its first line. A cell that is a JSON or Python list or object
    is read as one; every other cell is text. Line numbers are those on which rows end.

    Raises DataError for a file without names of columns, or with one twice.
    """
    csv.field_size_limit(MAX_VALUE_CHARS)
    lines = _lines(blocks, name)
    sample = [line for line, _ in zip(lines, range(_SAMPLE_LINES), strict=False)]
    delimiter = _delimiter(sample)
    reader = csv.reader(chain(sample, lines), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, Fault("the line is not CSV", error, "quotes doubled inside quoted cells")
            continue
        if not any(cells):
            continue
        if header is None:
            header = _header(cells, name)
        elif len(cells) != len(header):
            got, allowed = f"{len(cells)} cells", f"{len(header)}, as in the first line"
            yield reader.line_num, Fault("the row has another number of cells", got, allowed)
        elif not all(map(is_unicode, cells)):
            yield reader.line_num, NOT_TEXT
        else:
            yield reader.line_num, dict(zip(header, map(_cell, cells), strict=True))


def _lines(blocks: Iterable[str], name: str) -> Iterator[str]:
    """Lines with their ends. Only a newline ends one: a form feed or U+2028 is text."""
    parts: list[str] = []
    held = 0
    for block in blocks:
        first, *rest = block.split("\n")
        parts.append(first)
        held = len(rest[-1]) if rest else held + len(first)
        if held > MAX_VALUE_CHARS:
            got, remedy = f"over {MAX_VALUE_CHARS:,} characters", "end its rows by newlines"
            raise DataError(f"{name}: a line is too long", got, remedy=remedy)
        for line in rest:
            yield "".join(parts) + "\n"
            parts = [line]
    if last := "".join(parts):
        yield last


def _delimiter(sample: list[str]) -> str:
    """The delimiter by which the sample's rows have the same number of cells, and most of them."""

    def score(delimiter: str) -> tuple[bool, int]:
        try:
            widths = [len(cells) for cells in csv.reader(sample, delimiter=delimiter) if cells]
        except csv.Error:
            return False, 0
        return len(set(widths[:-1])) <= 1, widths[0] if widths else 0

    return max(DELIMITERS, key=lambda d: (score(d)[1] > 1, *score(d)))


def _header(cells: list[str], name: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if "" in names or len(set(names)) < len(names):
        allowed = "a name for each column, each once"
        raise DataError(f"{name}: the first line does not name the columns", short(names), allowed)
    return names


def _cell(text: str) -> Any:
    if text[:1] not in ("[", "{"):
        return text
    try:
        return strict_loads(text)
    except ValueError:
        pass
    if len(text) > _LITERAL_CHARS:
        return text
    try:  # as pandas writes lists
        return strict_loads(json.dumps(ast.literal_eval(text), allow_nan=False))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


# --- columns ----------------------------------------------------------------------------------


def columnar_rows(path: Path) -> Iterator[Numbered]:
    """The rows of a Parquet or Arrow file (file or stream format), numbered from 1, read by a process of its
    own. NaN in a column is null: pandas writes missing numbers so.

    Raises InputError where pyarrow is not installed, DataError for a file that cannot be read.
    """
    try:
        import pyarrow.ipc
    except ImportError as error:
        raise InputError(f"{path} needs pyarrow", "it is not installed", None, EXTRA) from error
    # A path is absolute, so that none begins like an option.
    command = [sys.executable, "-P", "-m", columnar_process.__name__, str(path.absolute())]
    number = 0
    with TemporaryFile() as said, Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=said) as process:
        try:
            for batch in pyarrow.ipc.open_stream(process.stdout):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _finite(row)
        except (pyarrow.ArrowException, OSError):  # the stream ends where the process does
            pass
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            said.seek(0)
            reason = said.read().decode("utf-8", "replace").strip() or f"reading crashed after row {number}"
            raise DataError(f"{path} cannot be read as a table", reason[-300:], "Parquet or Arrow")


def _finite(row: JsonObject) -> JsonObject | Fault:
    row = {key: None if isinstance(value, float) and isnan(value) else value for key, value in row.items()}
    try:
        check_numbers(row)
    except ValueError as error:
        return Fault("the row is no JSON", error, "numbers that a float holds")
    return row


def is_columnar(start: bytes) -> bool:
    """Whether a file that begins so is Parquet or Arrow; a stream of Arrow begins with its mark of
    continuation."""
    return start.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"))
