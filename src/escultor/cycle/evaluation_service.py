"""From the name of a suite to the scores of a model on it, in the store where there is one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from escultor.config import Config
from escultor.errors import DataError, InputError
from escultor.skills.probes import PROBES, probe_exam
from escultor.skills.suites import EvaluationSuite, read_suite, register, registered
from escultor.store import Store
from escultor.types import Scores, Suite

if TYPE_CHECKING:
    from escultor.evaluate.cache import EvaluationCache
    from escultor.evaluate.latency_benchmark import LatencyBenchmark
    from escultor.evaluate.lm_eval.models import HarnessBackend
    from escultor.evaluate.predictions import NoteProgress
    from escultor.evaluate.scoring import EvaluationResult
    from escultor.evaluate.served_model import ServedModel

TRINITY = "trinity"


def exam_named(
    name: str, config: Config, cache: Path | None = None, store: Store | None = None
) -> EvaluationSuite:
    """A suite by its name: `trinity` (documents of packages never trained on; `cache` keeps what was
    mined), a built-in set of probes, a file, or the name or id of one registered in the store.

    Raises InputError where there is none of that name, DataError for a file that is no suite.
    """
    if name == TRINITY:
        from escultor.cycle.api import read_corpus
        from escultor.demo.suite import trinity_exam

        return trinity_exam(read_corpus(cache).held_out, config.evaluation)
    if name in PROBES:
        return probe_exam(name)
    if Path(name).is_file():
        return read_suite(Path(name))
    found = registered(store, name) if store is not None else None
    if found is None:
        kept = {suite.name for _, suite in store.log.read(Suite)} if store is not None else set()
        known = sorted({TRINITY, *PROBES, *kept})
        raise InputError(f"there is no suite `{name}`", allowed=f"a YAML or JSONL file, {', '.join(known)}")
    return found


def evaluated(
    folder: Path, exam: EvaluationSuite, config: Config, cache: Path | None, progress: NoteProgress
) -> EvaluationResult:
    """Scores of a model folder on a suite, and what they were made of."""
    from escultor.cycle.api import checkpoint_id
    from escultor.evaluate.scoring import evaluate
    from escultor.model.load import load

    price = config.serve.hourly_price_usd
    return evaluate(load(str(folder)), checkpoint_id(folder), exam, config.evaluation, price, cache, progress)


def recorded(
    store: Store,
    folder: Path,
    exam: EvaluationSuite,
    config: Config,
    progress: NoteProgress,
    again: bool = False,
) -> Scores:
    """The scores of these weights on this suite that were recorded last; where there are none, or
    `again`, or their speed is not of this price, batch and number of requests, new ones. They, the suite
    and the answers are in the store when this returns.

    Measuring again measures speed: what the model said once is not asked for a second time.
    """
    from escultor.cycle.api import checkpoint_id

    known = None if again else stored_scores(store, checkpoint_id(folder), exam.hash)
    if known is not None and _as_asked(known.summary, config):
        return known
    register(store, exam)
    return _kept(store, evaluated(folder, exam, config, store.root / "cache", progress))


def _as_asked(figures: Mapping[str, float], config: Config) -> bool:
    """Whether speed and price, where there are any, are those that the configuration asks for."""
    asked = {
        "hourly_price_usd": config.serve.hourly_price_usd,
        "speed_batch_size": float(config.evaluation.batch_size),
    }
    same = all(figures.get(name, value) == value for name, value in asked.items())
    return same and figures.get("speed_requests", math.inf) >= config.evaluation.speed_requests


def evaluated_task(
    folder: Path, task: Path, config: Config, store: Store | None
) -> tuple[EvaluationSuite, Scores]:
    """Scores of a model folder on the task of the evaluation harness that a file holds."""
    from escultor.cycle.api import checkpoint_id
    from escultor.evaluate.cache import memo_for
    from escultor.evaluate.lm_eval.models import LocalBackend
    from escultor.model.load import load

    asked = LocalBackend(load(str(folder)), checkpoint_id(folder), config.evaluation.batch_size)
    memo = memo_for(_cache(store), "lm-eval", asked.name, asked.batch_size)
    return _of_task(asked, task, memo, store)


def evaluated_at(
    served: ServedModel,
    suite: EvaluationSuite | Path,
    store: Store | None,
    progress: NoteProgress,
    again: bool = False,
) -> tuple[EvaluationSuite, Scores]:
    """Scores of a model behind a server on a suite, or on the task of the evaluation harness that a file
    holds. What it said once is not asked again, but with `again`: a name may come to mean another model.
    """
    from escultor.evaluate.cache import memo_of_others
    from escultor.evaluate.lm_eval.models import ServedBackend
    from escultor.evaluate.scoring import evaluate_served

    if isinstance(suite, Path):
        memo = memo_of_others(_cache(store, again), "lm-eval", served.name)
        return _of_task(ServedBackend(served), suite, memo, store)
    if store is not None:
        register(store, suite)
    memo = memo_of_others(_cache(store, again), suite.hash, served.name)
    return suite, _kept(store, evaluate_served(served, suite, memo, progress))


def _of_task(
    asked: HarnessBackend, task: Path, memo: EvaluationCache, store: Store | None
) -> tuple[EvaluationSuite, Scores]:
    """Scores on a task; they, its documents as a suite and the answers are kept where there is a store."""
    from escultor.evaluate.lm_eval.tasks import evaluate_task

    exam, done = evaluate_task(asked, task, memo)
    if store is not None:
        register(store, exam)
    return exam, _kept(store, done)


def _kept(store: Store | None, done: EvaluationResult) -> Scores:
    if store is not None:
        store.blobs.put_bytes(done.kept.to_bytes())
        if store.log.get(Scores, done.scores.id) is None:
            store.log.append(done.scores)
    return done.scores


def _cache(store: Store | None, again: bool = False) -> Path | None:
    return None if store is None or again else store.root / "cache"


def raced(
    folders: Sequence[Path], exam: EvaluationSuite, config: Config, progress: NoteProgress
) -> LatencyBenchmark:
    """How fast models answer the prompts of a suite, measured in turns on this machine."""
    from escultor.cycle.api import checkpoint_id
    from escultor.evaluate.latency_benchmark import LatencyBenchmark
    from escultor.evaluate.scoring import speeds_on
    from escultor.model.load import load

    loaded = [load(str(folder)) for folder in folders]
    speeds = speeds_on(loaded, exam, config.evaluation, progress)
    by_checkpoint = dict(zip(map(checkpoint_id, folders), speeds, strict=True))
    return LatencyBenchmark(exam.hash, exam.suite.items, config.serve.hourly_price_usd, by_checkpoint)


def timed_by(store: Store, scores: Scores, race: LatencyBenchmark) -> Scores:
    """Scores with the speed that was measured in turns in the place of their own; its requests are kept.

    Raises DataError where this checkpoint was not timed, or on other prompts.
    """
    from escultor.evaluate.predictions import Predictions, kept_of
    from escultor.evaluate.scoring import retimed

    speed = race.speeds.get(scores.checkpoint)
    if speed is None or race.suite != scores.suite:
        raise DataError(
            "the speed is that of other models, or on other prompts",
            f"checkpoints {', '.join(race.speeds)} on suite {race.suite}",
            f"checkpoint {scores.checkpoint} on suite {scores.suite}",
            "escultor speed, with the models and the suite of this comparison",
        )
    done = retimed(scores, kept_of(store.blobs, scores) or Predictions(()), speed, race.hourly_price_usd)
    store.blobs.put_bytes(done.kept.to_bytes())
    return done.scores


def stored_scores(store: Store, checkpoint: str, suite: str) -> Scores | None:
    """The scores of a checkpoint on a suite that were recorded last."""
    found = [s for _, s in store.log.read(Scores, target=checkpoint) if s.suite == suite]
    return found[-1] if found else None
