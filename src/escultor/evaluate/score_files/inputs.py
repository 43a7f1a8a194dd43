"""JSON and CSV files as they come."""

from __future__ import annotations

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
    """The rows of a CSV file by column, with their line; commas, semicolons or tabs separate."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        separator = max(",;\t", key=head.count)
        reader = csv.DictReader(file, delimiter=separator, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}, line {reader.line_num} has another number of columns than the head"
                    )
                yield reader.line_num, {key.strip(): value.strip() for key, value in row.items()}
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num} is no CSV", str(error)) from error
