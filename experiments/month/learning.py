"""The models of the month: the first one, a broken one, and what each arm makes of what people say."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from escultor.config import Config, load_config
from escultor.cycle.canary_service import CanaryService, first_stage, trial_stages
from escultor.cycle.checkpoints import keep_model, require_champion
from escultor.cycle.cycle_triggers import last_time
from escultor.cycle.daemon import CycleDaemon
from escultor.cycle.evolution import excluded_prompts
from escultor.cycle.live_metrics import live_metrics
from escultor.cycle.steps import CycleRun, evaluate_model, import_model, train_model
from escultor.cycle.workflow import Progress, Workflow
from escultor.demo.corpus import Corpus
from escultor.demo.run import CONFIG, MEASURED
from escultor.demo.suite import NAME, trinity_suite
from escultor.ids import hash_value
from escultor.model.folders import save
from escultor.model.load import load
from escultor.skills.suites import EvaluationSuite
from escultor.store import Store, open_store, registry
from escultor.store.cycles import open_cycle
from escultor.store.feedback import live
from escultor.types import CycleSchedule, Feedback, Interaction, Origin, Pair, Rating

FIRST_EXAMPLES = 5760
FIVE_POINTS = 0.05
MOST_PAIRS = 960  # that the steps of a cycle see; of more, those of the lowest hash
# Of accelerated time: latencies are those of a machine that is always full, so no rule reads them.
OVERRIDES = (
    "skills=[trinity]",
    "cycle.auto_approve=[trinity]",
    "cycle.cooldown_s=172800",
    "cycle.nice=0",  # traffic stands still while it trains
    "dpo.max_steps=60",
    "evaluation.speed_requests=1",
    "serve.follow_s=0.2",
    "serve.queue=1024",
    "monitor.thumbs_down_limit=0.6",
    "monitor.latency_p99_ms=1000000",
    "feedback.min_pairs=60",
    "feedback.min_unpaired=1000000",
    "canary.shares=[0.1, 0.5, 1.0]",
    "canary.guards={thumbs_down: 0.0, error: 0.0}",
    "canary.shadow_requests=0",
    "canary.stage_requests=20",
    "canary.stage_hours=6",
    "canary.min_hours=18",
    "canary.min_ratings=30",
    "canary.tuned_ratings=60",
    "canary.max_slow_share=1.0",
)


def month_config(hosted_url: str = "http://127.0.0.1:9/v1") -> Config:
    """The demonstration's configuration with what a month of one small service needs."""
    hosted = f"{{hosted: {{url: '{hosted_url}', model: hosted, retries: 0}}}}"
    more = (f"serve.upstreams={hosted}", "serve.models={hosted: [hosted]}")
    return load_config(CONFIG, (*OVERRIDES, *more))


def first_model(work: Path, corpus: Corpus, progress: Progress) -> Path:
    """The folder of the model of the first day: `first-model` in `work` where there is one, else
    escultor-base after SFT, as in the demonstration."""
    if (given := work / "first-model").is_dir():
        return given
    config = load_config(CONFIG)
    with open_store(str(work / "first")) as store:
        suite = trinity_suite(corpus.held_out, config.evaluation, MEASURED)
        run = CycleRun(Workflow(store, progress), config, suite)
        base = import_model(run, config.model.path, "base")
        trained = train_model(
            run,
            "sft",
            "sft",
            config.sft,
            corpus.examples(FIRST_EXAMPLES),
            parents=(base,),
            start=lambda: run.load(base),
        )
        return store.blobs.tree(str(trained["checkpoint"]))


def broken_model(work: Path, first: Path) -> Path:
    """The first model with the rows of its layers' matrices moved by one, as a conversion gone wrong leaves
    them: it loads, and answers nonsense."""
    import torch

    folder = work / "broken"
    if not folder.exists():
        loaded = load(str(first))
        with torch.no_grad():
            for name, weight in loaded.model.named_parameters():
                if weight.dim() == 2 and ".layers." in name:
                    weight.copy_(weight.roll(1, 0))
        save(loaded, folder)
    return folder


# --- Escultor -----------------------------------------------------------------------------------


@dataclass
class EscultorArm:
    """The daemon of the command line: schedule, monitor, cycle, gate, canary."""

    store: Store
    config: Config
    config_file: Path
    tell: Callable[[str], None]
    name = "escultor"

    def __post_init__(self) -> None:
        words = [sys.executable, "-m", "escultor", "cycle", "resume", "--limits", "--config"]
        words += [str(self.config_file), "--store", self.config.store.url, "--skill", NAME]
        self._daemon = CycleDaemon(self.store, self.config, lambda skill: words, self.tell)
        self._trial: CanaryService | None = None

    async def look(self, now: float, kill_after_s: float | None) -> bool:
        """What is due now, trained to its end. Whether the trainer was killed, which is done once, so many
        seconds after it was started."""
        self._daemon.tick(now)
        began, is_killed = time.monotonic(), False
        while (cycle := open_cycle(self.store, NAME)) is not None and cycle.state == "running":
            await asyncio.sleep(0.5)
            worker = self._daemon._workers.get(NAME)
            process = None if worker is None else worker.process
            if process is not None and process.poll() is None:
                if not is_killed and kill_after_s is not None and time.monotonic() - began > kill_after_s:
                    process.kill()
                    is_killed = True
                continue
            self._daemon.tick(now)
        self._daemon.tick(now)
        return is_killed

    def try_broken(self, folder: Path, now: float) -> bool:
        """A person puts the broken model into a trial by hand, without a comparison (False: another one is in
        progress)."""
        if trial_stages(registry.read_deployments(self.store.log)) or open_cycle(self.store, NAME):
            return False
        checkpoint = keep_model(self.store, folder)
        because = "canary: begun by a person, without a comparison"
        self.store.log.append(first_stage(self.store, self.config.canary, checkpoint.id, because, now))
        self._trial = CanaryService(self.store, self.config.canary, live_metrics(self.config.skills))
        return True

    def follow_trial(self, now: float) -> bool:
        """Analyse the trial that a person began; whether it goes on."""
        if self._trial is not None and self._trial.analyse(now).kind in ("rollback", "complete"):
            self._trial = None
        return self._trial is not None

    def stop(self) -> None:
        self._daemon.stop()


