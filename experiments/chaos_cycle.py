"""One whole cycle of a tiny model (trained, judged, approved by a person, in shadow, tried among people,
promoted), killed (SIGKILL) at random moments until it has been killed often enough, beside the same cycle
undisturbed: the same hashes, one deployment, nothing lost, nothing left over. A second process stores answers
and feedback of another skill meanwhile and is killed as well: what it was told is durable must be there.

    python experiments/chaos_cycle.py --kills 60 --seed 0

Processes are forked from one that has imported everything, so that kills fall into the work and not into
imports. The last line is a JSON object; `equal` says whether everything held.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "cycle"), str(ROOT / "tests")]

from cycle_store import config_at, fill  # noqa: E402

from escultor import EvolutionCycle  # noqa: E402
from escultor.config import Config  # noqa: E402
from escultor.cycle.canary_service import trial_stages  # noqa: E402
from escultor.serve.auth import create  # noqa: E402
from escultor.store import open_store, registry  # noqa: E402
from escultor.store.cycles import recorded_cycles  # noqa: E402
from escultor.store.feedback import THUMB  # noqa: E402
from escultor.store.garbage import collect  # noqa: E402
from escultor.types import Feedback, Interaction, Rating, Scope, Step, Verdict  # noqa: E402

TRIAL = {
    "shares": (0.5, 1.0),
    "shadow_requests": 8,
    "stage_requests": 10,
    "stage_hours": 0.0,
    "min_ratings": 10,
    "min_hours": 0.0,
}
ENDS = ("promoted", "rolled_back", "not_promoted", "rejected", "cancelled", "superseded", "failed")
FORK = multiprocessing.get_context("fork")


def settings(folder: Path) -> Config:
    return config_at(folder, canary=TRIAL)


def go_on(folder: Path, key: str) -> None:
    """From any state of the store to the next: computed; approved and deployed; one look at the trial."""
    turn, state = EvolutionCycle(settings(folder)), state_of(folder)
    if state in ("nothing", "running"):
        turn.run()
    elif state == "waiting":
        turn.decide("approved", key)
    else:
        answer_in_trial(folder)
        turn.resume()


def state_of(folder: Path) -> str:
    with open_store(str(folder / "store")) as store:
        cycles = recorded_cycles(store)
    return cycles[-1].state if cycles else "nothing"


def answer_in_trial(folder: Path) -> None:
    """Ten people get an answer of each arm in the stage of the trial in progress, and rate it."""
    with open_store(str(folder / "store")) as store:
        stages = trial_stages(registry.read_deployments(store.log))
        if not stages:
            return
        stage, (_, row) = stages[-1], next(store.log.read(Interaction))
        is_shadow = len(stage.shares) == 1
        for n in range(10):
            for alias in (registry.CHAMPION, registry.CANDIDATE):
                id, who = f"{stage.id}-{alias}-{n}", f"{alias}-{n}"
                arm = "shadow" if is_shadow and alias == registry.CANDIDATE else alias
                when, version = stage.time + n / 1e6, stage.aliases[alias]
                given = replace(row, id=id, subject=who, version=version, arm=arm, time=when)
                liked = Rating(f"fb-{id}", when, id, who, name=THUMB, value=True)
                store.log.append(given, *([] if arm == "shadow" else [liked]))


def serve_others(folder: Path, told: Path, rounds: int) -> None:
    """Store answers and thumbs of another skill for ever, and note each id once it is durable."""
    with open_store(str(folder / "store")) as store, told.open("a") as notes:
        _, row = next(store.log.read(Interaction))
        for n in range(10**9):
            id = f"other-{rounds}-{n}"
            given = replace(row, id=id, skill="another", subject="somebody", time=time.time(), version="v")
            store.log.append(
                given, Rating(f"fb-{id}", time.time(), id, "somebody", name=THUMB, value=n % 3 == 0)
            )
            notes.write(f"{id}\n")
            notes.flush()
            time.sleep(0.02)


def ending(folder: Path, told: Path) -> dict[str, Any]:
    """What must be equal: the model, its verdict, the deployments, and what people said."""
    with open_store(str(folder / "store")) as store:
        cycles = recorded_cycles(store)
        collect(store, now=time.time() + 2 * 86_400)
        left = collect(store, now=time.time() + 2 * 86_400, dry_run=True)
        verdict = store.log.get(Verdict, cycles[-1].verdict)
        assert verdict is not None
        deployments = registry.read_deployments(store.log)
        champions = [each.aliases[registry.CHAMPION] for each in deployments]
        acknowledged = told.read_text().split() if told.exists() else []
        rows = [row for _, row in store.log.read(Interaction)]
        lost = [id for id in acknowledged if store.log.get(Interaction, id) is None]
        lost += [id for id in acknowledged if store.log.get(Feedback, f"fb-{id}") is None]
        return {
            "cycles": len(cycles),
            "states": [event.state for event in cycles[-1].events],
            "candidate": cycles[-1].candidate,
            "verdict": type(verdict).__name__,
            "effects": [[e.metric, e.state, e.difference, e.p_value] for e in verdict.because.effects],
            "shares": [sorted(each.shares.values()) for each in deployments],
            "promotions": champions.count(cycles[-1].candidate),
            "champion": champions[-1],
            "steps": sorted(step.name for _, step in store.log.read(Step)),
            "answers": sum(row.skill != "another" for row in rows),
            "lost": lost,
            "orphans": left.removed,
            "runs": sorted(path.name for path in (folder / "store" / "runs").glob("*")),
        }


def start(function: Callable[..., None], *args: Any) -> multiprocessing.process.BaseProcess:
    process = FORK.Process(target=_quietly, args=(function, *args))
    process.start()
    return process


def _quietly(function: Callable[..., None], *args: Any) -> None:
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        function(*args)


def result_of(function: Callable[..., Any], *args: Any) -> Any:
    """What the function returns in a process of its own: the parent must stay free of threads."""
    with FORK.Pool(1) as pool:
        return pool.apply(function, args)


def prepare(folder: Path) -> str:
    """Make a store with feedback; the key of a person who may approve."""
    config = settings(folder)
    fill(config, folder)
    key, record = create("Ana", (Scope.APPROVE,))
    with open_store(config.store.url) as store:
        store.log.append(record)
    return key


def timed_cycle(folder: Path, key: str) -> tuple[dict[str, float], list[str]]:
    """A cycle undisturbed: the seconds from each state to the next, and the modules it imported."""
    lengths: dict[str, float] = {}
    while (state := state_of(folder)) not in ENDS:
        began = time.monotonic()
        go_on(folder, key)
        lengths[state] = max(lengths.get(state, 0.0), time.monotonic() - began)
    return lengths, sorted(sys.modules)


def copy_of(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    settings(to)
    return to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, folder = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="chaos-"))
    (fresh := folder / "fresh").mkdir()
    key, told, wild = result_of(prepare, fresh), folder / "told", folder / "wild"
    _, modules = result_of(timed_cycle, copy_of(fresh, folder / "calm"), key)
    for name in modules:
        with suppress(Exception):
            importlib.import_module(name)
    lengths, _ = result_of(timed_cycle, calm := copy_of(fresh, folder / "calm"), key)
    lengths["running"], expected = lengths["nothing"], result_of(ending, calm, told)
    kills, rounds, endings, state = Counter[str](), 0, [], "nothing"
    copy_of(fresh, wild)
    while (is_killed := kills.total() < options.kills) or state not in ENDS:
        if state in ENDS:
            copy_of(fresh, wild)
            told.unlink(missing_ok=True)
        state, rounds = result_of(state_of, wild), rounds + 1
        worker, other = start(go_on, wild, key), start(serve_others, wild, told, rounds)
        # One in five is left alone, or few would come to the later states.
        worker.join(rng.random() * lengths[state] if is_killed and rng.random() < 0.8 else None)
        if worker.is_alive():
            kills[state] += 1
        for process in (worker, other):
            process.kill()
            process.join()
        if (state := result_of(state_of, wild)) in ENDS:
            endings.append(result_of(ending, wild, told))
            print(f"{kills.total()} kills, equal: {endings[-1] == expected}", file=sys.stderr)
    different = [each for each in endings if each != expected]
    data = {"kills": kills.total(), "killed_in": dict(kills), "rounds": rounds, "cycles": len(endings)}
    data |= {"undisturbed_s": round(lengths["nothing"], 1), "equal": not different}
    if not different:
        shutil.rmtree(folder)
    print(json.dumps(data | {"expected": expected, "different": different[:3]}))


if __name__ == "__main__":
    main()
