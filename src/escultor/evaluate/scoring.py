"""The scores of a model on a suite: one number per item and metric, and figures of speed and cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from escultor.code_closure import code_version
from escultor.config import Evaluation
from escultor.errors import DataError
from escultor.evaluate.cache import EvaluationCache, open_cache
from escultor.evaluate.predictions import (
    NEEDS_WEIGHTS,
    NoteProgress,
    Predictions,
    metric_needs,
    model_outputs,
    served_outputs,
    tokenized_prompts,
)
from escultor.evaluate.scores import seal_scores
from escultor.evaluate.served_model import ServedModel
from escultor.evaluate.speed import (
    Speed,
    Timing,
    is_speed,
    measure_speeds,
)
from escultor.ids import hash_bytes
from escultor.model.loaded import Loaded, count_parameters
from escultor.skills.suites import EvaluationSuite
from escultor.skills.table import Metric, ModelOutput, whole_figures
from escultor.types import Scores, SuiteItem

NULL_ANSWERS = "null_answers"  # the figure that counts the answers that a server did not send


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Scores and the predictions behind them; `scores.answers` is the hash of `predictions.to_bytes()`."""

    scores: Scores
    predictions: Predictions


def evaluate(
    loaded: Loaded,
    checkpoint: str,
    suite: EvaluationSuite,
    settings: Evaluation,
    hourly_price_usd: float,
    *,
    cache: Path | None = None,
    progress: NoteProgress = lambda text: None,
) -> EvaluationResult:
    """Run a model on the items of a suite and score its outputs; measure its speed on the prompts where the
    settings ask for a number of requests.

    With a `cache` folder nothing is computed twice: outputs of these weights for this suite are read from it,
    and an evaluation that was killed goes on. Figures that belong to model and machine, or to the suite as a
    whole, are in `Scores.summary` (`Speed.figures`, `skills.table.whole_figures`).
    """
    checkpoint, code = suite.subject(checkpoint), code_version("escultor.evaluate.predictions")
    stored = open_cache(cache, code, checkpoint, suite.id, settings.batch_size)
    outputs = model_outputs(loaded, suite, settings.batch_size, stored, progress)
    if settings.speed_requests is None:
        figures = {"parameters": float(count_parameters(loaded.model))}
        return _score(suite, checkpoint, outputs, figures, ())
    progress("measuring speed")
    (speed,) = measure_speeds_on([loaded], suite, settings.speed_requests, settings.batch_size, progress)
    return _score(suite, checkpoint, outputs, speed.figures(hourly_price_usd), speed.requests)


def evaluate_served(
    served: ServedModel,
    suite: EvaluationSuite,
    cache: EvaluationCache,
    progress: NoteProgress = lambda text: None,
) -> EvaluationResult:
    """Score the answers of a server to the items of a suite. Its speed is not measured: it would include the
    network.

    Raises DataError where a metric needs more of a model than answers, UpstreamFault where the server fails.
    """
    if names := [name for name in suite.record.metrics if metric_needs(suite, name) & NEEDS_WEIGHTS]:
        raise DataError(
            f"a server is asked for answers alone, and {', '.join(names)} need more",
            f"suite {suite.record.name}",
            "metrics of the answer",
            "evaluate the model itself, or leave these metrics out of the suite",
        )
    outputs = served_outputs(served, suite, cache, progress)
    nulls = sum(output.is_null for item_outputs in outputs for output in item_outputs)
    return _score(suite, suite.subject(served.name), outputs, {NULL_ANSWERS: float(nulls)}, ())


def _score(
    suite: EvaluationSuite,
    checkpoint: str,
    outputs: Sequence[tuple[ModelOutput, ...]],
    figures: dict[str, float],
    requests: tuple[Timing, ...],
) -> EvaluationResult:
    """Scores of all outputs of every item, and figures of the suite as a whole."""
    alone = [name for name in suite.record.metrics if name not in suite.of_two_answers()]
    metrics = {name: _item_scores(suite, name, outputs) for name in alone}
    flat = [output for item_outputs in outputs for output in item_outputs]
    items = [item for item, item_outputs in zip(suite.items, outputs, strict=True) for _ in item_outputs]
    answers = tuple(tuple(o.whole for o in each) for each in outputs)
    extracted = tuple(tuple(o.answer for o in each) for each in outputs) if suite.record.extract else ()
    predictions = Predictions(answers, requests, extracted)
    summary = figures | whole_figures(flat, items, tuple(suite.record.metrics))
    return make_result(suite, checkpoint, metrics, summary, predictions)


def _item_scores(
    suite: EvaluationSuite, name: str, outputs: Sequence[tuple[ModelOutput, ...]]
) -> tuple[float, ...]:
    """A metric of every item: the mean over the suite's seeds."""
    metric = suite.metric(name)
    if metric is None:  # a suite registered by another version of the program
        raise DataError(f"the suite `{suite.record.name}` has a metric that this version does not know", name)
    means = []
    for item_outputs, item in zip(outputs, suite.items, strict=True):
        values = [_null_score(metric, o, item) if o.is_null else metric.score(o, item) for o in item_outputs]
        mean = math.fsum(values) / len(values)
        if not math.isfinite(mean):
            raise DataError(f"{name} of item {item.id!r} is no finite number", mean)
        means.append(mean)
    return tuple(means)


def _null_score(metric: Metric, output: ModelOutput, item: SuiteItem) -> float:
    """The worst score of the metric's scale: 0 of a share; that of an empty text where there is no worst."""
    worst = {"higher": metric.scale.least, "lower": metric.scale.most}.get(metric.scale.better)
    return metric.score(output, item) if worst is None else worst


def make_result(
    suite: EvaluationSuite,
    checkpoint: str,
    metrics: dict[str, tuple[float, ...]],
    summary: dict[str, float],
    predictions: Predictions,
) -> EvaluationResult:
    """Scores of one checkpoint on one suite, with their predictions."""
    labels = sorted(suite.items[0].labels)
    scores = Scores(
        id="",
        checkpoint=checkpoint,
        suite=suite.id,
        items=tuple(item.id for item in suite.items),
        clusters=suite.clusters,
        metrics=metrics,
        summary=summary,
        scales=dict(suite.record.metrics),
        slices={name: tuple(item.labels[name] for item in suite.items) for name in labels},
        answers=hash_bytes(predictions.to_bytes()),
    )
    return EvaluationResult(seal_scores(scores), predictions)


# --- speed ------------------------------------------------------------------------------------


def measure_speeds_on(
    models: Sequence[Loaded],
    suite: EvaluationSuite,
    requests: int,
    batch_size: int,
    progress: NoteProgress = lambda text: None,
) -> list[Speed]:
    """The speed of each model on the prompts of a suite, measured alternately."""
    return measure_speeds(
        models,
        [tokenized_prompts(loaded, suite) for loaded in models],
        suite.record.decoding,
        requests=requests,
        batch_size=batch_size,
        progress=progress,
    )


def with_speed(
    scores: Scores, predictions: Predictions, speed: Speed, hourly_price_usd: float
) -> EvaluationResult:
    """Scores whose figures of speed are replaced by those of `speed`, under a new id."""
    summary = {name: value for name, value in scores.summary.items() if not is_speed(name)}
    summary |= speed.figures(hourly_price_usd)
    predictions = replace(predictions, requests=speed.requests)
    answers = hash_bytes(predictions.to_bytes())
    return EvaluationResult(seal_scores(replace(scores, summary=summary, answers=answers)), predictions)
