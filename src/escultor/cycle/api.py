"""The loop as a library: thin functions over the rooms below. `from escultor import …` names the first five.

Everything heavy is imported when it is called, so that a program pays for what it uses.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from escultor.config import Config, Gate, load_config
from escultor.errors import InputError
from escultor.ids import code_hash
from escultor.store import Store, open_store, registry
from escultor.types import (
    Alert,
    Checkpoint,
    Deployment,
    Feedback,
    GateContext,
    Health,
    Interaction,
    Plan,
    Scores,
    Verdict,
)

if TYPE_CHECKING:
    from escultor.cycle.workflow import Progress
    from escultor.demo.corpus import Corpus
    from escultor.skills.suites import EvaluationSuite

DAY_S = 86_400.0
PERIODS = {"daily": 1, "weekly": 7, "monthly": 30}  # in days
Since = Literal["daily", "weekly", "monthly"] | str | datetime | float | None
Settings = Config | Path | str | None


class EvolutionCycle:
    """One turn of the loop that starts from feedback: collect, convert, train, validate, gate, deploy."""

    def __init__(self, config: Settings = None, progress: Progress | None = None):
        self.config, self.progress = settings_of(config), progress

    def run(self, since: Since = None) -> Verdict:
        """Train the champion on what people said since then; deploy the result if it is promoted. Without
        `since`: on what no promoted model has learnt from yet.

        Raises InputError when there is no champion or too little feedback.
        """
        from escultor.cycle.evaluation_service import exam_named
        from escultor.cycle.evolution import evolve, material_since
        from escultor.cycle.steps import CycleRun
        from escultor.cycle.workflow import Progress, Workflow

        with open_store(self.config.store.url) as store:
            exam = exam_named("trinity", self.config, store.root / "cache")
            turn = CycleRun(Workflow(store, self.progress or Progress()), self.config, exam)
            return evolve(turn, "evolution", material_since(turn, moment(since))).verdict


class FeedbackStore:
    """What people made of the answers, read from a store."""

    def __init__(self, url: str = "escultor-store"):
        self.url = url

    def get_feedback(self, since: Since = None) -> list[Feedback]:
        """All feedback since then, in the order it was recorded."""
        with open_store(self.url) as store:
            return _feedback(store, since)


class ProductionMonitor:
    """How the champion fares, what is alarming, and what to run because of it."""

    def __init__(self, config: Settings = None):
        self.config = settings_of(config)

    def check(
        self, since: Since = "daily", now: float | None = None
    ) -> tuple[Health, list[Alert], Plan | None]:
        """Health of the champion since then, one alert per rule, and a plan where one is due.

        All three are recorded, so that the next check knows of the plan. Raises InputError when there is
        no champion.
        """
        from escultor.monitor.metrics import fold, health
        from escultor.monitor.rules import alerts
        from escultor.monitor.triggers import plan

        until = time.time() if now is None else now
        with open_store(self.config.store.url) as store:
            version = registry.champion(deployments(store))
            if version is None:
                raise InputError("there is no champion to watch", remedy="run `escultor promote MODEL`")
            begin = moment(since, until) or 0.0
            last = store.log.last(Plan)
            feedback = _feedback(store, begin)
            calls = [i for _, i in store.log.read(Interaction, since=begin)]
            found = health(version, fold(calls, feedback), begin, until)
            fired = alerts(found, self.config.monitor, until)
            rows = self._new_pairs(store, begin if last is None else max(begin, last.time), until)
            due = plan(fired, last, rows, self.config.monitor, until)
            store.log.append(found, *fired, *([due] if due else []))
        return found, fired, due

    def _new_pairs(self, store: Store, since: float, now: float) -> int:
        """Pairs that a turn could learn from: something about them was said since then and no promoted model
        has learnt from it; held-out prompts do not count, as they do not enter."""
        from escultor.cycle.evaluation_service import exam_named
        from escultor.cycle.evolution import consumed, held_out
        from escultor.feedback.conversion import convert
        from escultor.feedback.selection import SelectionQuery

        exam = exam_named("trinity", self.config, store.root / "cache")
        asked = SelectionQuery(now, consumed(store), since, held_out(store, exam))
        return convert(store, self.config.feedback, asked).rows["pair"]


def evaluate_model(
    model: str | Path,
    suite: EvaluationSuite | Path | str = "trinity",
    config: Settings = None,
    progress: Callable[[str], None] = lambda text: None,
    cache: Path | None = None,
) -> Scores:
    """Scores of a model folder on a suite (default: documents of packages never trained on).

    Per item: what the suite measures; beside that latency, speed and cost. `suite` is one, a file, or the
    name of one that is built in. With a `cache` folder what was once said is not asked for again.
    """
    from escultor.cycle.evaluation_service import evaluated, exam_named
    from escultor.model.folders import resolve

    settings, folder = settings_of(config), resolve(str(model))
    exam = exam_named(str(suite), settings, cache) if isinstance(suite, str | Path) else suite
    return evaluated(folder, exam, settings, cache, progress).scores


def compare(
    champion: Scores,
    candidate: Scores,
    policy: Gate | None = None,
    seed: int = 0,
    around: GateContext | None = None,
) -> Verdict:
    """The gate's verdict on two models scored on one suite, as a first look unless `around` says otherwise.

    Raises DataError if they cannot be compared.
    """
    from escultor.evaluate.gate.decision import NOTHING, decide

    return decide(champion, candidate, policy or Gate(), seed, around or NOTHING)


# --- what the command line uses beside them ---------------------------------------------------


def promote(store: Store, folder: Path, because: str) -> tuple[Checkpoint, Deployment]:
    """Make a model folder the champion on a person's order; its files are kept in the store, of an adapter
    its base's too.

    Raises InputError for an adapter that does not say by hash what its base is.
    """
    checkpoint = keep_model(store, folder)
    deployment = registry.deployment_for(because, checkpoint.id, registry.current(deployments(store)))
    store.log.append(deployment)
    return checkpoint, deployment


def keep_model(store: Store, folder: Path) -> Checkpoint:
    """Keep a model folder's files in the store and record what is known of it; of an adapter its base first.

    Raises InputError for an adapter that does not say by hash what its base is.
    """
    from escultor.model.folders import base_folder, base_hash, is_adapter

    base: tuple[str, ...] = ()
    if is_adapter(folder):
        below = base_folder(folder)
        if base_hash(folder) is None:
            remedy = "merge it first: escultor merge"
            raise InputError(f"the adapter in {folder} does not say by hash what its base is", remedy=remedy)
        base = (keep_model(store, below).id,)
    tree = store.blobs.put_tree(folder)
    checkpoint = store.log.get(Checkpoint, tree) or _checkpoint(tree, folder, base)
    store.log.append(checkpoint)
    return checkpoint


def rollback(store: Store, because: str | None = None) -> Deployment:
    """Bring the previous champion back. Raises InputError where there is none."""
    deployment = registry.rollback(deployments(store), because)
    store.log.append(deployment)
    return deployment


def deployments(store: Store) -> list[Deployment]:
    """All deployments, the first one first."""
    return [deployment for _, deployment in store.log.read(Deployment)]


def checkpoint_id(folder: Path) -> str:
    """The id that a model folder has, or would have, in a store."""
    from escultor.store.blobs import tree_hash

    return tree_hash(folder)


def read_corpus(cache: Path | None = None) -> Corpus:
    """The documentation of the installed packages, split; without a cache it is read anew."""
    from tempfile import TemporaryDirectory

    from escultor.demo import corpus

    with _folder(cache, TemporaryDirectory) as folder:
        return corpus.read_corpus(folder)


def moment(since: Since, now: float | None = None) -> float | None:
    """Seconds since the epoch: of a period back from now, an ISO date, a datetime; None: the beginning."""
    if since is None or isinstance(since, int | float):
        return since
    if isinstance(since, datetime):
        return since.timestamp()
    if since in PERIODS:
        return (time.time() if now is None else now) - PERIODS[since] * DAY_S
    try:
        return datetime.fromisoformat(since).timestamp()
    except ValueError as error:
        raise InputError(
            "`since` cannot be read", repr(since), f"{', '.join(PERIODS)}, or a date such as 2026-01-31"
        ) from error


def settings_of(config: Settings) -> Config:
    """A configuration as it is, from a file, or the defaults."""
    return config if isinstance(config, Config) else load_config(None if config is None else Path(config))


@contextmanager
def _folder(cache: Path | None, temporary: Callable[..., Any]) -> Iterator[Path]:
    if cache is not None:
        yield cache
        return
    with temporary(prefix="escultor-") as name:
        yield Path(name)


def _feedback(store: Store, since: Since) -> list[Feedback]:
    return [event for _, event in store.log.read(Feedback, since=moment(since))]


def _checkpoint(tree: str, folder: Path, base: tuple[str, ...]) -> Checkpoint:
    """What is known of a model (an adapter has a `base`): all, where its run's record lies beside it."""
    from escultor.model.load import load
    from escultor.model.loaded import count_parameters
    from escultor.train.filenames import ADAPTER, MODEL, RECORD

    parameters = count_parameters(load(str(folder)).model)
    record = folder.parent / RECORD
    if folder.name not in (MODEL, ADAPTER) or not record.is_file():
        return Checkpoint(tree, folder.name, "import", base, "", "", code_hash(), 0, parameters)
    run = json.loads(record.read_text(encoding="utf-8"))
    return Checkpoint(
        tree,
        folder.parent.absolute().name,
        run["phase"],
        tuple(dict.fromkeys((*base, *run["parents"]))),
        run["config_hash"],
        run["dataset_hash"],
        run["code_version"],
        run["seed"],
        parameters,
    )
