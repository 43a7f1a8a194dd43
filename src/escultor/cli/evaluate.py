"""`evaluate`: what a model scores on a suite, how fast it is, and what that costs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from escultor.cli.lookup import WHICH, WhichSuite, checked_model, find_suite, need_file
from escultor.cli.output import CommandResult, Shell, write_text
from escultor.ids import plain

if TYPE_CHECKING:
    from escultor.evaluate.served_model import ServedModel
    from escultor.skills.suites import EvaluationSuite
    from escultor.store import Store
    from escultor.types import Scores

KeyEnv = Annotated[
    str, typer.Option("--key-env", help="Which variable of the environment holds the server's key.")
]
KEY_ENV = "OPENAI_API_KEY"
LM_EVAL = "lm-eval:"


def evaluate(
    shell: Shell,
    model: Annotated[str, typer.Argument(help=f"{WHICH} With --url its name there.")],
    suite: WhichSuite = "trinity",
    url: Annotated[
        str | None, typer.Option("--url", help="Ask an OpenAI-compatible server, up to /v1, for the answers.")
    ] = None,
    key_env: KeyEnv = KEY_ENV,
    out: Annotated[Path | None, typer.Option("--out", help="Write the scores as JSON too.")] = None,
    keep: Annotated[
        bool, typer.Option("--store-scores/--no-store", help="Whether to record the scores in the store.")
    ] = True,
    again: Annotated[
        bool,
        typer.Option("--again", help="Measure although there are scores; only a server is asked anew."),
    ] = False,
) -> CommandResult:
    """Score a model on a suite: by default documents of packages that no model is trained on."""
    from escultor.cli.progress import LiveProgress
    from escultor.cycle import evaluation_service
    from escultor.store import open_store

    who = checked_model(shell, model) if url is None else _served(url, model, key_env)
    of_harness = suite.startswith(LM_EVAL)
    asked = need_file(Path(suite.removeprefix(LM_EVAL))) if of_harness else find_suite(shell, suite)
    with LiveProgress() as live, open_store(shell.config.store.url) if keep else nullcontext() as store:
        live.phase(f"evaluate {model}")
        if not isinstance(who, Path):
            measured, scores = evaluation_service.evaluate_endpoint(who, asked, store, live.note, again)
        elif isinstance(asked, Path):
            measured, scores = evaluation_service.evaluate_lm_eval_task(who, asked, shell.config, store)
        elif store is not None:
            measured = asked
            scores = evaluation_service.find_or_measure(
                store, who, asked, shell.config, live.note, again=again
            )
        else:
            measured = asked
            scores = evaluation_service.evaluate_folder(who, asked, shell.config, None, live.note).scores
    if out is not None:
        write_text(out, json.dumps(plain(scores), indent=1) + "\n")
    show_scores(shell, measured, scores)
    named = {"suite": measured.id, "items": measured.record.items, "clusters": measured.record.clusters}
    return CommandResult(
        {"scores": scores.id, "checkpoint": scores.checkpoint, **named, **means(scores), "out": out}
    )


# --- what other commands share ----------------------------------------------------------------


def _served(url: str, model: str, key_env: str) -> ServedModel:
    from escultor.evaluate.served_model import Endpoint, served_model

    return served_model(Endpoint(url, os.environ.get(key_env)), model)


def recorded_scores(
    shell: Shell, store: Store, folder: Path, suite: EvaluationSuite, again: bool = False
) -> Scores:
    """Recorded scores of these weights on this suite, or new ones, recorded."""
    from escultor.cli.progress import LiveProgress
    from escultor.cycle.evaluation_service import find_or_measure

    with LiveProgress() as live:
        live.phase(f"evaluate {folder} on {suite.record.name}")
        return find_or_measure(store, folder, suite, shell.config, live.note, again=again)


def means(scores: Scores) -> dict[str, float]:
    """The mean of every metric, and the figures that are not per item."""
    found = {name: sum(values) / len(values) for name, values in scores.metrics.items() if values}
    return found | scores.summary


def show_scores(shell: Shell, suite: EvaluationSuite, scores: Scores) -> None:
    """Every metric with its interval, then figures of the whole, speed and price."""
    from escultor.cli.speed import show_speeds
    from escultor.evaluate.speed import is_speed

    shell.table(
        ["Metric", "Mean", "95 % interval", "Better", "What it is"],
        [_metric(suite, scores, name) for name in scores.metrics],
        left=(0, 3, 4),
        title=f"{suite.record.name}: {suite.record.items:,} items in {suite.record.clusters:,} clusters",
    )
    rest = {k: v for k, v in scores.summary.items() if not is_speed(k)}
    if rest:
        shell.table(
            ["Of the whole suite", "Figure"], [(k.replace("_", " "), f"{v:.4g}") for k, v in rest.items()]
        )
    if "speed_requests" in scores.summary:
        show_speeds(shell, {"": scores.summary})


def _metric(suite: EvaluationSuite, scores: Scores, name: str) -> Sequence[str]:
    from escultor.skills.table import get_metric
    from escultor.stats import bootstrap_mean

    scale = scores.scales[name]
    least = -math.inf if scale.least is None else scale.least
    most = math.inf if scale.most is None else scale.most
    found = bootstrap_mean(scores.metrics[name], scores.clusters, 0.025, seed=0, floor=least, ceiling=most)
    metric = get_metric(suite.record.skill, name)
    better = "" if scale.better == "neither" else scale.better
    # Of a task of the harness the metrics are its own, whatever their names.
    about = metric.about if metric and suite.record.skill != LM_EVAL.rstrip(":") else ""
    return name, f"{found.value:.4f}", f"[{found.low:.4f}, {found.high:.4f}]", better, about
