"""JSON and CSV files as they come."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from escultor.errors import DataError


def read_json(path: Path) -> Any:
    """The value in a JSON file, or the rows of a JSONL file. Raises DataError for a damaged file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON", str(error)[:80]) from error


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file by column, with their line; commas, semicolons or tabs separate.
    It is in UTF-8, or in UTF-16 with its mark."""
    with path.open("rb") as raw:
        is_wide = raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    with path.open(encoding="utf-16" if is_wide else "utf-8-sig", newline="") as file:
        line = 1
        try:
            if not (head := file.readline()).startswith("sep="):  # by which Excel is told the separator
                file.seek(0)
            separator = max(",;\t", key=head.count)
            reader = csv.DictReader(file, delimiter=separator, strict=True)
            for row in reader:
                line = reader.line_num
                if None in row or None in row.values():
                    raise DataError(f"{path}, line {line} has another number of columns than the head")
                yield line, {key.strip(): value.strip() for key, value in row.items()}
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no text", str(error), "UTF-8, or UTF-16 with its mark") from error
        except csv.Error as error:
            raise DataError(f"{path}, after line {line} is no CSV", str(error)) from error
