"""Small files in the shapes that other evaluation tools write, made from scores by item."""

from __future__ import annotations

import csv
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

if sys.version_info >= (3, 14):
    import zipfile
else:
    from backports.zstd import zipfile

TIME = "2026-01-02T03-04-05.678901"


def lm_eval(folder: Path, values, task="sums", metric="acc", aggregate=None, higher=True) -> Path:
    """An output folder of lm-eval with one task."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "doc_id": number,
            "doc": {"q": f"question {item}"},
            "target": "yes",
            "arguments": {"gen_args_0": {"arg_0": f"question {item}", "arg_1": "yes"}},
            "resps": [[f"answer {value}"]],
            "filtered_resps": [f"answer {value}"],
            "filter": "none",
            "metrics": [metric],
            "doc_hash": f"{number:064x}",
            metric: value,
        }
        for number, (item, value) in enumerate(values.items())
    ]
    file = folder / f"samples_{task}_{TIME}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure = sum(values.values()) / len(values) if aggregate is None else aggregate
    results = {
        "results": {task: {"alias": task, f"{metric},none": figure, f"{metric}_stderr,none": 0.01}},
        "higher_is_better": {task: {metric: higher}},
        "model_name": folder.name,
        "config": {"model": "hf", "model_args": f"pretrained={folder.name}"},
    }
    (folder / f"results_{TIME}.json").write_text(json.dumps(results))
    return folder


def _inspect_parts(values, epochs):
    header = {"version": 2, "status": "success", "eval": {"task": "sums", "model": "m", "run_id": "r"}}
    words = {1.0: "C", 0.0: "I"}
    samples = [
        {
            "id": item,
            "epoch": epoch,
            "input": [{"role": "user", "content": f"question {item}"}],
            "target": "yes",
            "output": {"choices": [{"message": {"role": "assistant", "content": f"answer {value}"}}]},
            "scores": {"match": {"value": words.get(value, value), "answer": str(value)}},
        }
        for item, value in values.items()
        for epoch in range(1, epochs + 1)
    ]
    return header, samples


def inspect_zip(path: Path, values, epochs=1) -> Path:
    header, samples = _inspect_parts(values, epochs)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_ZSTANDARD) as archive:
        archive.writestr("_journal/start.json", json.dumps(header))
        archive.writestr("header.json", json.dumps(header))
        for sample in samples:
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
    return path


def inspect_json(path: Path, values, epochs=1) -> Path:
    header, samples = _inspect_parts(values, epochs)
    path.write_text(json.dumps(header | {"samples": samples}))
    return path


def promptfoo(path: Path, values, providers=("openai:gpt",)) -> Path:
    results = [
        {
            "promptIdx": index,
            "testIdx": number,
            "provider": {"id": provider, "label": ""},
            "prompt": {"raw": f"question {item}", "label": "p"},
            "vars": {"question": f"question {item}"},
            "response": {"output": f"answer {value}"},
            "success": value >= 0.5,
            "score": value,
            "namedScores": {},
            "gradingResult": {"pass": value >= 0.5, "score": value},
        }
        for index, provider in enumerate(providers)
        for number, (item, value) in enumerate(values.items())
    ]
    path.write_text(json.dumps({"evalId": "e", "results": {"version": 3, "prompts": [], "results": results}}))
    return path


def langfuse(path: Path, values, run="run") -> Path:
    """The API's answers for a dataset run and its scores, in one file."""
    items = [
        {"id": f"ri-{item}", "datasetRunName": run, "datasetItemId": item, "traceId": f"{run}-{item}"}
        for item in values
    ]
    scores = [
        {
            "id": f"s-{item}",
            "traceId": f"{run}-{item}",
            "name": "right",
            "value": value,
            "dataType": "NUMERIC",
        }
        for item, value in values.items()
    ]
    path.write_text(
        json.dumps({"name": run, "datasetRunItems": items, "scores": {"data": scores, "meta": {}}})
    )
    return path


