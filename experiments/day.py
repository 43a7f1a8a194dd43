"""A day of service on a simulated clock with a fault every twenty minutes: is all that was acknowledged
there, was every fault told once, and is the service back by itself?

    python experiments/day.py [--hours 24] [--seed 0]

The gateway is a process of its own before a scripted upstream; it and the monitor read one clock, which only
this program moves, so that nothing waits. Every five minutes clients ask and judge, and the monitor checks.
A fault lasts a quarter of an hour: `kill` (kill -9; the supervisor is slow), `hang` (the upstream answers no
more), `disk` (no file of gateway or monitor may grow), `database` (another writer holds it), `clock` (the
gateway's clock is three hours ahead). The last line is a JSON object; leaves with 1 for a broken promise.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import sqlite3
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "serve"))

import httpx2  # noqa: E402
from mock_upstream import MockUpstream, hangs, serves  # noqa: E402
from started import Started  # noqa: E402

from escultor.config import Config, load_config  # noqa: E402
from escultor.cycle.monitoring import monitor_of, watch_once  # noqa: E402
from escultor.errors import StoreError  # noqa: E402
from escultor.monitor import notify  # noqa: E402
from escultor.monitor.buckets import BUCKET_S, CallCounts, as_record  # noqa: E402
from escultor.monitor.metrics import DAY_S  # noqa: E402
from escultor.monitor.outage import StoreOutage  # noqa: E402
from escultor.store import Store, open_store  # noqa: E402
from escultor.types import Alert, CallTally, Feedback, Interaction  # noqa: E402

STEP_S, EVERY, LASTS = 300.0, 4, 3  # seconds; steps from fault to fault, and of a fault
CALLS = 20  # in a step
START = 1_800_000_000.0 // DAY_S * DAY_S
AHEAD_S = 3 * 3600.0
RULES = {"kill": "no_traffic", "hang": "errors", "disk": "store", "database": "store", "clock": "clock"}
HANGS_AT = (6, 27, 51)  # faults: `errors` is clear only after six good hours once it went back and forth
GATEWAY = """
import mmap, struct, sys, time
with open(sys.argv.pop(1), "r+b") as file:
    clock = mmap.mmap(file.fileno(), 8)
time.time = lambda: struct.unpack("d", clock[:8])[0]
from escultor.cli.app import main
main()
"""


class Clock:
    """The time that a gateway sees: eight bytes of a file."""

    def __init__(self, path: Path):
        self.path = path
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 8)
        self.set(START)

    def set(self, now: float) -> None:
        self._bytes[:8] = struct.pack("d", now)


class Day:
    """The gateway, its clients, the monitor, and what each of them was told."""

    def __init__(self, folder: Path, upstream: MockUpstream):
        self.store_at, self.upstream, self.clock = folder / "store", upstream, Clock(folder / "clock")
        self.now, self.answers, self.events, self.asked, self.refused = START, {}, set(), 0, Counter[str]()
        self.pages: list[tuple[float, str, str]] = []
        self.config: Config = load_config(None).model_copy(deep=True)
        object.__setattr__(
            self.config, "monitor", self.config.monitor.model_copy(update={"notify": ("http://pager/",)})
        )
        notify.send_to = self._told
        with open_store(str(self.store_at)) as store:
            store.log.append(history())
        self.process = self.start()

    def _told(self, receiver: str, alerts: Any) -> None:
        self.pages += [(a.time, a.rule, a.state) for a in alerts]

    def start(self) -> Started:
        sets = {
            "upstream.url": self.upstream.url,
            "upstream.model": "mock",
            "upstream.idle_timeout_s": 3.0,
            "upstream.deadline_s": 6.0,
            "upstream.retries": 0,
            "store_timeout_s": 0.5,
        }
        command = [sys.executable, "-c", GATEWAY, str(self.clock.path), "serve", "--port", "0"]
        command += ["--store", str(self.store_at)]
        for key, value in sets.items():
            command += ["--set", f"serve.{key}={value}"]
        return Started(command)

    # --- clients ------------------------------------------------------------------------------

    def load(self) -> None:
        """A step's requests, eight at a time; every third answer is rated."""
        with httpx2.Client(base_url=self.process.url, timeout=120) as client, ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: self._ask(client, n), range(self.asked, self.asked + CALLS)))
        self.asked += CALLS

    def _ask(self, client: httpx2.Client, n: int) -> None:
        said = {
            "model": "escultor",
            "messages": [{"role": "user", "content": f"Question {n}"}],
            "user": f"u{n % 97}",
        }
        try:
            answer = client.post("/v1/chat/completions", json=said)
            if answer.status_code != 200:
                self.refused[str(answer.status_code)] += 1
                return
            id = answer.json()["id"]
            self.answers[id] = answer.json()["choices"][0]["message"]["content"]
            if n % 3 == 0:
                event = {"kind": "boolean", "id": f"fb-{n}", "target": id, "value": n % 30 > 0}
                if client.post("/v1/feedback", json=event).status_code in (200, 201, 202):
                    self.events.add(f"fb-{n}")
        except httpx2.TransportError as error:
            self.refused[type(error).__name__] += 1

    # --- the monitor --------------------------------------------------------------------------

    def check(self, store: Store, service: Any, outage: StoreOutage) -> None:
        """What `escultor monitor --every` does once."""
        try:
            outage.end(store, self.now)
            watch_once(store, self.config, self.now, self.now - DAY_S, service)
        except StoreError as error:
            outage.note(error, self.now)

    # --- faults -------------------------------------------------------------------------------

    @contextmanager
    def fault(self, kind: str) -> Iterator[None]:
        """The time of a fault."""
        if kind == "kill":
            self.process.kill()
            yield
            self.process = self.start()
        elif kind == "hang":
            self.upstream.now(hangs)
            yield
            self.upstream.now(serves())
        elif kind == "disk":
            with self._full_disk():
                yield
        elif kind == "database":
            other = sqlite3.connect(self.store_at / "log.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
            other.close()
        else:
            yield

    @contextmanager
    def _full_disk(self) -> Iterator[None]:
        """No file may be written at 4 KiB or beyond, in both processes: a write fails as on a full disk."""
        unlimited, full = resource.getrlimit(resource.RLIMIT_FSIZE), 4096
        for pid in (self.process.pid, os.getpid()):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (full, unlimited[1]))
        try:
            yield
        finally:
            for pid in (self.process.pid, os.getpid()):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