# --- what others ship ---------------------------------------------------------------------------


@dataclass
class RivalArm:
    """The same loop with another rule for labels and another for deploying."""

    store: Store
    config: Config
    name: str
    label: Callable[[Store, float], list[Pair]]
    deploys: Callable[[float], bool]  # of the difference in the means of the primary metric
    suite: EvaluationSuite
    tell: Callable[[str], None]
    _since: float = 0.0

    async def look(self, now: float, kill_after_s: float | None) -> bool:
        """Train where the schedule says so, compare the means, and deploy by the rule."""
        schedule = self.store.log.last(CycleSchedule)
        assert schedule is not None
        due = last_time(schedule, now)
        if due <= max(self._since, schedule.time):
            return False
        held_out = excluded_prompts(self.store, self.suite)
        pairs = [p for p in self.label(self.store, self._since) if hash_value(p.prompt) not in held_out]
        pairs = sorted(pairs, key=lambda p: p.id)[:MOST_PAIRS]
        self._since = now
        if len(pairs) < self.config.feedback.min_pairs:
            return False
        champion = require_champion(self.store)
        run = CycleRun(Workflow(self.store), self.config, self.suite)
        result = train_model(
            run,
            "evolution",
            "dpo",
            self.config.dpo,
            pairs,
            parents=(champion,),
            start=lambda: run.load(champion),
        )
        self.offer(str(result["checkpoint"]), now)
        return False

    def offer(self, candidate: str, now: float) -> None:
        """Deploy a candidate where the rule says so."""
        champion, run = require_champion(self.store), CycleRun(Workflow(self.store), self.config, self.suite)
        metric = self.config.gate.primary[0]
        means = []
        for checkpoint, name in ((champion, "champion"), (candidate, "candidate")):
            values = evaluate_model(run, checkpoint, name).metrics[metric]
            means.append(sum(values) / len(values))
        if promoted := self.deploys(means[1] - means[0]):
            current = registry.current(registry.read_deployments(self.store.log))
            because = f"{self.name}: {means[0]:.3f} to {means[1]:.3f}"
            self.store.log.append(registry.deployment_for(because, candidate, current, now=now))
        self.tell(f"{self.name}: {means[0]:.3f} to {means[1]:.3f}, {'deployed' if promoted else 'left'}")

    def try_broken(self, folder: Path, now: float) -> bool:
        """There is no trial among people: the broken model goes through the same rule as any candidate."""
        self.offer(keep_model(self.store, folder).id, now)
        return True

    def follow_trial(self, now: float) -> bool:
        return False

    def stop(self) -> None:
        pass


def both_thumbs(store: Store, since: float) -> list[Pair]:
    """Of each prompt with thumbs both ways since then, the answer with the most net votes over the one with
    the least."""
    return [
        _pair(prompt, best, worst)
        for prompt in _voted(store, since)
        for best, worst in [(prompt[0], prompt[-1])]
        if best.net > 0 > worst.net
    ]


def every_pair(store: Store, since: float) -> list[Pair]:
    """Every answer that somebody liked over every answer to its prompt that somebody did not, of all time."""
    return [
        _pair(prompt, best, worst)
        for prompt in _voted(store, 0.0)
        for best in prompt
        for worst in prompt
        if best.up and worst.down and best.row.answer != worst.row.answer
    ]


@dataclass
class _Voted:
    row: Interaction
    up: int
    down: int
    events: list[str]

    @property
    def net(self) -> int:
        return self.up - self.down


def _voted(store: Store, since: float) -> list[list[_Voted]]:
    """The answers with thumbs since then, by prompt, the best first."""
    events = [e for _, e in store.log.read(Feedback, since=since) if isinstance(e, Rating)]
    found: dict[str, _Voted] = {}
    for event in live(events).values():
        assert isinstance(event, Rating)
        if event.target not in found:
            if (row := store.log.get(Interaction, event.target)) is None:
                continue
            found[event.target] = _Voted(row, 0, 0, [])
        voted = found[event.target]
        voted.up, voted.down = voted.up + bool(event.value), voted.down + (not event.value)
        voted.events.append(event.id)
    by_prompt: dict[str, list[_Voted]] = defaultdict(list)
    for voted in found.values():
        by_prompt[voted.row.prompt_hash].append(voted)
    return [sorted(each, key=lambda v: (-v.net, v.row.id)) for _, each in sorted(by_prompt.items())]


def _pair(prompt: Sequence[_Voted], best: _Voted, worst: _Voted) -> Pair:
    parents = (best.row.id, worst.row.id, *best.events, *worst.events)
    id = hash_value(["rival pair", best.row.id, worst.row.id])
    chosen, rejected = best.row.answer, worst.row.answer
    return Pair(id, best.row.messages, chosen, rejected, Origin(parents, "rival/1"))


RIVALS: dict[str, tuple[Any, Callable[[float], bool]]] = {
    "both thumbs, five points": (both_thumbs, lambda gain: gain >= -FIVE_POINTS),
    "everything, always": (every_pair, lambda gain: True),
}
NO_LOOP = "no loop"
ARMS = (EscultorArm.name, *RIVALS, NO_LOOP)