def langfuse_folder(path: Path, values, run="run") -> Path:
    """Pages of `dataset-run-items` and of `v3/scores` (field `subject`), a file each."""
    path.mkdir(parents=True, exist_ok=True)
    items = [
        {"id": f"ri-{k}", "datasetRunName": run, "datasetItemId": k, "traceId": f"{run}-{k}"} for k in values
    ]
    subjects = [{"kind": "observation", "id": f"o-{k}", "traceId": f"{run}-{k}"} for k in values]
    scores = [
        {"name": "right", "dataType": "BOOLEAN", "value": v > 0.5, "subject": s}
        if v in (0, 1)
        else {"name": "right", "dataType": "NUMERIC", "value": v, "subject": s}
        for v, s in zip(values.values(), subjects, strict=True)
    ]
    half, pages = len(items) // 2, {"page": 1, "limit": 50, "totalItems": len(items), "totalPages": 2}
    lines = [{"data": items[:half], "meta": pages}, {"data": items[half:], "meta": pages | {"page": 2}}]
    (path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = [{"data": scores[:half], "meta": {"cursor": "b"}}, {"data": scores[half:], "meta": {}}]
    (path / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def langfuse_experiment(path: Path, values, run="run") -> Path:
    """The answer of `experiment-items` with the fields `dataset,io,scores`."""
    rows = [
        {"id": f"e-{k}", "traceId": f"{run}-{k}", "experimentName": run, "experimentItemId": k}
        | {"level": "DEFAULT", "experimentDatasetId": "d", "input": f"question {k}", "output": "answer"}
        | {"scores": [{"name": "right", "dataType": "NUMERIC", "value": v}]}
        for k, v in values.items()
    ]
    path.write_text(json.dumps({"data": rows, "meta": {}}))
    return path


def langfuse_traces(path: Path, values, run="run") -> Path:
    """The interface's export of traces as CSV: a column of lists for each score."""
    head = ("id", "timestamp", "name", "tags", "input", "output", "metadata", "right", "comments")
    rows = [
        (f"{run}-{k}", "2026-01-01T00:00:00Z", run, '["a"]', f"question {k}", "answer", "{}", f"[{v}]", "[]")
        for k, v in values.items()
    ]
    cells = (",".join('"' + str(cell).replace('"', '""') + '"' for cell in row) for row in (head, *rows))
    path.write_text("\n".join(cells) + "\n")
    return path


def mlflow_table(path: Path, values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = [[f"question {item}", f"answer {value}", value] for item, value in values.items()]
    path.write_text(json.dumps({"columns": ["inputs", "outputs", "right/v1/score"], "data": data}))
    return path


def mlflow_store(path: Path, runs) -> Path:
    """A tracking store with traces and assessments of several runs, `{name: values}`. Where a value is None
    the scorer failed."""
    tables = {
        "runs": "run_uuid, name",
        "trace_info": "request_id, status, request_preview",
        "trace_request_metadata": "request_id, key, value",
        "entity_associations": "source_type, source_id, destination_type, destination_id",
        "assessments": "trace_id, name, assessment_type, value, error, valid, assessment_metadata",
    }
    with closing(sqlite3.connect(path)) as database, database:
        for name, columns in tables.items():
            database.execute(f"CREATE TABLE {name} ({columns})")

        def insert(table: str, *row):
            database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)

        for run, values in runs.items():
            insert("runs", f"id-{run}", run)
            for item, value in values.items():
                trace = f"tr-{run}-{item}"
                insert("trace_info", trace, "OK", json.dumps({"question": f"question {item}"}))
                insert("trace_request_metadata", trace, "mlflow.sourceRun", f"id-{run}")
                error = None if value is not None else json.dumps({"error_code": "SCORER_ERROR"})
                made_by = json.dumps({"mlflow.assessment.sourceRunId": f"id-{run}"})
                insert("assessments", trace, "right", "feedback", json.dumps(value), error, 1, made_by)
                insert("assessments", trace, "x", "expectation", '"y"', None, 1, None)
    return path


def mlflow_evaluated_again(path: Path, run: str, values, again: str) -> None:
    """Another run of the store that evaluated the traces of `run`."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO runs VALUES (?, ?)", (f"id-{again}", again))
        made_by = json.dumps({"mlflow.assessment.sourceRunId": f"id-{again}"})
        for item, value in values.items():
            trace, to = f"tr-{run}-{item}", ("run", f"id-{again}")
            database.execute("INSERT INTO entity_associations VALUES ('trace', ?, ?, ?)", (trace, *to))
            row = (trace, "right", "feedback", json.dumps(value), None, 1, made_by)
            database.execute("INSERT INTO assessments VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def csv_file(path: Path, values, head=("item", "cluster", "metric", "value")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows([item, item, "right", value] for item, value in values.items())
    return path
