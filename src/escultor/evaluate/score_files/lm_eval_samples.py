"""Sample logs of lm-evaluation-harness (`--log_samples`): one JSON line per document and filter, or a list
of them before 0.4.3, in a file named after the model's arguments and the task.

Beside them lies `results_*.json`, with each metric's aggregate and direction. The direction belongs to the
aggregate; it holds for the documents' values where the aggregate is their mean, which is checked.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from escultor.errors import DataError, InputError
from escultor.evaluate.score_files.scored_run import ScoredRun, number, text_of

_SAMPLES = re.compile(r"samples_(?P<task>.+?)(?:_(?P<time>\d{4}-\d\d-\d\dT[\d\-.:]+))?\.jsonl")
# Metrics of the harness whose value per document is better when higher, for logs without their results.
HIGHER = frozenset(
    (
        *(
            "acc",
            "acc_norm",
            "acc_mutual_info",
            "exact_match",
            "em",
            "f1",
            "mc1",
            "mc2",
            "pass@1",
        ),
        *("brier_skill", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "rougeLsum", "mcc"),
        *("prompt_level_strict_acc", "inst_level_strict_acc"),
        *("prompt_level_loose_acc", "inst_level_loose_acc"),
    )
)
# How a model was asked, beyond the task.
_CONDITIONS = ("gen_kwargs", "chat_template_sha", "system_instruction_sha", "fewshot_as_multiturn")
MEAN_TOLERANCE = 1e-6  # relative


def read_lm_eval(path: Path, chosen: str | None) -> ScoredRun | None:
    """The run in a samples file, or of a task in an output folder; None where the path is neither.

    Raises InputError where a folder holds several tasks and none is chosen, DataError for damaged logs.
    """
    if path.is_dir():
        files = _files_by_task(path)
        if not files:
            return None
        if chosen is None and len(files) > 1:
            first = sorted(files)[0]
            raise InputError(
                f"{path} holds {len(files)} tasks", ", ".join(sorted(files)), "one of them", f"{path}#{first}"
            )
        if chosen is not None and chosen not in files:
            raise InputError(f"{path} holds no such task", chosen, ", ".join(sorted(files)))
        task = chosen or next(iter(files))
        runs = files[task]
        if len(folders := {each.parent for each in runs}) > 1:
            names = ", ".join(sorted(str(each) for each in folders))
            raise InputError(f"{path} holds runs of {len(folders)} models", task, names, "name one of them")
        path = runs[-1]
    elif (task := _task_of(path)) is None:
        return None
    else:
        runs = [path]
    results = _results(path, task)
    run = ScoredRun(path, "lm-eval", task, _model_of(results, path))
    if len(runs) > 1:
        run.notes.append(f"{path.parent.name}: the last of {len(runs)} runs of {task} counts")
    for line, row in enumerate(_lines(path), 1):
        _add(run, row, f"{path}, line {line}")
    _set_directions(run, results, task)
    found, counts = len(run.items), _of_task(results, "n-samples", task)
    if counts and (many := counts.get("effective", found)) != found:
        raise DataError(f"{path} has not all documents of the run", found, many, "log them again")
    for name, key in (("few-shot examples", "n-shot"), ("version of the task", "versions")):
        if (value := _of_task(results, key, task)) is not None:
            run.settings[name] = str(value)
    config = results.get("config")
    for key in _CONDITIONS:
        of_run = results.get(key, config.get(key) if isinstance(config, Mapping) else None)
        if of_run not in (None, "", False):
            run.conditions[key.removesuffix("_sha")] = str(of_run)
    return run


def _of_task(results: Mapping[str, Any], key: str, task: str) -> Any:
    part = results.get(key)
    return part.get(task) if isinstance(part, Mapping) else None


def _files_by_task(folder: Path) -> dict[str, list[Path]]:
    """The samples files of each task of a folder, the newest last."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        if (task := _task_of(path)) is not None:
            named = _SAMPLES.fullmatch(path.name)
            found.setdefault(task, []).append(((named and named["time"]) or "", path))
    return {task: [path for _, path in sorted(each)] for task, each in found.items()}


def _task_of(path: Path) -> str | None:
    """The task whose samples a file holds, by its name; before 0.4.3 by the results beside it too."""
    if named := _SAMPLES.fullmatch(path.name):
        return named["task"]
    beside = path.with_name("results.json")
    if path.suffix != ".jsonl" or not beside.is_file():
        return None
    tasks = [task for task in _results_in(beside)["results"] if path.stem.endswith(f"_{task}")]
    return max(tasks, key=len, default=None)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON", str(error)[:80]) from error


