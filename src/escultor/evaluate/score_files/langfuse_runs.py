"""Dataset runs (experiments) of Langfuse, with the scores of their items.

Read are the answers of the API (`datasets/{name}/runs/{run}`, `dataset-run-items`, `experiment-items` with
the fields `dataset,io,scores`, `v2/scores`, `v3/scores` with the field `subject`) and the exports of scores
and of traces from the interface (JSON, JSONL, CSV). Items and their scores are in one file, as an object with
`datasetRunItems` and `scores`, or as pages, a line each; or in a folder, in files named after what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from escultor.errors import DataError, InputError
from escultor.evaluate.score_files.inputs import csv_rows, read_json
from escultor.evaluate.score_files.scored_run import ScoredRun, text_of
from escultor.ids import hash_value

Row = Mapping[str, Any]
_RUN = ("datasetRunName", "experimentName", "runName", "dataset_run_name", "run_name")
_ITEM = ("datasetItemId", "experimentItemId", "dataset_item_id")
_TRACE = ("traceId", "trace_id")
_TASK = ("datasetName", "experimentDatasetId", "dataset_name")
_WORDS = ("scores", "items", "traces")  # in the names of the files of a folder
_LISTS = ("datasetRunItems", "scores")  # keys of an object that holds both
# Columns of an export of traces that are lists and no scores.
_TRACE_COLUMNS = frozenset(
    ("id", "timestamp", "input", "output", "tags", "traceTags", "comments", "metadata")
)


def read_langfuse(path: Path, chosen: str | None) -> ScoredRun | None:
    """A dataset run; None where the file or folder holds none. Of several runs, `chosen` names one. An item
    of an export of traces is known by its input; one whose run ended in an error has failed.

    Raises InputError where the choice is missing or unknown, DataError for a score that is no number, and for
    pages of which others are missing.
    """
    rows = _joined(list(_entries(path)))
    if not rows:
        return None
    names = {str(name) for row in rows if (name := _first(row, _RUN)) is not None}
    if (chosen is None and len(names) > 1) or (chosen is not None and chosen not in names):
        raise InputError(
            f"{path} holds {len(names)} runs", chosen or "no choice", ", ".join(sorted(names)), f"{path}#RUN"
        )
    name = chosen or next(iter(names), path.stem)
    run = ScoredRun(path, "langfuse", str(_first(rows[0], _TASK) or ""), name)
    for row in rows:
        if _first(row, _RUN) in (None, name):
            _add(run, row)
    return run


def _first(row: Row, names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


# --- what a file holds ----------------------------------------------------------------------------


def _entries(path: Path) -> Iterator[Row]:
    """The run items, scores and traces in a file or in the files of a folder, in the order of their names."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.is_file() and any(word in file.stem for word in _WORDS):
                yield from _entries(file)
    elif path.suffix == ".csv":
        yield from map(_from_csv, (row for _, row in csv_rows(path)))
    elif path.suffix in (".json", ".jsonl"):
        data = read_json(path)
        if not isinstance(data, Mapping) or "datasetRunItems" not in data:
            yield from _pages(data, path)
            return
        run = {"datasetRunName": data["name"]} if "name" in data else {}
        for key in _LISTS:
            yield from ({**run, **row} for row in _pages(data.get(key), path))


def _from_csv(row: Row) -> Row:
    """A row of an export: the scores in its columns are lists, as JSON."""

    def read(text: str) -> Any:
        try:
            return json.loads(text) if text.startswith("[") else text
        except (ValueError, RecursionError):
            return text

    return {key: read(text) for key, text in row.items()}


def _pages(data: Any, path: Path) -> Iterator[Row]:
    """The entries of a list, of a page of the API, or of a list of pages. Raises DataError where pages are
    missing."""
    pages = [page for page in (data if isinstance(data, list) else [data]) if _is_page(page)]
    if not pages:
        yield from (row for row in data if isinstance(row, Mapping)) if isinstance(data, list) else ()
        return
    for kind in {_kind(page["data"]) for page in pages}:
        own = [page for page in pages if _kind(page["data"]) == kind]
        metas, count = [page.get("meta") or {} for page in own], sum(len(page["data"]) for page in own)
        if max(meta.get("totalItems") or 0 for meta in metas) > count or all(m.get("cursor") for m in metas):
            raise DataError(
                f"{path} has not all pages of {kind}", f"{len(own)} pages", remedy="ask for the next page too"
            )
    for page in pages:
        yield from (row for row in page["data"] if isinstance(row, Mapping))


def _is_page(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("data"), list)


def _kind(rows: list[Any]) -> str:
    return "scores" if rows and isinstance(rows[0], Mapping) and _is_score(rows[0]) else "items"


def _is_score(row: Row) -> bool:
    return "name" in row and not row.keys().isdisjoint(("value", "stringValue"))


# --- items with their scores ----------------------------------------------------------------------


def _joined(entries: list[Row]) -> list[Row]:
    """Items, each with the scores that it has and those of its trace; scores alone are of the item, or else
    the trace, that they name."""
    by_trace: dict[str, list[Row]] = {}
    items: list[Row] = []
    for row in entries:
        if _is_score(row) and (_trace_of(row) or _first(row, _ITEM)):
            by_trace.setdefault(str(_trace_of(row)), []).append(row)
        elif _first(row, _ITEM) and not _is_score(row):
            items.append(row)
        elif {"id", "timestamp", "input"} <= row.keys():
            items.append({"datasetItemId": hash_value(row["input"]), **row, "scores": _columns(row)})
    if not items:
        known = (row for scores in by_trace.values() for row in scores)
        return [{**row, "scores": [row]} for row in known if _first(row, (*_ITEM, *_TRACE))]
    return [
        {**row, "scores": [*_listed(row.get("scores")), *by_trace.get(str(_first(row, _TRACE)), ())]}
        for row in items
    ]


def _trace_of(score: Row) -> Any:
    subject = score.get("subject")
    if isinstance(subject, Mapping):
        return subject.get("traceId") or (subject.get("id") if subject.get("kind") == "trace" else None)
    return _first(score, _TRACE)


def _listed(scores: Any) -> list[Row]:
    if isinstance(scores, Mapping):
        return [{"name": name, "value": value} for name, value in scores.items()]
    return [score for score in scores or () if isinstance(score, Mapping)]


def _columns(row: Row) -> list[Row]:
    """The scores in an export of traces: a list of values a column."""
    lists = ((k, v) for k, v in row.items() if k not in _TRACE_COLUMNS and isinstance(v, list))
    return [{"name": name, "value": value} for name, values in lists for value in values]


def _add(run: ScoredRun, row: Row) -> None:
    id = str(_first(row, _ITEM) or _first(row, _TRACE))
    item = run.item(id, text_of(row.get("input")), text_of(row.get("output")))
    item.failed = item.failed or (row.get("level") == "ERROR" and not row["scores"])
    for score in row["scores"]:
        value = score.get("value")
        # The number of a category, a text or a correction says nothing.
        if score.get("dataType") in ("CATEGORICAL", "TEXT", "CORRECTION") or value in (None, ""):
            value = score.get("stringValue") or value
        if score.get("dataType") != "CORRECTION":
            run.add(item, str(score.get("name")), value, f"item {id} in {run.path}")
