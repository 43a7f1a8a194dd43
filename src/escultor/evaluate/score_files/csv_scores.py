"""A CSV of `item, cluster, metric, value`, with `better`, `prompt` and `answer` where known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from escultor.errors import DataError
from escultor.evaluate.score_files.inputs import csv_rows
from escultor.evaluate.score_files.scored_run import Better, ScoredRun, number

COLUMNS = ("item", "metric", "value")
_THOUSAND = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
DIRECTIONS = ("higher", "lower", "neither")


def read_csv(path: Path, chosen: str | None) -> ScoredRun | None:
    """The scores in a CSV file; None where the file is none of these. Decimals have a point or a comma.

    Raises DataError for a row that is there twice, for a value that is no number or may be one of two, and
    for clusters or directions that contradict each other."""
    if path.suffix not in (".csv", ".tsv"):
        return None
    run = ScoredRun(path, "csv", "", path.stem)
    marks: set[str] = set()
    for line, named in csv_rows(path):
        row = {name.lower(): value for name, value in named.items()}
        where = f"{path}, line {line}"
        if missing := [name for name in COLUMNS if not row.get(name)]:
            if line <= 2 and missing[0] not in row:
                return None
            raise DataError(f"{where} lacks {', '.join(missing)}", allowed="item, cluster, metric, value")
        item = run.item(row["item"], row.get("prompt", ""), row.get("answer", ""), row.get("cluster") or None)
        if item.cluster != (row.get("cluster") or None):
            raise DataError(
                f"{where}: item {row['item']!r} is in two clusters", row.get("cluster"), item.cluster
            )
        if row["metric"] in item.values:
            raise DataError(f"{where}: the {row['metric']} of item {row['item']!r} is there twice")
        item.values[row["metric"]] = [_value(row["value"], marks, where)]
        better = cast(Better, row.get("better") or "")
        if better and (better not in DIRECTIONS or run.better.setdefault(row["metric"], better) != better):
            raise DataError(f"{where}: the direction of {row['metric']}", better, ", ".join(DIRECTIONS))
    return run


def _value(text: str, marks: set[str], where: str) -> float:
    """A value, with the decimal mark that the file has; `marks` are those of it so far."""
    marks.update(own := [mark for mark in ".," if mark in text])
    if own and len(marks) > 1:
        raise DataError(f"{where}: decimal points and commas are mixed", text, "one of them in a file")
    if _THOUSAND.fullmatch(text):
        raise DataError(f"{where} has a thousand or a decimal", text, "decimals with a point")
    return number(text.replace(",", "."), f"the value in {where}")
