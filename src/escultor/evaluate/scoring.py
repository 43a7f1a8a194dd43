"""What a model scores on a suite: one number per item and metric."""

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
    needs_of,
    observe,
    observe_served,
    prompts_of,
)
from escultor.evaluate.served_model import ServedModel
from escultor.evaluate.speed import (
    FEWEST_FOR_P99,
    UNASKED_BUDGET_S,
    UNASKED_REQUESTS,
    Speed,
    Timing,
    is_speed,
    measure_speeds,
)
from escultor.ids import hash_bytes, hash_value
from escultor.model.loaded import Loaded
from escultor.skills.suites import EvaluationSuite
from escultor.skills.table import ModelOutput, get_metric, whole_figures
from escultor.types import Scores, SuiteItem


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Scores, and what they were made of; `scores.answers` is the hash of `kept.to_bytes()`."""

    scores: Scores
    kept: Predictions


def evaluate(
    loaded: Loaded,
    checkpoint: str,
    suite: EvaluationSuite,
    settings: Evaluation,
    hourly_price_usd: float,
    cache: Path | None = None,
    progress: NoteProgress = lambda text: None,
) -> EvaluationResult:
    """Answer and read the items of a suite, score them, and measure the model's speed on them.

    With a `cache` folder nothing is answered twice: what was said of this suite by these weights is
    found again, and an evaluation that was killed goes on. Figures that belong to model and machine, or
    to the suite as a whole, stand in `Scores.summary` (`Speed.figures`, `skills.table.whole_figures`).
    """
    code = code_version("escultor.evaluate.predictions")
    memo = open_cache(cache, code, checkpoint, suite.id, settings.batch_size)
    seen = observe(loaded, suite, settings.batch_size, memo, progress)
    progress("measuring speed")
    (speed,) = speeds_on([loaded], suite, settings, progress)
    figures = speed.figures(hourly_price_usd)
    if settings.speed_requests is None and len(speed.requests) < FEWEST_FOR_P99:
        figures = {name: value for name, value in figures.items() if "_p99_" not in name}
    return _scored(suite, checkpoint, seen, figures, speed.requests)


def evaluate_served(
    served: ServedModel,
    suite: EvaluationSuite,
    memo: EvaluationCache,
    progress: NoteProgress = lambda text: None,
) -> EvaluationResult:
    """Ask a server the items of a suite and score its answers; no speed, which would be the network's too.

    Raises DataError where a metric needs more of a model than answers, UpstreamFault where it fails.
    """
    if more := [name for name in suite.record.metrics if needs_of(suite, name) & NEEDS_WEIGHTS]:
        raise DataError(
            f"a server is asked for answers alone, and {', '.join(more)} need more",
            f"suite {suite.record.name}",
            "metrics of the answer",
            "evaluate the model itself, or leave these metrics out of the suite",
        )
    return _scored(suite, served.name, observe_served(served, suite, memo, progress), {}, ())


def _scored(
    suite: EvaluationSuite,
    who: str,
    seen: Sequence[tuple[ModelOutput, ...]],
    figures: dict[str, float],
    requests: tuple[Timing, ...],
) -> EvaluationResult:
    """Scores of what was seen of every item, and of the suite as a whole."""
    metrics = {name: _of_items(suite, name, seen) for name in suite.record.metrics}
    each = [s for said in seen for s in said]
    repeated = [item for item, said in zip(suite.items, seen, strict=True) for _ in said]
    kept = Predictions(tuple(tuple(s.answer for s in said) for said in seen), requests)
    summary = figures | whole_figures(each, repeated, tuple(suite.record.metrics))
    return EvaluationResult(scores_of(suite, who, metrics, summary, hash_bytes(kept.to_bytes())), kept)


def speeds_on(
    models: Sequence[Loaded],
    suite: EvaluationSuite,
    settings: Evaluation,
    progress: NoteProgress = lambda text: None,
) -> list[Speed]:
    """How fast each model answers the prompts of a suite, measured alternately.

    Where the settings ask for no number of requests, there are no more than the suite has items, in requests
    as in a batch, and the time is limited.
    """
    prompts = [prompts_of(loaded, suite) for loaded in models]
    asked, items = settings.speed_requests, len(suite.items)
    return measure_speeds(
        models,
        prompts,
        suite.record.decoding,
        requests=asked or min(items, UNASKED_REQUESTS),
        batch_size=settings.batch_size if asked else min(items, settings.batch_size),
        progress=progress,
        budget_s=math.inf if asked else UNASKED_BUDGET_S,
    )


def retimed(scores: Scores, answers: Predictions, speed: Speed, hourly_price_usd: float) -> EvaluationResult:
    """Scores whose speed was measured anew: other figures, and so another id."""
    summary = {name: value for name, value in scores.summary.items() if not is_speed(name)}
    summary |= speed.figures(hourly_price_usd)
    kept = Predictions(answers.answers, speed.requests)
    id = hash_value([scores.checkpoint, scores.suite, scores.metrics, summary])
    return EvaluationResult(
        replace(scores, id=id, summary=summary, answers=hash_bytes(kept.to_bytes())), kept
    )


def scores_of(
    suite: EvaluationSuite,
    checkpoint: str,
    metrics: dict[str, tuple[float, ...]],
    summary: dict[str, float],
    answers: str | None,
) -> Scores:
    """Scores of one checkpoint on one suite. Latency differs from one measurement to the next, so the id
    is that of all figures."""
    decided = [checkpoint, suite.id, metrics, summary]
    return Scores(
        hash_value(decided),
        checkpoint,
        suite.id,
        tuple(item.id for item in suite.items),
        suite.clusters,
        metrics,
        summary,
        dict(suite.record.metrics),
        {name: tuple(item.labels[name] for item in suite.items) for name in sorted(suite.items[0].labels)},
        answers,
    )


def _of_items(
    suite: EvaluationSuite, name: str, seen: Sequence[tuple[ModelOutput, ...]]
) -> tuple[float, ...]:
    """A metric of every item: the mean over the suite's seeds."""
    metric = get_metric(suite.record.skill, name)
    if metric is None:  # a suite registered by another version of the program
        raise DataError(f"the suite `{suite.record.name}` measures what this version does not know", name)

    def one(said: Sequence[ModelOutput], item: SuiteItem) -> float:
        value = math.fsum(metric.score(each, item) for each in said) / len(said)
        if not math.isfinite(value):
            raise DataError(f"{name} of item {item.id!r} is no finite number", value)
        return value

    return tuple(one(said, item) for said, item in zip(seen, suite.items, strict=True))