def history() -> CallTally:
    """A week of the same traffic before the day."""
    first, last = int((START - 7 * DAY_S) // BUCKET_S), int(START // BUCKET_S)
    counts = (as_record(CallCounts("mock", number, calls=CALLS)) for number in range(first, last))
    return CallTally("calls-history", START - 1, 0, tuple(counts))


def faults(n: int, seed: int) -> list[str]:
    """The kinds in their order: the same rule has an hour between two of its pages."""
    drawn, kinds, others = random.Random(seed), [], 0
    for k in range(n):
        if k in HANGS_AT:
            kinds.append("hang")
            continue
        kinds.append(("kill", drawn.choice(("disk", "database")), "clock")[others % 3])
        others += 1
    return kinds


def live(day: Day, kinds: list[str]) -> list[dict[str, Any]]:
    """The day; for each fault its pages, and whether clients were answered when it was over."""
    seen = []
    with open_store(str(day.store_at)) as store:
        service, outage = monitor_of(store, day.config), StoreOutage(day.config.monitor.notify)
        for kind in (*([None] * 3), *kinds):
            before, stack = len(day.pages), ExitStack()
            for step in range(EVERY):
                if step == 0 and kind:
                    stack.enter_context(day.fault(kind))
                if step == LASTS:
                    stack.close()
                is_ahead = kind == "clock" and step < LASTS
                day.clock.set(day.now + AHEAD_S * is_ahead)
                answered = len(day.answers)
                day.load()
                day.now += STEP_S
                day.clock.set(day.now + AHEAD_S * is_ahead)
                day.check(store, service, outage)
            told = [rule for _, rule, state in day.pages[before:] if state == "firing"]
            seen.append({"fault": kind, "pages": told, "answered_after": len(day.answers) - answered})
            print(f"{(day.now - START) / 3600:5.2f} h", seen[-1], flush=True)
    return seen[3:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, MockUpstream(serves()) as upstream:
        day = Day(Path(folder), upstream)
        try:
            seen = live(day, faults(int(given.hours * 3), given.seed))
        finally:
            day.process.stop()
        with open_store(str(day.store_at)) as store:
            rows = {row.id: row.answer for _, row in store.log.read(Interaction)}
            events = {event.id for _, event in store.log.read(Feedback)}
            alerts = Counter(f"{a.rule} {a.state}" for _, a in store.log.read(Alert))
    lost = [id for id, text in day.answers.items() if rows.get(id) != text]
    report = {
        "experiment": "day",
        "hours": given.hours,
        "faults": Counter(each["fault"] for each in seen),
        "answers_acknowledged": len(day.answers),
        "answers_lost": len(lost),
        "events_acknowledged": len(day.events),
        "events_lost": len(day.events - events),
        "refused": day.refused,
        "not_paged_once": [each for each in seen if each["pages"] != [RULES[each["fault"]]]],
        "not_back": [each for each in seen if each["answered_after"] != CALLS],
        "alerts": alerts,
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(report))
    sys.exit(1 if lost or report["events_lost"] or report["not_paged_once"] or report["not_back"] else 0)


if __name__ == "__main__":
    main()
