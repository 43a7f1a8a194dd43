"""Attack a gateway on this machine: hostile requests, connections and kills, with another caller measured.

    python bench/attack.py [--only requests|connections|kills|erasures|patterns]... [--requests 50000]
        [--connections 2000] [--kills 100] [--histories 1000] [--model DIR]

* requests: two gateways, one without keys, one whose attackers have a key of another tenant, or none. The
  requests come from `attack_requests.py`, in processes of a low priority. Another process asks meanwhile for
  `/health` and for one token, again and again. All share the processors with the server: latencies count on a
  quiet machine, and `event_loop` (`loop_probe.py`) says how long the gateway itself held others up at most.
* connections: the same two gateways; connections hold the ends of bodies and headers back.
* kills: a gateway under load is killed, and so are conversions, backups, `gc` and cycles beside it.
* erasures: `experiments/erasure.py`. patterns: `tests/test_patterns.py`.

Prints one JSON object last; leaves with 1 where a figure does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from attack_requests import CHAT, ONE_TOKEN, send_all
from machine import processor
from serving import MockUpstream, found, killed, serves, tidily
from started import Started

from escultor.serve.auth import create
from escultor.store import open_store
from escultor.store.cycles import recorded_cycles
from escultor.types import Scope

ROOT = Path(__file__).parents[1]
HEALTH_MS, CHAT_MS, MEMORY_MB = 100.0, 300.0, 512.0
NOT_PROMOTED = 3  # the exit code of a cycle whose gate holds


class Bystander:
    """Another caller, in a process of its own, whose latencies (in ms) are measured while others attack."""

    def __init__(self, url: str, headers: dict[str, str]):
        context = get_context("spawn")
        self.latencies: dict[str, list[float]] = {}
        self.refused = 0
        self._stop, (self._told, there) = context.Event(), context.Pipe(duplex=False)
        self._process = context.Process(target=_ask, args=(url, headers, self._stop, there))

    def __enter__(self) -> Bystander:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.latencies, self.refused = self._told.recv()
        self._process.join()

    def report(self) -> dict[str, Any]:
        """By route: how often it was asked, the latency of the middle, of one in a hundred, and the worst."""
        report: dict[str, Any] = {"refused": self.refused}
        for name, each in self.latencies.items():
            middle, rare, worst = (sorted(each)[int(q * (len(each) - 1))] for q in (0.5, 0.99, 1))
            report[name] = {"asked": len(each), "p50": middle, "p99": rare, "worst": worst}
        return report


def _ask(url: str, headers: dict[str, str], stop: Any, told: Any) -> None:
    latencies: dict[str, list[float]] = {"health": [], "chat": []}
    refused = 0
    with httpx2.Client(base_url=url, headers=headers, timeout=120) as client:
        while not stop.wait(0.02):
            for name, each in latencies.items():
                began = time.perf_counter()
                answer = client.get("/health") if name == "health" else client.post(CHAT, json=ONE_TOKEN)
                each.append(round(1000 * (time.perf_counter() - began), 1))
                refused += answer.status_code != 200
    told.send((latencies, refused))


def serve(store: Path, model: str | None) -> Started:
    """A gateway whose event loop is watched: `held` reads what the probe found."""
    more = ["--model", model] if model else []
    probe = str(Path(__file__).with_name("loop_probe.py"))
    base = [sys.executable, probe, str(_probed(store)), "serve", "--port", "0", "--store", str(store)]
    return Started([*base, *more])


def held(store: Path) -> dict[str, float]:
    """The longest that the event loop was held up so far, in ms."""
    try:
        return json.loads(_probed(store).read_text())
    except FileNotFoundError:
        return {"held_ms": 0.0}


def _probed(store: Path) -> Path:
    return store.with_name(f"{store.name}.loop.json")


def hold(url: str, count: int, key: str | None, seconds: float) -> tuple[dict[str, int], list[socket.socket]]:
    """Open connections that hold back the end of a header or of a body of 8 MB. What each was told."""
    address = urlsplit(url)
    shown = f"authorization: Bearer {key}" if key else "a: b"
    head = f"host: localhost\r\ncontent-type: application/json\r\n{shown}"
    body = b'{"model": "' + b"a" * 200_000
    told: Counter[str] = Counter()
    held: list[socket.socket] = []
    for k in range(count):
        try:
            made = socket.create_connection((address.hostname or "", address.port or 0), timeout=30)
            said = f"POST {CHAT} HTTP/1.1\r\n{head}\r\n".encode()
            said += b"" if k % 3 == 0 else b"content-length: 8000000\r\n\r\n" + body[: 10 ** (k % 6)]
            made.setblocking(False)
            made.send(said)
            held.append(made)
        except OSError as error:
            told[type(error).__name__] += 1
    time.sleep(seconds)
    for made in held:
        try:
            told[made.recv(12).decode("latin-1") or "closed"] += 1
        except BlockingIOError:
            told["waits"] += 1
        except OSError as error:
            told[type(error).__name__] += 1
    return dict(told), held


class KilledCommands:
    """Commands on a store beside its gateway, one after the other, each killed after a random time."""

    WORDS = (
        ("feedback", "convert", "--out", "converted"),
        ("backup", "backup"),
        ("gc",),
        ("cycle", "run", "--skill", "animal"),
    )

    def __init__(self, folder: Path):
        """The store is that of `folder`'s configuration; a backup of it is taken beside it."""
        self.killed, self._folder, self._stop = Counter[str](), folder, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> KilledCommands:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _start(self, words: tuple[str, ...]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "escultor", *words, "--config", "escultor.yaml"]
        return subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def _run(self) -> None:
        draw = random.Random(0)
        while not self._stop.is_set():
            process = self._start(words := draw.choice(self.WORDS))
            self._stop.wait(draw.uniform(0.5, 10))
            self.killed[words[0]] += process.poll() is None
            process.kill()
            process.communicate()

    def failures(self) -> list[str]:
        """The commands that do not succeed now that nobody kills them."""
        failed = []
        for words in self.WORDS:
            process = self._start(words)
            said = process.communicate()[1].decode("utf-8", "replace")
            if process.returncode not in (0, NOT_PROMOTED if words[0] == "cycle" else 0):
                failed.append(f"{' '.join(words)}: {said[-300:]}")
        return failed


