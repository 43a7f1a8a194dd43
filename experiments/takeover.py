"""Two workers of one PostgreSQL store, on two machines as far as they know: the one that trains is killed
with its process, the other has to take the cycle over within 60 s and end it. Then eight processes begin a
cycle of one skill at once, again and again: there must be one each time.

    python experiments/takeover.py [--rounds 20]

A server of its own is started from Debian's PostgreSQL. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "cycle"), str(ROOT / "tests")]

import postgres  # noqa: E402
from cycle_store import config_at, fill  # noqa: E402

from escultor.config import Config  # noqa: E402
from escultor.cycle.lifecycle import begin, cancel, lease_of  # noqa: E402
from escultor.errors import InputError  # noqa: E402
from escultor.ids import hash_bytes  # noqa: E402
from escultor.store import Store, open_store, registry  # noqa: E402
from escultor.store.cycles import recorded_cycles  # noqa: E402
from escultor.store.leases import holder  # noqa: E402
from escultor.types import Step  # noqa: E402

# What makes a process believe that it is on a machine of another name.
ELSEWHERE = "import os, platform\nplatform.node = lambda: os.environ['NODE']\n"
LIMIT_S = 600.0
CYCLE = {"new_rows": 20, "auto_approve": ("animal",), "canary": False, "threads": 1}
SFT = {"learning_rate": 0.01, "epochs": 40, "batch_size": 16, "warmup_steps": 0, "dtype": "float32"}
T = TypeVar("T")


def until(find: Callable[[], T | None]) -> T:
    end = time.monotonic() + LIMIT_S
    while not (found := find()):
        if time.monotonic() > end:
            raise TimeoutError("it did not happen")
        time.sleep(0.1)
    return found


def start_worker(folder: Path, name: str, url: str) -> subprocess.Popen[bytes]:
    """`escultor cycle run --follow` on a machine of this name, in a process group of its own."""
    paths = [str(folder / "elsewhere"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"NODE": name, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "escultor", "cycle", "run", "--follow", "--store", url]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(words, cwd=folder, env=env, start_new_session=True, stdout=log, stderr=log)


def machine_of(owner: str) -> str:
    return owner.partition("-")[0].partition(".")[2]


def machine_at_work(store: Store) -> str | None:
    """The machine whose process computes the cycle, once it trains."""
    owner = holder(store, lease_of(store, "animal").name)
    is_training = any((store.root / "runs").glob("*/*"))
    return machine_of(owner) if owner and is_training else None


def take_over(folder: Path, url: str) -> dict[str, object]:
    config = config_at(folder, url, cycle=CYCLE, sft=SFT)
    text = yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True))
    (folder / "escultor.yaml").write_text(text)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "sitecustomize.py").write_text(ELSEWHERE)
    fill(config, folder)
    workers = {hash_bytes(name.encode())[:8]: start_worker(folder, name, url) for name in ("one", "two")}
    try:
        with open_store(url) as store:
            first = until(lambda: machine_at_work(store))
            os.killpg(workers[first].pid, signal.SIGKILL)
            killed = time.monotonic()
            second = until(lambda: _other(store, first))
            seconds = time.monotonic() - killed
            until(lambda: not recorded_cycles(store)[-1].is_open)
            cycles, steps = recorded_cycles(store), [step.name for _, step in store.log.read(Step)]
            deployments = registry.read_deployments(store.log)
            return {
                "takeover_s": round(seconds, 1),
                "is_another": second != first,
                "states": [event.state for event in cycles[-1].events],
                "cycles": len([each for each in cycles if each.begun]),
                "promotions": len(deployments) - 1,
                "steps_repeated": len(steps) - len(set(steps)),
            }
    finally:
        for worker in workers.values():
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def _other(store: Store, first: str) -> str | None:
    owner = holder(store, lease_of(store, "animal").name)
    return machine_of(owner) if owner and machine_of(owner) != first else None


def contend(config: Config, round: int, number: int) -> None:
    with open_store(config.store.url) as store, suppress(InputError), lease_of(store, "animal"):
        begin(store, config, f"cycle-{round}-{number}", "animal", "a person's", by=f"person {number}")


def contenders(config: Config, rounds: int) -> dict[str, object]:
    """Eight processes begin a cycle at once: how many were begun in each round."""
    begun = []
    with open_store(config.store.url) as store:
        for round in range(rounds):
            before = len(recorded_cycles(store))
            several = [
                multiprocessing.get_context("fork").Process(target=contend, args=(config, round, number))
                for number in range(8)
            ]
            for each in several:
                each.start()
            for each in several:
                each.join()
            cycles = recorded_cycles(store)
            begun.append(len(cycles) - before)
            for cycle in cycles:
                if cycle.is_open:
                    cancel(store, cycle, "the round is over", "the experiment")
    return {"rounds": rounds, "begun": begun, "always_one": set(begun) == {1}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="takeover-") as name, postgres.server(*postgres.FAST) as url:
        folder = Path(name)
        os.chdir(folder)  # where the blobs of a store in PostgreSQL are
        found = take_over(folder, url)
        print(found)
        found |= contenders(config_at(folder, url, cycle=CYCLE), options.rounds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
