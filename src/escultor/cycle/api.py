"""The library: thin functions over the packages below. `from escultor import …` names the first five.

Everything heavy is imported when it is called, so that a program pays for what it uses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from escultor.config import Config, Gate, load_config
from escultor.cycle.checkpoints import keep_model
from escultor.errors import FaultError, InputError
from escultor.ids import new_id
from escultor.skills.suites import EvaluationSuite
from escultor.store import Store, open_store, registry, store_exists
from escultor.types import (
    Alert,
    Checkpoint,
    CycleState,
    Deployment,
    Feedback,
    GateContext,
    Health,
    Plan,
    Scores,
    Verdict,
)

if TYPE_CHECKING:
    from escultor.cycle.lifecycle import CycleRunner
    from escultor.cycle.workflow import Progress
    from escultor.store.cycles import RecordedCycle
    from escultor.store.leases import Lease

DAY_S = 86_400.0
PERIODS = {"daily": 1, "weekly": 7, "monthly": 30}  # in days
Since = Literal["daily", "weekly", "monthly"] | str | datetime | float | None
Settings = Config | Path | str | None


class EvolutionCycle:
    """The cycle of a skill: collect, convert, train, evaluate, gate, approve, try, promote or roll back.

    skill: one of the configured skills, default: the only one. Where none is configured, all feedback is
    learnt from. The other configured skills, which the model serves too, guard their primary metrics.
    """

    def __init__(self, config: Settings = None, progress: Progress | None = None, skill: str | None = None):
        self.config, self.progress, self.skill = settings_of(config), progress, skill

    def run(self, since: Since = None, suite: EvaluationSuite | Path | str | None = None) -> Verdict:
        """Train the champion on feedback given after `since` (None: on feedback that no promoted model has
        learnt from yet), and compare the result with it on `suite`. What the gate promotes is deployed at
        once in a store where nobody has the scope `approve`; elsewhere it waits for `decide`, unless
        `cycle.auto_approve` names the skill, and is tried among people first (`cycle.canary`). A cycle
        that was cut short goes on as it began, whatever is given here.

        suite: one by value, a file, a built-in set of probes, or the name or id of one registered in the
        store. None: that of the skill, else the one that the champion was last measured on.

        Raises InputError when there is no champion, no suite, or too little feedback, when another process is
        at work on the skill, and while a cycle of it waits for approval or is in its trial.
        """
        from escultor.cycle.evaluation_service import find_suite
        from escultor.cycle.lifecycle import begin, lease_of
        from escultor.store.cycles import GOES_ON, open_cycle

        begun, skill = parse_since(since), self._skill
        with open_store(self.config.store.url) as store, lease_of(store, skill) as lease:
            cycle = open_cycle(store, skill)
            if cycle is None or cycle.state not in GOES_ON:
                if suite is not None and not isinstance(suite, EvaluationSuite):
                    suite = find_suite(str(suite), store, self.config)
                id, who = new_id("cycle"), user_name()
                because = f"begun by {who}"
                cycle = begin(store, self.config, id, skill, because, by=who, since=begun, suite=suite)
            cycle = self._runner(store, lease).go_on(cycle)
            if (verdict := store.log.get(Verdict, cycle.verdict)) is None:
                raise FaultError("the cycle ended without a verdict", f"{cycle.state}: {cycle.last.reason}")
            return verdict

    def status(self) -> list[RecordedCycle]:
        """All cycles of the skill, the last one at the end."""
        from escultor.store.cycles import recorded_cycles

        with open_store(self.config.store.url) as store:
            return recorded_cycles(store, self._skill)

    def resume(self) -> RecordedCycle:
        """Take the open cycle as far as it can go now. Raises InputError where there is none."""
        with open_store(self.config.store.url) as store:
            return self._go_on(store, self._open(store))

    def decide(
        self, state: Literal["approved", "rejected"], key: str | None, reason: str = "by a person"
    ) -> RecordedCycle:
        """Approve or reject the waiting candidate with a person's key of the scope `approve`; an approved one
        goes into its trial. Raises InputError for any other key."""
        from escultor.cycle.lifecycle import decide

        with open_store(self.config.store.url) as store:
            cycle = decide(store, self._open(store, "waiting"), state, reason, key)
            return self._go_on(store, cycle) if cycle.is_open else cycle

    def cancel(self, reason: str, by: str | None = None) -> RecordedCycle:
        """End the open cycle and its trial. Raises InputError where there is none."""
        from escultor.cycle.lifecycle import cancel

        with open_store(self.config.store.url) as store:
            return cancel(store, self._open(store), reason, by or user_name())

    @property
    def _skill(self) -> str:
        from escultor.cycle.evaluation_service import skill_of_run

        return skill_of_run(self.config, self.skill) or ""

    def _open(self, store: Store, *states: CycleState) -> RecordedCycle:
        """The open cycle of the skill, which need not be configured any more; where none is named, the only
        open one, if there is one."""
        from escultor.store.cycles import recorded_cycles, require_open_cycle

        found = [cycle.skill for cycle in recorded_cycles(store, self.skill) if cycle.is_open]
        return require_open_cycle(store, found[0] if len(found) == 1 else self._skill, *states)

    def _go_on(self, store: Store, cycle: RecordedCycle) -> RecordedCycle:
        from escultor.cycle.lifecycle import lease_of
        from escultor.store.cycles import recorded_cycle

        with lease_of(store, cycle.skill) as lease:
            return self._runner(store, lease).go_on(recorded_cycle(store, cycle.id))

    def _runner(self, store: Store, lease: Lease) -> CycleRunner:
        from escultor.cycle.lifecycle import CycleRunner
        from escultor.cycle.workflow import Progress

        return CycleRunner(store, self.config, self.progress or Progress(), lease.check)


class FeedbackStore:
    """The feedback events of a store."""

    def __init__(self, url: str = "escultor-store"):
        self.url = url

    def get_feedback(self, since: Since = None) -> list[Feedback]:
        """All feedback since then, in the order it was recorded. Raises InputError when there is no store."""
        if not store_exists(self.url):
            raise InputError("there is no store to read", self.url, "an existing store")
        with open_store(self.url) as store:
            return _feedback(store, since)


class ProductionMonitor:
    """Health of the champion, alerts, and the plan that follows from them."""

    def __init__(self, config: Settings = None):
        self.config = settings_of(config)

    def check(
        self, since: Since = "daily", now: float | None = None
    ) -> tuple[Health, list[Alert], Plan | None]:
        """Health since then of the champion (where there is none, of the version that answers most), the
        alert of each rule and version, and a plan where one is due.

        Changes of state and plans are recorded, so that the next check knows of them. The rules look at the
        last four weeks, whatever `since` says. Raises InputError when there is no store, or nothing in it to
        watch.
        """
        from escultor.cycle.monitoring import watch_once

        until = time.time() if now is None else now
        begin = parse_since(since, until) or 0.0
        if not store_exists(self.config.store.url):
            raise InputError("there is no store to watch", self.config.store.url, "an existing store")
        with open_store(self.config.store.url) as store:
            found = watch_once(store, self.config, until, begin)
        return found.health, found.alerts, found.plan


def evaluate_model(
    model: str | Path,
    suite: EvaluationSuite | Path | str | None = None,
    config: Settings = None,
    progress: Callable[[str], None] = lambda text: None,
    cache: Path | None = None,
) -> Scores:
    """Scores of a model folder on a suite: its metrics per item; beside them latency, speed and cost.

    suite: one by value, a file, a built-in set of probes, or the name of a skill, or the name or id of one
    registered in the store of the configuration. None: that of the only skill there.
    cache: a folder in which the model's answers are kept and found again.

    Raises InputError where there is no suite of that name.
    """
    from contextlib import nullcontext

    from escultor.cycle.evaluation_service import default_suite, evaluate_folder, find_suite
    from escultor.model.folders import resolve

    settings, folder = settings_of(config), resolve(str(model))
    if not isinstance(suite, EvaluationSuite):
        url = settings.store.url
        with open_store(url) if store_exists(url) else nullcontext() as store:
            suite = (
                default_suite(store, settings) if suite is None else find_suite(str(suite), store, settings)
            )
    return evaluate_folder(folder, suite, settings, cache, progress).scores


def compare(
    champion: Scores,
    candidate: Scores,
    policy: Gate | None = None,
    seed: int = 0,
    context: GateContext | None = None,
) -> Verdict:
    """The gate's verdict on two models scored on one suite: its first analysis, unless `context` says
    otherwise. A policy without a primary metric takes the first of the scores.

    Raises DataError if they cannot be compared.
    """
    from escultor.evaluate.gate.decision import FIRST_ANALYSIS, decide

    return decide(champion, candidate, policy or Gate(), seed, context or FIRST_ANALYSIS)


# --- what the command line uses beside them ---------------------------------------------------


def promote(store: Store, folder: Path, because: str, by: str | None = None) -> tuple[Checkpoint, Deployment]:
    """Make a model folder the champion on a person's order; its files (and those of an adapter's base) are
    kept in the store.

    Raises InputError for an adapter whose base is not named by hash.
    """
    checkpoint = keep_model(store, folder)
    because = because if by is None else f"{because} (approved by {by})"
    deployment = registry.deployment_for(
        because, checkpoint.id, registry.current(registry.read_deployments(store.log))
    )
    store.log.append(deployment)
    return checkpoint, deployment


def rollback(store: Store, because: str | None = None) -> Deployment:
    """Bring the previous champion back. Raises InputError where there is none."""
    deployment = registry.rollback(registry.read_deployments(store.log), because)
    store.log.append(deployment)
    return deployment


def parse_since(since: Since, now: float | None = None) -> float | None:
    """Seconds since the epoch of a period back from now, an ISO date (UTC unless it says otherwise) or a
    datetime; None for None.

    Raises InputError for a text that is none of these.
    """
    if since is None or isinstance(since, int | float):
        return since
    if isinstance(since, datetime):
        return since.timestamp()
    if since in PERIODS:
        return (time.time() if now is None else now) - PERIODS[since] * DAY_S
    try:
        date = datetime.fromisoformat(since)
    except ValueError as error:
        raise InputError(
            "`since` cannot be read", repr(since), f"{', '.join(PERIODS)}, or a date such as 2026-01-31"
        ) from error
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def user_name() -> str:
    """The name of the user that this process belongs to, as the system knows it."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        return "a person"


def settings_of(config: Settings) -> Config:
    """A configuration as it is, from a file, or the defaults."""
    return config if isinstance(config, Config) else load_config(None if config is None else Path(config))


def _feedback(store: Store, since: Since) -> list[Feedback]:
    return [event for _, event in store.log.read(Feedback, since=parse_since(since))]
