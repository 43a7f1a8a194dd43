"""One cycle of a tiny model, killed (SIGKILL) at random moments until it has been killed often enough, beside
the same cycle undisturbed: the same hashes, one deployment, nothing lost, nothing left over.

    python experiments/chaos_cycle.py --kills 60 --seed 0

The last line is a JSON object; `equal` says whether everything held.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "cycle"), str(ROOT / "tests")]

from cycle_store import config_at, fill  # noqa: E402

from escultor.cycle.recorded_cycles import recorded_cycles  # noqa: E402
from escultor.serve.auth import create  # noqa: E402
from escultor.store import open_store, registry  # noqa: E402
from escultor.store.garbage import collect  # noqa: E402
from escultor.types import Feedback, Interaction, Scope, Step, Verdict  # noqa: E402

# From any state of the store to the end: computed, approved, deployed.
DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from cycle_store import config_at
from escultor import EvolutionCycle
turn = EvolutionCycle(config_at(Path(sys.argv[1]), cycle={"canary": False}))
done = turn.status()
if not done or done[-1].state == "running":
    turn.run()
if turn.status()[-1].state == "waiting":
    turn.decide("approved", sys.argv[2])
elif turn.status()[-1].is_open:
    turn.resume()
"""


def start(folder: Path, key: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", DRIVER, str(folder), key, *sys.path[:2]]
    return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


def ending(folder: Path) -> dict[str, object]:
    """What must be equal: the model, its verdict, the deployments, and what people said."""
    with open_store(str(folder / "store")) as store:
        cycles = recorded_cycles(store)
        collect(store, now=time.time() + 2 * 86_400)
        left = collect(store, now=time.time() + 2 * 86_400, dry_run=True)
        verdict = store.log.get(Verdict, cycles[-1].verdict)
        assert verdict is not None
        deployments = registry.read_deployments(store.log)
        return {
            "cycles": len(cycles),
            "state": cycles[-1].state,
            "candidate": cycles[-1].candidate,
            "verdict": type(verdict).__name__,
            "effects": [[e.metric, e.state, e.difference, e.p_value] for e in verdict.because.effects],
            "deployments": len(deployments),
            "champion": registry.champion(deployments),
            "steps": sorted(step.name for _, step in store.log.read(Step)),
            "answers": store.log.count(Interaction),
            "feedback": store.log.count(Feedback),
            "orphans": left.removed,
            "runs": sorted(path.name for path in (folder / "store" / "runs").glob("*")),
        }


def prepared(folder: Path) -> str:
    """A store with feedback, and the key of a person who may approve."""
    config = config_at(folder)
    fill(config, folder)
    key, record = create("Ana", (Scope.APPROVE,))
    with open_store(config.store.url) as store:
        store.log.append(record)
    return key


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    config_at(to)
    return to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, folder = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="chaos-"))
    (fresh := folder / "fresh").mkdir()
    key = prepared(fresh)
    calm, wild = (copy_of(fresh, folder / name) for name in ("calm", "wild"))
    began = time.monotonic()
    start(calm, key).wait()
    length, kills, rounds, endings = time.monotonic() - began, 0, 0, []
    expected = ending(calm)
    while kills < options.kills:
        rounds += 1
        process = start(wild, key)
        try:
            process.wait(timeout=rng.uniform(0.1, 1.1) * length)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        endings.append(ending(wild))  # it came to its end: the next kills are of a new one
        shutil.rmtree(wild)
        copy_of(fresh, wild)
    while start(wild, key).wait():
        rounds += 1
    endings.append(ending(wild))
    shutil.rmtree(folder)
    data = {"kills": kills, "rounds": rounds, "cycles": len(endings), "undisturbed_s": round(length, 1)}
    print(json.dumps(data | {"equal": all(each == expected for each in endings), "expected": expected}))


if __name__ == "__main__":
    main()
