"""Feedback events a second, durable when acknowledged: single and in batches, in this process and over HTTP.

    python bench/intake.py [--seconds 5] [--batch 500] [--workers 32] [--postgres]

SQLite in a temporary folder; with --postgres also a PostgreSQL of its own (Debian's binaries), fsync on. The
gateway and the load are two processes that share the machine. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import load
from machine import processor

from escultor.store import open_store
from escultor.types import Deployment, Feedback, Rating

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import postgres


def direct(url: str, blobs: str, seconds: float, batch: int) -> dict[str, Any]:
    """Appends of one thread, without HTTP: `single` waits for the disk at every event."""
    found = {}
    with open_store(url, blobs=blobs) as store:
        for name, size in (("single", 1), ("batch", batch)):
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                ids = (f"{name}-{count + k}" for k in range(size))
                store.log.append(*(Rating(id, 1.0, "answer", "s" * 32, "thumb", True) for id in ids))
                count += size
            found[f"{name}_per_s"] = count / (time.perf_counter() - start)
    return found


def serve(url: str, blobs: str) -> None:
    """The gateway in a process of its own; its port is the first line."""
    from escultor.config import Serve
    from escultor.serve.gateway.app import build
    from escultor.serve.gateway.gateway import Gateway
    from escultor.serve.gateway.server import listen, run

    class Silent:
        version, problem = "none", None

        async def close(self) -> None:
            pass

    async def engine(_: str) -> Any:
        return Silent()

    bound = listen("127.0.0.1", 0)
    default = Deployment("bench", 1.0, {"none": 1.0}, {"champion": "none"}, "a benchmark")
    with open_store(url, blobs=blobs) as store:
        app = build(Gateway(store, Serve(), engine, default, fixed=True))
        print(bound.getsockname()[1], flush=True)
        run(app, Serve(), bound)


def over_http(url: str, blobs: str, seconds: float, batch: int, workers: int) -> dict[str, Any]:
    """Closed loop against a gateway: single events at `workers` a time, batches at 2."""
    command = [sys.executable, __file__, "--serve", url, blobs]
    found: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            client_url = f"http://127.0.0.1:{process.stdout.readline().strip()}/v1/feedback"
            for name, size, at_once in (("single", 1, workers), ("batch", batch, 2)):
                found |= load.run(_load(client_url, name, size, at_once, seconds))
        finally:
            process.terminate()
    with open_store(url, blobs=blobs) as store:
        kept = sum(1 for _, event in store.log.read(Feedback) if event.id.startswith("http-"))
    acknowledged = found["single_acknowledged"] + found["batch_acknowledged"]
    assert kept == acknowledged, f"{kept} kept of {acknowledged}"
    return found


async def _load(url: str, name: str, size: int, workers: int, seconds: float) -> dict[str, Any]:
    client = load.Client(url)

    def request(n: int) -> bytes:
        events = [
            {"kind": "boolean", "id": f"http-{name}-{n}-{k}", "target": f"a{n}", "value": True}
            for k in range(size)
        ]
        return client.request(json.dumps(events if size > 1 else events[0]).encode())

    done = await load.closed_loop(client, request, workers, seconds)
    client.close()
    assert not done.errors, done.said
    acknowledged = len(done.latency_ms) * size
    return {
        f"{name}_acknowledged": acknowledged,
        f"{name}_per_s": acknowledged / done.seconds,
        f"{name}_ms": load.quantiles(done.latency_ms),
    }


@contextlib.contextmanager
def stores(with_postgres: bool) -> Iterator[dict[str, tuple[str, str]]]:
    """Url and blobs of fresh stores, by name."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as held:
        found = {"sqlite": (f"{folder}/store", f"{folder}/store/blobs")}
        if with_postgres:
            found["postgresql"] = held.enter_context(postgres.server()), f"{folder}/blobs"
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(*given.serve)
        return
    figures: dict[str, Any] = {"machine": processor(), "batch": given.batch, "workers": given.workers}
    with stores(given.postgres) as urls:
        for name, (url, blobs) in urls.items():
            figures[name] = {
                "direct": direct(url, blobs, given.seconds, given.batch),
                "http": over_http(url, blobs, given.seconds, given.batch, given.workers),
            }
            print(name, load.rounded(figures[name]), file=sys.stderr)
    print(json.dumps(load.rounded(figures)))


if __name__ == "__main__":
    main()