def with_keys(folder: Path) -> tuple[str, dict[str, str]]:
    """The attacker's key, and the headers of the caller who is measured."""
    with open_store(str(folder)) as store:
        made = [create(name, [Scope.INFER, Scope.FEEDBACK, Scope.READ]) for name in ("attacker", "bystander")]
        store.log.append(*(event for _, event in made))
    return made[0][0], {"authorization": f"Bearer {made[1][0]}"}


def on_both(attack: Callable[..., dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """The figures of an attack on a gateway without keys and on one with them."""
    figures = {}
    for name in ("without_keys", "with_keys"):
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            key, other = with_keys(store) if name == "with_keys" else (None, {})
            with serve(store, given.model) as process:
                httpx2.post(process.url + CHAT, json=ONE_TOKEN, headers=other, timeout=120)
                base = process.rss_mib()
                _probed(store).unlink(missing_ok=True)  # that was the start
                with Bystander(process.url, other) as bystander:
                    seen = attack(process, key, given)
                seen |= {"bystander_ms": bystander.report(), "event_loop": held(store)}
                seen["memory_over_base_mb"] = round(seen.pop("peak_mb") - base, 1)
                began = time.perf_counter()
                process.stop(60)
                figures[name] = seen | {"seconds_to_stop": round(time.perf_counter() - began, 2)}
    return figures | {"broken": [f"{name}: {each}" for name in figures for each in problems(figures[name])]}


def requests(process: Started, key: str | None, given: argparse.Namespace) -> dict[str, Any]:
    peaks, done = [process.rss_mib()], threading.Event()

    def weigh() -> None:
        while not done.wait(0.5):
            peaks.append(process.rss_mib())

    (weighing := threading.Thread(target=weigh)).start()
    codes, bad = send_all(process.url, key, given.requests // 2, seed=key is not None)
    done.set()
    weighing.join()
    statuses = {str(code): n for code, n in sorted(codes.items(), key=str)}
    return {"statuses": statuses, "failures_of_ours": len(bad), "failed": bad[:5], "peak_mb": max(peaks)}


def connections(process: Started, key: str | None, given: argparse.Namespace) -> dict[str, Any]:
    told, opened = hold(process.url, given.connections, key, given.hold_s)
    peak = process.rss_mib()
    for each in opened:
        each.close()
    return {"connections_told": told, "peak_mb": peak}


def kills(given: argparse.Namespace) -> dict[str, Any]:
    """A gateway before an upstream under load; its store has a skill, whose cycles are killed as well."""
    sys.path[:0] = [str(ROOT / "tests" / "cycle"), str(ROOT / "tests")]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from cycle_store import config_at, fill

    with tempfile.TemporaryDirectory() as name, MockUpstream(serves(pause_s=0.001, calls_tools=True)) as mock:
        folder = Path(name)
        fill(config := config_at(folder), folder)
        (folder / "escultor.yaml").write_text(config.model_dump_json(exclude_unset=True))
        with KilledCommands(folder) as commands:
            told = killed(given.kills, folder / "store", mock.url)
        after, failed = found(folder / "store", told), commands.failures()
        with open_store(str(folder / "store")) as store:
            cycles = [each.state for each in recorded_cycles(store)]
    acknowledged = len(told.answers) + len(told.imported) + len(told.events)
    broken = ["an acknowledged record is lost or doubled"] if after.broken else []
    broken += failed + ([] if len(cycles) == 1 else [f"{len(cycles)} cycles of one set of feedback"])
    seen = {"acknowledged": acknowledged, "commands": dict(commands.killed), "cycles": cycles}
    return seen | asdict(after) | {"broken": broken}


def erasures(given: argparse.Namespace) -> dict[str, Any]:
    words = [sys.executable, str(ROOT / "experiments" / "erasure.py"), "--histories", str(given.histories)]
    seen = json.loads(subprocess.run(words, check=True, capture_output=True).stdout.splitlines()[-1])
    return seen | {"broken": [name for name in ("bytes_left", "others_lost") if seen[name]]}


def patterns(_: argparse.Namespace) -> dict[str, Any]:
    words = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "test_patterns.py")]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    last = run.stdout.strip().splitlines()[-1:]
    return {"said": last, "broken": last if run.returncode else []}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "requests": lambda given: on_both(requests, given),
    "connections": lambda given: on_both(connections, given),
    "kills": kills,
    "erasures": erasures,
    "patterns": patterns,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; default: all of them")
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--hold-s", type=float, default=10.0, help="how long connections hold back")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--histories", type=int, default=1000, help="of erasures")
    parser.add_argument("--model", help="default: escultor-base")
    given = parser.parse_args()
    tidily()
    began = time.perf_counter()
    report: dict[str, Any] = {"bench": "attack", "machine": processor(), "date": time.strftime("%Y-%m-%d")}
    report |= {key: value for key, value in vars(given).items() if value is not None}
    broken: list[str] = []
    for name in given.only or PARTS:
        report[name] = PARTS[name](given)
        broken += [f"{name}: {each}" for each in report[name].pop("broken")]
        print(name, json.dumps(report[name]), file=sys.stderr, flush=True)
    print(json.dumps(report | {"seconds": round(time.perf_counter() - began), "broken": broken}))
    sys.exit(1 if broken else 0)


def problems(figures: dict[str, Any]) -> list[str]:
    """Which figures do not hold."""
    found = []
    if figures.get("failures_of_ours"):
        found.append(f"{figures['failures_of_ours']} failures of ours")
    for which, limit in (("health", HEALTH_MS), ("chat", CHAT_MS)):
        if (worst := figures["bystander_ms"][which]["worst"]) > limit:
            found.append(f"a bystander's {which} took {worst} ms")
    if (ms := figures["event_loop"]["held_ms"]) > HEALTH_MS:
        found.append(f"the event loop was held for {ms} ms")
    told = figures.get("connections_told", {})
    if untold := sum(n for what, n in told.items() if what != "waits" and not what.startswith("HTTP/")):
        found.append(f"{untold} connections ended without a status")
    if figures["memory_over_base_mb"] > MEMORY_MB:
        found.append(f"memory: {figures['memory_over_base_mb']} MB over the base")
    return found


if __name__ == "__main__":
    main()
