"""Attack a gateway on this machine: hostile requests, connections and kills, with another caller measured.

    python bench/attack.py [--requests 50000] [--connections 2000] [--kills 100] [--model DIR]

Two gateways are attacked: one without keys, one whose attackers have a key of another tenant, or none.
Requests come from `/openapi.json` (schemathesis, valid and invalid ones) and from the generators below: bombs
of brackets, keys and messages, foreign hosts, tokens and headers. Meanwhile a caller asks for `/health` and
for one token again and again. Then connections hold bodies and headers back; a gateway under load is killed,
and so are conversions, backups and `gc` beside it.
The clients share the processors with the server: latencies count on a quiet machine, and `event_loop` (see
`loop_probe.py`) says how long the gateway itself held others up at most. Prints one JSON object last; leaves
with 1 where a figure does not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from machine import processor
from serving import MockUpstream, found, killed, serves, tidily
from started import Started

from escultor.serve.auth import create
from escultor.store import open_store
from escultor.types import Scope

HEALTH_MS, CHAT_MS, MEMORY_MB = 100.0, 300.0, 512.0
CHAT = "/v1/chat/completions"
ONE_TOKEN = {"model": "escultor", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
PATHS = (CHAT, "/v1/completions", "/v1/messages", "/v1/responses", "/v1/feedback", "/v1/interactions")
OURS = frozenset((500, 501, 502, 504, 505))  # 503 says that there is too much work, as it should


class Bystander:
    """Another caller, whose latencies (in ms) are measured while the attack goes on."""

    def __init__(self, url: str, headers: dict[str, str]):
        self.worst = {"health": 0.0, "chat": 0.0}
        self.refused = 0
        self._url, self._headers, self._stop = url, headers, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx2.Client(base_url=self._url, headers=self._headers, timeout=120) as client:
            while not self._stop.wait(0.02):
                for name in self.worst:
                    began = time.perf_counter()
                    answer = client.get("/health") if name == "health" else client.post(CHAT, json=ONE_TOKEN)
                    self.worst[name] = max(self.worst[name], 1000 * (time.perf_counter() - began))
                    self.refused += answer.status_code != 200


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


def chat(messages: list[dict[str, str]], **more: object) -> bytes:
    return json.dumps({**ONE_TOKEN, "messages": messages, **more}).encode()


def bodies(draw: random.Random) -> Iterator[bytes]:
    """Bodies that cost much to read, or are meant to."""
    n = 10 ** draw.randint(3, 6)
    deep, text = draw.choice((b"[", b'{"a":')), secrets.token_hex(8)
    yield deep * n
    yield b"[" * 65 + b'"' + b'\\"' * n
    yield json.dumps({"x" * n: 1}).encode()
    yield b"{" + b",".join(b'"%d":1' % i for i in range(min(n, 300_000))) + b"}"
    yield b"[" + b"{}," * min(n, 400_000) + b"1]"
    for role in ("user", "assistant", "tool", text):
        yield json.dumps(
            {**ONE_TOKEN, "messages": [{"role": role, "content": text}] * min(n, 50_000)}
        ).encode()
    yield json.dumps(
        {**ONE_TOKEN, "messages": [{"role": "user", "content": "x " * min(n, 3_500_000)}]}
    ).encode()
    yield json.dumps({"model": "escultor", "prompt": ["a", 1] * min(n, 100_000)}).encode()
    yield json.dumps({"model": "escultor", "prompt": [1] * min(n, 250_000), "max_tokens": 1}).encode()
    schema = {"type": "string", "pattern": draw.choice(("(a+)+$", "(a|a)*b", "a{1,9999}", "\\1", "(?=a)"))}
    spec = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"properties": {text: schema}}}}
    yield json.dumps({**ONE_TOKEN, "response_format": spec}).encode()
    yield json.dumps({"id": text + "]" * 9, "value": True, "user": "\u202e" + text}).encode()
    yield json.dumps([{"kind": "boolean", "target": text, "value": True}] * min(n, 1000)).encode()
    call = {"time": 1e9, "messages": [{"role": "user", "content": "q" * 3000}], "answer": "a", "version": "v"}
    yield json.dumps([{**call, "id": f"{text}-{k}", "user": text} for k in range(min(n, 1000))]).encode()
    parts = [{"type": "text", "text": "a"}] * min(n, 20_000)
    yield json.dumps({**ONE_TOKEN, "messages": [{"role": "user", "content": parts}]}).encode()
    yield b'{"model":"a","model":"b"}'
    yield bytes(draw.randrange(256) for _ in range(min(n, 5_000)))


def headers(draw: random.Random, key: str | None) -> dict[str, str]:
    """Headers of an attacker: a key or none, of this or another host, with values that mean harm."""
    given = {"content-type": draw.choice(("application/json",) * 8 + ("text/plain", "application/x-ndjson"))}
    if key and draw.random() < 0.7:
        given["authorization"] = f"Bearer {key}"
    elif draw.random() < 0.3:
        given["authorization"] = draw.choice(("Bearer", "Bearer esk-" + "0" * 60, "Basic YTpi"))
    if draw.random() < 0.1:
        given["host"] = draw.choice(("evil.example", "[::1", "localhost:99999", ""))
    if draw.random() < 0.2:
        name = draw.choice(
            ("subject", "skill", "parent", "relation", "consent", "retain-days", "message", "task")
        )
        given[f"x-escultor-{name}"] = draw.choice(
            ("../..", "1e999", "<b>", "{{X}}", "a" * 5000, "%1b]0;a%07")
        )
    return given


def fuzz(url: str, key: str | None, count: int, seed: int, codes: Counter[int | str]) -> list[str]:
    """Send `count` requests of the generators; the requests that ended in a 5xx of ours."""
    draw, bad = random.Random(seed), []
    with httpx2.Client(base_url=url, timeout=120) as client:
        pool: list[bytes] = []
        for _ in range(count):
            pool = pool or draw.sample(each := list(bodies(draw)), len(each))
            body, path, given = pool.pop(), draw.choice(PATHS), headers(draw, key)
            if draw.random() < 0.1:
                path = draw.choice(
                    ("/nowhere", "/v1/feedback/t/" + "a" * 99, "/v1/feedback/%2e%2e", "/%00", "//")
                )
            method = draw.choice(("POST",) * 12 + ("GET", "DELETE", "PUT", "OPTIONS", "TRACE"))
            try:
                status = client.request(method, path, content=body, headers=given).status_code
            except httpx2.TransportError as error:  # such as a connection that was reset
                status = type(error).__name__
            codes[status] += 1
            if status in OURS:
                bad.append(f"{method} {path} {body[:80]!r}")
    return bad


def by_schema(url: str, key: str | None, count: int, codes: Counter[int | str]) -> list[str]:
    """Send about `count` requests that the OpenAPI document makes, valid and invalid ones."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    bad: list[str] = []
    sent = {"authorization": f"Bearer {key}"} if key else {}
    operations = [
        each.ok() for each in schemathesis.openapi.from_url(url + "/openapi.json").get_all_operations()
    ]
    for operation in operations:
        modes = (operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode)

        @settings(
            max_examples=max(1, count // len(operations)),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.one_of(*modes))
        def send(case: object) -> None:
            status = case.call(headers=sent).status_code  # type: ignore[attr-defined]
            codes[status] += 1
            if status in OURS:
                bad.append(f"{operation.label} {str(case)[:200]}")  # noqa: B023

        send()
    return bad


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

    WORDS = (("feedback", "convert", "--out", "converted"), ("backup", "backup"), ("gc",))

    def __init__(self, folder: Path):
        """The store is `folder`; a backup of it is taken beside it."""
        self.killed, self._folder, self._stop = 0, folder, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> KilledCommands:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _start(self, words: tuple[str, ...]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "escultor", *words, "--store", str(self._folder)]
        return subprocess.Popen(
            command, cwd=self._folder.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def _run(self) -> None:
        draw = random.Random(0)
        while not self._stop.is_set():
            process = self._start(draw.choice(self.WORDS))
            self._stop.wait(draw.uniform(0.5, 10))
            self.killed += process.poll() is None
            process.kill()
            process.communicate()

    def failures(self) -> list[str]:
        """The commands that do not succeed now that nobody kills them."""
        found = []
        for words in self.WORDS:
            process = self._start(words)
            said = process.communicate()[1].decode("utf-8", "replace")
            found += [f"{' '.join(words)}: {said[-300:]}"] if process.returncode else []
        return found


def attack(folder: Path, given: argparse.Namespace, *, with_keys: bool) -> dict[str, object]:
    """Everything but the kills, on one gateway."""
    key, other = None, {}
    if with_keys:
        with open_store(str(folder)) as store:
            made = [
                create(name, [Scope.INFER, Scope.FEEDBACK, Scope.READ]) for name in ("attacker", "bystander")
            ]
            store.log.append(*(event for _, event in made))
        key, other = made[0][0], {"authorization": f"Bearer {made[1][0]}"}
    codes: Counter[int | str] = Counter()
    bad: list[str] = []
    with serve(folder, given.model) as process:
        httpx2.post(process.url + CHAT, json=ONE_TOKEN, headers=other, timeout=120)
        base = peak = process.rss_mib()
        with Bystander(process.url, other) as bystander:
            half = given.requests // 4  # of each way to make them, on each of two gateways
            fuzzers = [
                threading.Thread(target=lambda s=s: bad.extend(fuzz(process.url, key, half // 4, s, codes)))
                for s in range(4)
            ]
            for each in fuzzers:
                each.start()
            bad += by_schema(process.url, key, half, codes)
            for each in fuzzers:
                each.join()
                peak = max(peak, process.rss_mib())
        calm, loop = dict(bystander.worst), held(folder)
        with Bystander(process.url, other) as bystander:
            told, opened = hold(process.url, given.connections, key, given.hold_s)
            peak = max(peak, process.rss_mib())
            for each in opened:
                each.close()
        began = time.perf_counter()
        process.stop(60)
    return {
        "statuses": {str(code): n for code, n in sorted(codes.items(), key=str)},
        "failures_of_ours": len(bad),
        "failed": bad[:5],
        "event_loop": loop,
        "bystander_ms": {name: round(ms, 1) for name, ms in calm.items()},
        "bystander_ms_under_connections": {name: round(ms, 1) for name, ms in bystander.worst.items()},
        "connections_told": told,
        "memory_over_base_mb": round(peak - base, 1),
        "seconds_to_stop": round(time.perf_counter() - began, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--hold-s", type=float, default=10.0, help="how long connections hold back")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--model", help="default: escultor-base")
    given = parser.parse_args()
    tidily()
    began = time.perf_counter()
    report: dict[str, object] = {"bench": "attack", "machine": processor(), "date": time.strftime("%Y-%m-%d")}
    report |= {"requests": given.requests, "connections": given.connections, "kills": given.kills}
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("without_keys", "with_keys"):
            figures = attack(Path(folder) / name, given, with_keys=name == "with_keys")
            report[name] = figures
            broken += [f"{name}: {problem}" for problem in problems(figures)]
        with MockUpstream(serves(pause_s=0.001, calls_tools=True)) as mock:
            store = Path(folder) / "killed" / "store"
            with KilledCommands(store) as commands:
                told = killed(given.kills, store, mock.url)
        after = found(store, told)
        acknowledged = len(told.answers) + len(told.imported) + len(told.events)
        report["killed"] = {"acknowledged": acknowledged, "commands": commands.killed, **asdict(after)}
        broken += ["an acknowledged record is lost or doubled"] if after.broken else []
        broken += commands.failures()
    print(json.dumps(report | {"seconds": round(time.perf_counter() - began), "broken": broken}))
    sys.exit(1 if broken else 0)


def problems(figures: dict[str, object]) -> list[str]:
    """Which figures do not hold."""
    found = [] if not figures["failures_of_ours"] else [f"{figures['failures_of_ours']} failures of ours"]
    for name in ("bystander_ms", "bystander_ms_under_connections"):
        worst: dict[str, float] = figures[name]  # type: ignore[assignment]
        for which, limit in (("health", HEALTH_MS), ("chat", CHAT_MS)):
            found += [f"{name} of {which}: {worst[which]}"] if worst[which] > limit else []
    loop: dict[str, float] = figures["event_loop"]  # type: ignore[assignment]
    found += [f"event loop held for {loop['held_ms']} ms"] if loop["held_ms"] > HEALTH_MS else []
    told: dict[str, int] = figures["connections_told"]  # type: ignore[assignment]
    if untold := sum(n for what, n in told.items() if what != "waits" and not what.startswith("HTTP/")):
        found.append(f"{untold} connections ended without a status")
    if float(str(figures["memory_over_base_mb"])) > MEMORY_MB:
        found.append(f"memory: {figures['memory_over_base_mb']} MB over the base")
    return found


if __name__ == "__main__":
    main()
