"""Evaluations of MLflow: the table that `mlflow.evaluate` logs (`eval_results_table.json`), and the
assessments of traces in a tracking store (`mlflow.db`, SQLite), by run."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from escultor.errors import DataError, InputError
from escultor.evaluate.score_files.inputs import read_json
from escultor.evaluate.score_files.scored_run import ScoredRun, text_of
from escultor.ids import hash_value

_INPUTS = ("inputs", "input", "question", "questions", "request", "prompt", "query")
_OUTPUTS = ("outputs", "output", "prediction", "predictions", "response")
_RUN_OF_TRACE = "mlflow.sourceRun"
_RUN_OF_ASSESSMENT = "mlflow.assessment.sourceRunId"


def read_mlflow(path: Path, chosen: str | None) -> ScoredRun | None:
    """A run's scores; None where the file holds none of MLflow. Of a store, `chosen` is the id or name of a
    run.

    Raises InputError where a store holds several runs and none is chosen, DataError for damaged files.
    """
    if path.suffix in (".db", ".sqlite", ".sqlite3"):
        return _from_store(path, chosen)
    if path.suffix != ".json":
        return None
    data = read_json(path)
    is_table = isinstance(data, Mapping) and isinstance(data.get("columns"), list) and "data" in data
    return _from_table(path, data) if is_table and isinstance(data, Mapping) else None


def _from_table(path: Path, table: Mapping[str, Any]) -> ScoredRun:
    columns = [str(name) for name in table["columns"]]
    run = ScoredRun(path, "mlflow", "", path.parent.name or path.stem)
    scores = [name for name in columns if name.endswith(("/score", "/value"))]
    asked = next((name for name in _INPUTS if name in columns), None)
    answered = next((name for name in _OUTPUTS if name in columns), None)
    if not scores or asked is None:
        raise DataError(
            f"{path} has no scores per row", ", ".join(columns), "an input, and columns that end in /score"
        )
    for line, values in enumerate(table["data"], 1):
        row = dict(zip(columns, values, strict=True))
        item = run.item(_id(row[asked]), text_of(row[asked]), text_of(row.get(answered or "")))
        for name in scores:
            metric = name.removesuffix("/score").removesuffix("/value").removesuffix("/v1")
            run.add(item, metric, row[name], f"row {line} of {path}")
    return run


def _id(inputs: Any) -> str:
    return hash_value(inputs)


def _from_store(path: Path, chosen: str | None) -> ScoredRun | None:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        try:
            tables = {row["name"] for row in database.execute("SELECT name FROM sqlite_master")}
            if not {"assessments", "trace_info", "trace_request_metadata", "runs"} <= tables:
                return None
            return _run_of_store(database, path, chosen)
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} cannot be read", str(error), "a tracking store of MLflow") from error


def _run_of_store(database: sqlite3.Connection, path: Path, chosen: str | None) -> ScoredRun:
    traces = _runs_of_traces(database)
    names = {
        row["run_uuid"]: row["name"] or "" for row in database.execute("SELECT run_uuid, name FROM runs")
    }
    names = {id: names.get(id, "") for runs in traces.values() for id in runs}
    matching = [id for id, name in names.items() if chosen is None or chosen in (id, name)]
    if len(matching) != 1:
        known = ", ".join(f"{id} ({name})" for id, name in names.items()) or "none"
        raise InputError(
            f"{path} holds {len(names)} runs with traces", chosen or "no choice", known, f"{path}#RUN"
        )
    run = ScoredRun(path, "mlflow", "", names[matching[0]] or matching[0])
    for row in database.execute("SELECT * FROM trace_info ORDER BY request_id"):
        if matching[0] in traces.get(row["request_id"], ()):
            _add_trace(database, run, dict(row), matching[0])
    return run


def _runs_of_traces(database: sqlite3.Connection) -> dict[str, list[str]]:
    """The runs of each trace: the one that made it, and those that evaluated it later."""
    runs: dict[str, list[str]] = defaultdict(list)
    made = "SELECT request_id, value AS run FROM trace_request_metadata WHERE key = ?"
    for row in database.execute(made, (_RUN_OF_TRACE,)):
        runs[row["request_id"]].append(row["run"])
    if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'entity_associations'").fetchone():
        for row in database.execute(
            "SELECT source_id, destination_id FROM entity_associations "
            "WHERE source_type = 'trace' AND destination_type = 'run'"
        ):
            runs[row["source_id"]].append(row["destination_id"])
    return runs


def _add_trace(database: sqlite3.Connection, run: ScoredRun, trace: Mapping[str, Any], run_id: str) -> None:
    fields = {
        row["key"]: row["value"]
        for row in database.execute(
            "SELECT key, value FROM trace_request_metadata WHERE request_id = ?", (trace["request_id"],)
        )
    }
    asked = fields.get("mlflow.traceInputs") or trace.get("request_preview")
    if not asked:
        raise DataError(f"{run.path}: the trace {trace['request_id']} has no inputs to tell its item by")
    answer = fields.get("mlflow.traceOutputs") or trace.get("response_preview")
    item = run.item(_id(asked), text_of(asked), text_of(answer))
    item.failed = item.failed or trace["status"] == "ERROR"
    for each in database.execute("SELECT * FROM assessments WHERE trace_id = ?", (trace["request_id"],)):
        row = dict(each)
        metadata = json.loads(row.get("assessment_metadata") or "{}")
        is_of_run = metadata.get(_RUN_OF_ASSESSMENT, run_id) == run_id
        # A scorer that failed leaves an error and no value; corrected feedback is kept as no longer valid.
        has_value = row.get("valid", True) and row.get("error") is None
        if row.get("assessment_type", "feedback") == "feedback" and is_of_run and has_value:
            where = f"trace {trace['request_id']} in {run.path}"
            run.add(item, row["name"], json.loads(row["value"]), where)
