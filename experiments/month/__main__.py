"""A month in minutes: the whole system on an accelerated clock, beside what others ship at equal calls.

    python experiments/month [--calls 20000] [--seeds 5] [--arms "escultor;no loop"] [--write]

Four weeks of one small service. People with tastes that differ ask for Trinities; in week two tastes and
topics shift, in week three one person gives 30 % of the votes to mislead, in week four a hosted model behind
the same gateway fails for ten hours, and somebody puts broken weights into a trial by hand. The gateway is
killed at random (SIGKILL), and so is the trainer. Everything runs as the command line runs it; only the clock
is shared and moved by hand. Finished months are kept in the folder: the same command goes on where it ended.

Prints one JSON object last; `--write` puts the table and the picture into docs/.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import measure
import yaml
from learning import ARMS, NO_LOOP, RIVALS, EscultorArm, RivalArm, broken_model, first_model, month_config
from people import AFTER_DRIFT, BEGIN, CALENDAR, DAY_S, DAYS, day_of
from report import write_documents
from service import GatewayProcess, SharedClock, start_hosted_model
from traffic import Traffic

from escultor.config import Config
from escultor.cycle.api import promote
from escultor.cycle.cycle_triggers import set_schedule
from escultor.cycle.workflow import Progress
from escultor.demo.corpus import Corpus, read_corpus
from escultor.demo.run import MEASURED
from escultor.demo.suite import NAME, trinity_suite
from escultor.rng import stream
from escultor.skills.suites import register
from escultor.store import Store, open_store, registry
from escultor.store.cycles import recorded_cycles
from escultor.types import Verdict

LOOKS_A_DAY = 4  # of the daemon; a trial begun by hand is looked at every hour
GATEWAY_KILLS, TRAINER_KILLS = 7, 3
ROOT = Path(__file__).parents[2]


class Told(Progress):
    """Progress on stderr with the time left, by the pace of the calls and of the months that are done."""

    def __init__(self, months: int, calls: int):
        self.months, self.calls, self.done_calls = months, calls, 0
        self.name, self.began = "", 0.0

    def note(self, text: str) -> None:
        print(f"  {text[:160]}", file=sys.stderr, flush=True)

    def phase(self, name: str) -> None:
        self.note(name)

    def begin(self) -> None:
        """The first call comes: what was done before says nothing of the pace."""
        self.began = self.began or time.monotonic()

    def day(self, made: int) -> None:
        taken, total = time.monotonic() - self.began, self.months * self.calls
        known = self.done_calls + made
        left = taken / known * (total - known) if known else 0.0
        where = f"day {made / self.calls * DAYS:.1f} of {DAYS}, {made:,} calls"
        print(f"{self.name}: {where}, {left / 60:.0f} min left", file=sys.stderr, flush=True)


async def live(
    arm_name: str, seed: int, calls: int, *, work: Path, corpus: Corpus, hosted: str, told: Told
) -> dict[str, Any]:
    """One month of one arm; its figures."""
    folder = work / f"{arm_name.replace(' ', '-').replace(',', '')}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    clock = SharedClock(folder / "clock")
    config = month_config(hosted)
    config = config.model_copy(
        update={"store": config.store.model_copy(update={"url": str(folder / "store")})}
    )
    config_file = folder / "month.yaml"
    config_file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    first = first_model(work, corpus, told)
    suite = trinity_suite(corpus.held_out, config.evaluation, MEASURED)
    with open_store(config.store.url) as store:
        checkpoint, _ = promote(store, first, "the first model")
        register(store, suite)
        set_schedule(store, NAME, CALENDAR.schedule, clock.now())
        if arm_name == EscultorArm.name:
            arm: Any = EscultorArm(store, config, config_file, told.note)
        else:
            label, deploys = RIVALS[arm_name]
            arm = RivalArm(store, config, arm_name, label=label, deploys=deploys, suite=suite, tell=told.note)
        gateway = GatewayProcess(config_file, folder / "store", folder / "gateway.log")
        draw = stream(seed, "kills")
        kills = draw.sample(range(calls // 20, calls), GATEWAY_KILLS) if arm_name == EscultorArm.name else []
        sampling = {"temperature": config.serve.temperature, "max_tokens": config.serve.max_new_tokens}
        traffic = Traffic(
            gateway,
            clock,
            golds=sorted(corpus.traffic, key=lambda g: g.id),
            calls=calls,
            seed=seed,
            kill_at=frozenset(kills),
            sampling=sampling,
        )
        try:
            gateway.start()
            await gateway.wait()
            trainer_kills = await _weeks(arm, traffic, store, broken_model(work, first), told=told, draw=draw)
        finally:
            arm.stop()
            gateway.stop()
        return figures(store, traffic, config, corpus, work=work, first=checkpoint.id) | {
            "arm": arm_name, "seed": seed, "calls": calls, "kills": gateway.kills + trainer_kills
        }  # fmt: skip


async def _weeks(
    arm: Any, traffic: Traffic, store: Store, broken: Path, *, told: Told, draw: random.Random
) -> int:
    """Traffic and looks in turns; how often the trainer was killed."""
    trainer_kills, is_tried, in_trial, shown = 0, False, False, -1

    told.begin()
    for hour in range(DAYS * 24):
        now = BEGIN + (hour + 1) * DAY_S / 24
        if (hour + 1) % (24 // LOOKS_A_DAY) and not in_trial:
            continue
        await traffic.reach(round((hour + 1) / (DAYS * 24) * traffic.calls))
        traffic.clock.set(now)
        if in_trial:
            in_trial = arm.follow_trial(now)
        if (hour + 1) % (24 // LOOKS_A_DAY) == 0:
            may_kill = arm.name == EscultorArm.name and trainer_kills < TRAINER_KILLS
            trainer_kills += await arm.look(now, draw.uniform(2.0, 30.0) if may_kill else None)
            if not is_tried and day_of(now) >= CALENDAR.broken_candidate:
                is_tried = in_trial = arm.try_broken(broken, now)
        current = registry.current(registry.read_deployments(store.log))
        await traffic.gateway.wait(current.id if current else None)
        if shown != (shown := int(day_of(now))):
            told.day(traffic.made)
    await traffic.finish()
    return trainer_kills


def figures(
    store: Store, traffic: Traffic, config: Config, corpus: Corpus, *, work: Path, first: str
) -> dict[str, Any]:
    """What the month came to."""
    suite = trinity_suite(corpus.held_out, config.evaluation, MEASURED)
    golds = measure.held_out(corpus, suite)
    deployments = registry.read_deployments(store.log)

    def approval(checkpoint: str) -> list[float]:
        met = measure.tastes_of(store.blobs.tree(checkpoint), golds, config, work)
        return measure.approval(met, AFTER_DRIFT)

    champions = [(day_of(d.time), d.aliases[registry.CHAMPION], d.because) for d in deployments]
    before, after = approval(first), approval(champions[-1][1])
    broken = measure.tree_hash(work / "broken")
    weeks = [next(c for day, c, _ in reversed(champions) if day <= 7 * week) for week in range(1, 5)]
    cycles = []
    for cycle in recorded_cycles(store):
        verdict = store.log.get(Verdict, cycle.verdict)
        outcome = type(verdict).__name__ if verdict else ""
        cycles.append([day_of(cycle.last.time), cycle.state, outcome, cycle.last.reason[:200]])
    return {
        "gain": measure.gain(before, after, golds),
        "start": measure.interval(before, golds),
        "end": measure.interval(after, golds),
        "weeks": [measure.interval(approval(c), golds)["value"] for c in weeks],
        "deployments": [[day, c[:10], measure.interval(approval(c), golds)["value"], why[:120]]
                        for day, c, why in champions],
        "cycles": cycles,
        "liked by day": {day: c["liked"] / c["answers"] for day, c in sorted(traffic.served.items())},
        "answers": len(traffic.answers), "feedback": len(traffic.feedback),
        "votes of the poisoner": len(traffic.poisoned), "failed calls": len(traffic.failed),
        "training": measure.training_rows(store, traffic.poisoned),
        "outage": measure.outage(store),
        "broken": measure.broken_trial(store, broken),
        "lost": measure.lost(store, traffic.answers, traffic.feedback),
    }  # fmt: skip


def no_loop(seed: int, work: Path, corpus: Corpus, told: Told) -> dict[str, Any]:
    """The first model for a month: nothing depends on the calls."""
    config = month_config()
    golds = measure.held_out(corpus, trinity_suite(corpus.held_out, config.evaluation, MEASURED))
    met = measure.tastes_of(first_model(work, corpus, told), golds, config, work)
    values = measure.approval(met, AFTER_DRIFT)
    found = measure.interval(values, golds)
    gain = measure.gain(values, values, golds)
    return {
        "arm": NO_LOOP,
        "seed": seed,
        "start": found,
        "end": found,
        "gain": gain,
        "weeks": [found["value"]] * 4,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", default=";".join(ARMS), help="with semicolons between them")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "month")
    parser.add_argument("--write", action="store_true", help="docs/experiments/month.md and docs/month.svg")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the gateway ends, too
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    work: Path = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    corpus = read_corpus(work / "cache")
    wanted = [(arm, seed) for seed in range(asked.seeds) for arm in asked.arms.split(";")]
    results, missing = {}, []
    for arm, seed in wanted:
        kept = work / "results" / f"{arm}-{seed}-{asked.calls}.json"
        if kept.exists():
            results[arm, seed] = json.loads(kept.read_text())
        else:
            missing.append((arm, seed, kept))
    told = Told(sum(arm != NO_LOOP for arm, _, _ in missing), asked.calls)
    hosted = start_hosted_model()
    for arm, seed, kept in missing:
        told.name = f"{arm}, seed {seed}"
        if arm == NO_LOOP:
            found = no_loop(seed, work, corpus, told)
        else:
            month = live(arm, seed, asked.calls, work=work, corpus=corpus, hosted=hosted, told=told)
            found = asyncio.run(month)
            told.done_calls += asked.calls
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(found, indent=1))
        results[arm, seed] = found
    if asked.write:
        write_documents(list(results.values()), ROOT / "docs")
    print(json.dumps(list(results.values())))


if __name__ == "__main__":
    main()