def _results_in(path: Path) -> Mapping[str, Any]:
    """What a results file holds; nothing where it is none."""
    content = _json(path)
    is_one = isinstance(content, dict) and isinstance(content.get("results"), dict)
    return content if is_one else {"results": {}}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        if file.read(1) == b"[":
            file.seek(0)
            yield from (_sample(row, path, number_) for number_, row in enumerate(_json(path), 1))
            return
        file.seek(0)
        for number_, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{path}, line {number_} is no JSON", str(error)[:80]) from error
                yield _sample(row, path, number_)


def _sample(row: Any, path: Path, number_: int) -> dict[str, Any]:
    if not isinstance(row, dict) or "doc_id" not in row:
        raise DataError(f"{path}, line {number_} is no sample of lm-eval", allowed="an object with doc_id")
    return row


def _add(run: ScoredRun, row: Mapping[str, Any], where: str) -> None:
    names = row.get("metrics")
    if not isinstance(names, list):
        names = [key for key, value in row.items() if key in HIGHER and isinstance(value, int | float)]
    filter_name = row.get("filter", "none")
    id = (
        f"{row['doc_id']}-{row['doc_hash'][:12]}"
        if isinstance(row.get("doc_hash"), str)
        else str(row["doc_id"])
    )
    answers = row.get("filtered_resps") or row.get("resps") or [""]
    item = run.item(id, _prompt(row), text_of(answers[0] if isinstance(answers, list) else answers))
    for name in names:
        metric = str(name) if filter_name == "none" else f"{name},{filter_name}"
        value = row.get(name)
        if metric in item.values:
            raise DataError(f"{where}: document {row['doc_id']} is there twice", remedy="one run a file")
        if isinstance(value, int | float):
            item.values.setdefault(metric, []).append(number(value, f"{metric} in {where}"))
        elif (
            note := f"{metric} is left out: what its documents log is no score of one document"
        ) not in run.notes:
            run.notes.append(note)


def _prompt(row: Mapping[str, Any]) -> str:
    arguments = row.get("arguments")
    if isinstance(arguments, Mapping):
        first = next(iter(arguments.values()), None)
        return str(first.get("arg_0", "")) if isinstance(first, Mapping) else ""
    while isinstance(arguments, list) and arguments:
        arguments = arguments[0]
    return arguments if isinstance(arguments, str) else ""


def _results(path: Path, task: str) -> Mapping[str, Any]:
    """The results file of the same run; empty where there is none."""
    time = (_SAMPLES.fullmatch(path.name) or {"time": None})["time"]
    named = path.with_name(f"results_{time}.json")
    files = [named] if named.is_file() else sorted(path.parent.glob("results*.json"))[-1:]
    for file in files:
        results = _results_in(file)
        if task in results["results"]:
            return results
    return {}


def _model_of(results: Mapping[str, Any], path: Path) -> str:
    config = results.get("config") or {}
    name = results.get("model_name") or (config.get("model_args") if isinstance(config, Mapping) else None)
    return text_of(name) if isinstance(name, str) else path.parent.name


def _set_directions(run: ScoredRun, results: Mapping[str, Any], task: str) -> None:
    """State the direction of each metric whose aggregate is the mean of the documents' values; of another
    aggregate neither direction holds per document, as of perplexity, whose documents log a likelihood."""
    figures = results.get("results", {}).get(task, {})
    stated = results.get("higher_is_better", {}).get(task, {})
    values: dict[str, list[float]] = defaultdict(list)
    for item in run.items.values():
        for metric, each in item.values.items():
            values[metric] += each
    for metric, each in values.items():
        name, _, filter_name = metric.partition(",")
        aggregate = figures.get(f"{name},{filter_name or 'none'}", figures.get(name))
        if isinstance(aggregate, int | float):
            mean = math.fsum(each) / len(each)
            if not math.isclose(mean, aggregate, rel_tol=MEAN_TOLERANCE, abs_tol=MEAN_TOLERANCE):
                run.better[metric] = "neither"
                run.notes.append(
                    f"{metric} decides nothing: its aggregate {aggregate:.6g} is not the mean of the "
                    f"documents' values, {mean:.6g}, so that its direction does not hold for them"
                )
                continue
            if isinstance(stated.get(name), bool):
                run.better[metric] = "higher" if stated[name] else "lower"
                continue
        if name in HIGHER:
            run.better[metric] = "higher"
