"""Results of promptfoo (`promptfoo eval --output results.json`): each test with each prompt and provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from escultor.errors import DataError, InputError
from escultor.evaluate.score_files.inputs import read_json
from escultor.evaluate.score_files.scored_run import ScoredRun, number, text_of
from escultor.ids import hash_value

_ERROR = 2  # the reason of a failure that no assertion judged


def read_promptfoo(path: Path, chosen: str | None) -> ScoredRun | None:
    """The results of one provider and prompt; None where the file holds none of promptfoo's.

    Where there are several columns, `chosen` is a provider (its id or label), the label of a prompt, or the
    number of a prompt from 0. A test that ended in an error has failed. Raises InputError where the choice
    leaves more than one column, or none.
    """
    rows = _rows(read_json(path)) if path.suffix == ".json" else None
    if rows is None:
        return None
    columns: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        prompt = row.get("promptIdx", row.get("promptId", _label(row)))  # the oldest versions number none
        columns.setdefault((str(prompt), _provider(row)[0]), []).append(row)
    matching = {
        key: each for key, each in columns.items() if chosen is None or chosen in _names(key, each[0])
    }
    if len(matching) != 1:
        names = ", ".join(f"{prompt} ({provider})" for prompt, provider in columns)
        what = f"{path} holds {len(columns)} columns of results"
        raise InputError(what, chosen or "no choice", names, f"{path}#PROVIDER, or the number of the prompt")
    ((prompt, provider), own) = next(iter(matching.items()))
    run = ScoredRun(path, "promptfoo", "", f"{provider}, prompt {prompt}")
    for row in own:
        _add(run, row)
    run.better = dict.fromkeys(run.metrics, "higher")
    return run


def _rows(data: Any) -> list[Mapping[str, Any]] | None:
    results = data.get("results") if isinstance(data, Mapping) else None
    rows = results.get("results") if isinstance(results, Mapping) else results
    is_one = isinstance(rows, list) and rows and all(isinstance(r, Mapping) and "success" in r for r in rows)
    return rows if is_one and isinstance(rows, list) else None


def _provider(row: Mapping[str, Any]) -> tuple[str, str]:
    provider = row.get("provider")
    if isinstance(provider, Mapping):
        return str(provider.get("id", "")), str(provider.get("label") or "")
    return str(provider or ""), ""


def _names(column: tuple[str, str], row: Mapping[str, Any]) -> set[str]:
    return {*column, _provider(row)[1], _label(row)} - {""}


def _label(row: Mapping[str, Any]) -> str:
    prompt = row.get("prompt")
    return str(prompt.get("label", "")) if isinstance(prompt, Mapping) else ""


def _add(run: ScoredRun, row: Mapping[str, Any]) -> None:
    variables = row.get("vars") or (row.get("testCase") or {}).get("vars") or {}
    variables = {k: v for k, v in variables.items() if not (k.startswith("_") or k == "sessionId")}
    number_ = row.get("testIdx")
    id = hash_value(variables) if variables else str(number_)
    if not variables and number_ is None:
        raise DataError(f"{run.path}: a result names no test", allowed="vars or testIdx")
    response = row.get("response")
    answer = text_of(response.get("output")) if isinstance(response, Mapping) else ""
    prompt = row.get("prompt")
    if variables:
        prompt = text_of(variables) if len(variables) == 1 else str(variables)
    elif isinstance(prompt, Mapping):
        prompt = prompt.get("raw")
    item = run.item(id, text_of(prompt), answer)
    where = f"the test {number_} in {run.path}"
    is_graded = isinstance(row.get("gradingResult"), Mapping)
    if row.get("failureReason") == _ERROR or (row.get("error") and not is_graded):
        item.failed = True
        return
    scores = {
        "success": row["success"],
        "score": row["success"] if row.get("score") is None else row["score"],
        **(row.get("namedScores") or {}),
    }
    for name, value in scores.items():
        item.values.setdefault(name, []).append(number(value, f"{name} of {where}"))
