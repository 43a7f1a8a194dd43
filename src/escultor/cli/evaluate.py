"""`evaluate`: a model's scores on a suite, its speed, and its cost."""

from __future__ import annotations

import json
import math
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from escultor.cli import lookup
from escultor.cli.output import CommandResult, Shell, write_text
from escultor.cli.progress import LiveProgress
from escultor.cli.speed import show_speeds
from escultor.config import Config
from escultor.cycle import evaluation_service
from escultor.cycle.evaluation_service import find_or_measure
from escultor.errors import InputError
from escultor.evaluate.lm_eval.task_code import refuse_code
from escultor.evaluate.predictions import NoteProgress
from escultor.evaluate.served_model import Endpoint, ServedModel, served_model
from escultor.ids import plain
from escultor.skills.suites import EvaluationSuite
from escultor.stats import bootstrap_mean
from escultor.store import Store
from escultor.types import Scores

LM_EVAL = "lm-eval"


@dataclass(frozen=True)
class ServerOptions:
    """The options of a model behind a server."""

    url: Annotated[str | None, Option(help="OpenAI-compatible server of the model; ends in /v1.")] = None
    key_env: lookup.KeyEnvOption = lookup.KEY_ENV


def evaluate(
    shell: Shell,
    server: ServerOptions,
    model: Annotated[
        str, Argument(help=f"{lookup.MODEL_HELP} A GGUF file. With --url the name on that server.")
    ],
    suite: lookup.SuiteOption = None,
    trust_task: Annotated[bool, Option("--trust-task", help="Run the code of a lm-eval task.")] = False,
    out: Annotated[Path | None, Option(help="Write the scores as JSON too.")] = None,
    keep: Annotated[bool, Option("--store-scores/--no-store", help="Record the scores, or do not.")] = True,
    again: Annotated[bool, Option("--again", help="Measure again; only a server is asked anew.")] = False,
) -> CommandResult:
    """Score a model on a suite: by default that of the only skill."""
    target = _target(shell, server, model)
    prefix, colon, task = (suite or "").partition(":")
    is_task = prefix == LM_EVAL and colon
    chosen = lookup.require_file(Path(task)) if is_task else lookup.find_suite(shell, suite)
    if isinstance(chosen, Path) and not trust_task:
        refuse_code(chosen)
    with LiveProgress() as live, lookup.open_or_create_store(shell) if keep else nullcontext() as store:
        live.phase(f"evaluate {model}")
        measured, scores = _measure(
            target, chosen, shell.config, store, live.note, again=again, trust_task=trust_task
        )
    if out is not None:
        write_text(out, json.dumps(plain(scores), indent=1) + "\n")
    show_scores(shell, measured, scores)
    counts = {"items": measured.record.items, "clusters": measured.record.clusters}
    ids = {"scores": scores.id, "checkpoint": scores.checkpoint, "suite": measured.id}
    return CommandResult({**ids, **counts, **mean_figures(scores), "out": out})


def _target(shell: Shell, server: ServerOptions, model: str) -> Path | ServedModel:
    """The model's folder, the GGUF file of its name, or the model behind a server."""
    if server.url is not None:
        return served_model(Endpoint(server.url, os.environ.get(server.key_env)), model)
    return lookup.find_gguf(model) or lookup.checked_model(shell, model)


def _measure(
    target: Path | ServedModel,
    chosen: EvaluationSuite | Path,
    config: Config,
    store: Store | None,
    note: NoteProgress,
    *,
    again: bool,
    trust_task: bool,
) -> tuple[EvaluationSuite, Scores]:
    """What was measured, and the scores of a model on a suite, or on the task of lm-eval in a file."""
    if not isinstance(target, Path):
        return evaluation_service.evaluate_endpoint(target, chosen, store, note, again, trust_task=trust_task)
    if target.is_file():
        if isinstance(chosen, Path):
            raise InputError("a GGUF file is not measured on tasks of lm-eval", chosen, "a suite")
        return evaluation_service.evaluate_gguf(target, evaluation_service.of_answers(chosen), store, note)
    if isinstance(chosen, Path):
        return evaluation_service.evaluate_lm_eval_task(target, chosen, config, store, trust_task)
    if store is None:
        return chosen, evaluation_service.evaluate_folder(target, chosen, config, None, note).scores
    return chosen, find_or_measure(store, target, chosen, config, note, again=again)


def recorded_scores(
    shell: Shell, store: Store, target: Path | ServedModel, suite: EvaluationSuite, config: Config
) -> Scores:
    """Recorded scores on this suite of these weights (a folder, or a GGUF file that llama.cpp serves), of a
    served model those of the answers in the cache; or new ones, which are then recorded."""
    with LiveProgress() as live:
        live.phase(f"evaluate {getattr(target, 'name', target)} on {suite.record.name}")
        return _measure(target, suite, config, store, live.note, again=False, trust_task=False)[1]


def mean_figures(scores: Scores) -> dict[str, float]:
    """The mean of every metric, and the figures of the suite as a whole."""
    means = {name: sum(values) / len(values) for name, values in scores.metrics.items() if values}
    return means | scores.summary


def show_scores(shell: Shell, suite: EvaluationSuite, scores: Scores) -> None:
    """Print every metric with its interval, then figures of the whole suite, speed and cost."""
    from escultor.evaluate.speed import is_speed

    shell.table(
        ["Metric", "Mean", "95 % interval", "Better", "What it is"],
        [_metric_row(suite, scores, name) for name in scores.metrics],
        left=(0, 3, 4),
        title=f"{suite.record.name}: {suite.record.items:,} items in {suite.record.clusters:,} clusters",
    )
    rest = [(k.replace("_", " "), f"{v:.4g}") for k, v in scores.summary.items() if not is_speed(k)]
    if rest:
        shell.table(["Of the whole suite", "Figure"], rest)
    if "speed_requests" in scores.summary:
        show_speeds(shell, {"": scores.summary})


def _metric_row(suite: EvaluationSuite, scores: Scores, name: str) -> tuple[str, ...]:
    scale = scores.scales[name]
    floor = -math.inf if scale.least is None else scale.least
    ceiling = math.inf if scale.most is None else scale.most
    mean = bootstrap_mean(scores.metrics[name], scores.clusters, 0.025, seed=0, floor=floor, ceiling=ceiling)
    # The metrics of a task of lm-eval are its own, whatever their names.
    metric = None if suite.record.skill == LM_EVAL else suite.metric(name)
    better = "" if scale.better == "neither" else scale.better
    interval = f"[{mean.low:.4f}, {mean.high:.4f}]"
    return name, f"{mean.value:.4f}", interval, better, metric.about if metric else ""
