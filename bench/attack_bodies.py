"""Requests of every dialect, most of them faulty, to a gateway before upstreams and on weights of its own.

    nice -n 10 python bench/attack_bodies.py [--requests 20000] [--seed 0]

The bodies are those that clients send, mutated (`tests/serve/dialect_bodies.py`). Two fifths go before an
upstream that answers rightly, with text, calls or a stream; one fifth before one whose replies are mutated;
the rest to a tiny model. A failure is ours by status 500 to 505 other than 503, and by an unforeseen error
told in a stream; before the odd upstream 502 and 504 are its own. Prints one JSON object last; leaves with 1
where a failure is ours, the server's log has a traceback, or the server did not end as it should.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from serving import MockUpstream, Started, gateway, tidily

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "clients"))
from dialect_bodies import TOOLS, mutated, requests, rightly, stream, whole  # noqa: E402
from mock_upstream import Asked, Plan, streams  # noqa: E402
from own_model import build  # noqa: E402

THREADS = 6
IN_STREAM = b'"code":"internal"'  # an unforeseen error, told by the last event of a stream


def oddly(seed: int) -> Plan:
    """The plan of an upstream whose replies have faults."""
    draw = random.Random(seed)
    values = [*TOOLS, *stream("/chat/completions"), "stop", "tool_calls"]

    async def plan(asked: Asked) -> None:
        is_stream = bool(asked.body.get("stream"))
        said: Any = copy.deepcopy(stream(asked.path) if is_stream else whole(asked.path))
        for _ in range(draw.choice((1, 2, 4))):
            said = mutated(draw, said, values)
        if is_stream:
            await streams(*(said if isinstance(said, list) else [said]))(asked)
        else:
            await asked.reply(200, json.dumps(said).encode())

    return plan


@contextmanager
def side(name: str, folder: Path, seed: int) -> Iterator[Started]:
    """One of the gateways that are attacked."""
    if name == "own":
        build(folder / "model")
        command = [sys.executable, "-m", "escultor", "serve", "--port", "0", "--store", str(folder / "own")]
        with Started([*command, "--model", str(folder / "model")]) as process:
            yield process
        return
    plan = rightly if name == "upstream" else oddly(seed)
    with MockUpstream(plan) as mock, gateway(folder / name, mock.url) as process:
        yield process


def send(url: str, count: int, seed: int, codes: Counter[int], ours: set[int], bad: list[str]) -> None:
    """Send so many requests; those that ended in one of `ours`, and what was sent."""
    with httpx2.Client(base_url=url, timeout=300) as client:
        made = requests(random.Random(seed))
        for _ in range(count):
            method, path, body, headers = next(made)
            try:
                answer = client.request(method, path, content=body, headers=headers)
            except httpx2.TransportError as error:
                codes[0] += 1
                bad.append(f"{type(error).__name__} {method} {path} {body[:2000]!r}")
                continue
            codes[answer.status_code] += 1
            if answer.status_code in ours or IN_STREAM in answer.content:
                sent = f"{method} {path} {body[:2000]!r} {headers}"
                bad.append(f"{answer.status_code} {sent} {answer.content[-300:]!r}")


def attack(name: str, folder: Path, count: int, seed: int) -> dict[str, Any]:
    codes: Counter[int] = Counter()
    bad: list[str] = []
    ours = {500, 501, 505} if name == "odd" else {500, 501, 502, 504, 505}
    began = time.perf_counter()
    with side(name, folder, seed) as process:
        args = process.url.removesuffix("/v1"), count // THREADS
        threads = [
            threading.Thread(target=send, args=(*args, seed * 1000 + k, codes, ours, bad))
            for k in range(THREADS)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        well = httpx2.get(args[0] + "/health", timeout=60).json()["failed_writes"] == 0
        code, said = process.stop(60), process.said
    return {
        "requests": sum(codes.values()),
        "statuses": {str(code): n for code, n in sorted(codes.items())},
        "ours": len(bad),
        "failed": bad[:5],
        "tracebacks": said.count("Traceback"),
        "log_of_failures": said[-3000:] if "Traceback" in said else "",
        "ended_well": well and code == 0,
        "seconds": round(time.perf_counter() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tidily()
    report: dict[str, Any] = {"bench": "attack_bodies", "date": time.strftime("%Y-%m-%d"), "seed": given.seed}
    broken = False
    with tempfile.TemporaryDirectory() as folder:
        for name, fifths in (("upstream", 2), ("odd", 1), ("own", 2)):
            found = attack(name, Path(folder), given.requests * fifths // 5, given.seed)
            report[name] = found
            print(name, json.dumps(found), file=sys.stderr, flush=True)
            broken |= bool(found["ours"] or found["tracebacks"] or not found["ended_well"])
    print(json.dumps(report | {"broken": broken}))
    sys.exit(broken)


if __name__ == "__main__":
    main()
