"""Dataset runs (experiments) of Langfuse, with the scores of their items.

A JSON or JSONL file of rows with `datasetItemId` and `scores`, or an object with the API's two answers:
`datasetRunItems` (item and trace) and `scores` (trace, name, value). A CSV export of scores has
`datasetItemId` (or `traceId`), `name` and `value`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from escultor.errors import InputError
from escultor.evaluate.score_files.inputs import csv_rows, read_json
from escultor.evaluate.score_files.scored_run import ScoredRun, text_of

_RUN = ("datasetRunName", "runName", "dataset_run_name", "run_name")
_ITEM = ("datasetItemId", "dataset_item_id")
_TRACE = ("traceId", "trace_id")


def read_langfuse(path: Path, chosen: str | None) -> ScoredRun | None:
    """A dataset run; None where the file holds none. Of several runs in a file, `chosen` names one. Raises
    InputError where that is missing or unknown, DataError for a score that is no number."""
    rows = list(_rows(path))
    if not rows:
        return None
    names = {str(_first(row, _RUN)) for row in rows if _first(row, _RUN) is not None}
    if (chosen is None and len(names) > 1) or (chosen is not None and chosen not in names):
        raise InputError(
            f"{path} holds {len(names)} runs", chosen or "no choice", ", ".join(sorted(names)), f"{path}#RUN"
        )
    name = chosen or next(iter(names), path.stem)
    run = ScoredRun(path, "langfuse", str(_first(rows[0], ("datasetName", "dataset_name")) or ""), name)
    for row in rows:
        if _first(row, _RUN) in (None, name):
            _add(run, row)
    return run


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a file, each with its item and its scores."""
    if path.suffix == ".csv":
        for _, row in csv_rows(path):
            if not {"name", "value"} <= row.keys() or _first(row, (*_ITEM, *_TRACE)) is None:
                return
            yield {**row, "scores": [row]}
        return
    if path.suffix not in (".json", ".jsonl"):
        return
    data = read_json(path)
    if isinstance(data, Mapping) and isinstance(data.get("datasetRunItems"), list):
        yield from _joined(data)
        return
    rows = data.get("data") if isinstance(data, Mapping) else data
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, Mapping) or _first(row, _ITEM) is None or "scores" not in row:
            return
        yield row


def _joined(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Items of a run with the scores of their traces."""
    scores = data.get("scores") or ()
    scores = scores.get("data", ()) if isinstance(scores, Mapping) else scores
    by_trace: dict[str, list[Any]] = {}
    for score in scores:
        by_trace.setdefault(str(_first(score, _TRACE)), []).append(score)
    for item in data["datasetRunItems"]:
        name = _first(item, _RUN) or data.get("name")
        yield {**item, "datasetRunName": name, "scores": by_trace.get(str(_first(item, _TRACE)), [])}


def _add(run: ScoredRun, row: Mapping[str, Any]) -> None:
    id = str(_first(row, _ITEM) or _first(row, _TRACE))
    item = run.item(id, text_of(row.get("input")), text_of(row.get("output")))
    scores = row["scores"]
    if isinstance(scores, Mapping):
        scores = [{"name": name, "value": value} for name, value in scores.items()]
    for score in scores:
        value = score.get("value")
        if score.get("dataType") == "CATEGORICAL" or value in (None, ""):
            value = score.get("stringValue", value)
        run.add(item, str(score.get("name")), value, f"item {id} in {run.path}")
