"""The gateway in front of a mock upstream, every answer durable in the log before it is delivered.

    python bench/serve.py [--rate 200] [--seconds 20] [--soak-s 300] [--store FOLDER]

Three figures, each from processes of its own on loopback, load client and upstream on the same cores:

* added latency at a constant rate: straight to the upstream and through the gateway in turns, A B A B, of
  plain answers and of calls of tools;
* the highest steady rate whose p99 stays under 50 ms, with one process and with two on one store;
* a soak: half an hour's requests, one in ten streamed, one in ten judged, in five minutes; memory, errors,
  and the processor time of a request, in its second quarter and its last.

Where `wrk` is installed it is run too. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import Client, Load, Reply, open_loop, quantile, rounded, run
from machine import processor
from serving import Started, chat, family, feedback, gateway, mock, tidily, wrk

P99_MS = 50.0  # what a steady rate must keep
STEP = 1.25  # between two rates that are tried
PROBE_S = 5.0
LATE_MS = 10.0  # of the client's own p99: beyond it the client is what is measured
SOAK_PER_S = 240.0  # six times 40 a second: in 300 s, what half an hour of them is
PATH = "/v1/chat/completions"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=200.0, help="at which the added latency is measured")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of eight segments")
    parser.add_argument("--soak-s", type=float, default=300.0, help="0: no soak")
    parser.add_argument("--highest", type=float, default=3000.0, help="rate up to which is looked; 0: not")
    parser.add_argument("--store", type=Path, help="where stores are made: the disk that is measured")
    given = parser.parse_args()
    tidily()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=given.store) as folder, mock() as upstream:
        for name, tools in (("added_latency_ms", False), ("added_latency_with_tools_ms", True)):
            figures[name] = added(Path(folder) / name, upstream, given.rate, given.seconds, tools=tools)
        if given.highest:
            figures["steady"] = {
                f"{workers}_processes": steady(Path(folder) / f"w{workers}", upstream, workers, given.highest)
                for workers in (1, 2)
            }
        if given.soak_s:
            figures["soak"] = soak(Path(folder) / "soak", upstream, given.soak_s)
        if wrk.installed():
            figures["wrk"] = by_wrk(Path(folder) / "wrk", upstream, given.seconds)
    facts = {"bench": "serve", "machine": processor(), "date": time.strftime("%Y-%m-%d")}
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(given).items()}
    print(json.dumps(rounded(facts | {"settings": settings} | figures)))


# --- added latency ----------------------------------------------------------------------------


def added(store: Path, upstream: Started, rate: float, seconds: float, *, tools: bool) -> dict[str, Any]:
    """Quantiles through the gateway less those straight to it, as far apart as intervals allow; with `tools`
    every request offers ten and is answered by a call."""
    runs: dict[str, list[Load]] = {"direct": [], "gateway": []}
    with gateway(store, upstream.url + "/v1") as served:
        urls = {"direct": upstream.url, "gateway": served.url}
        for url in urls.values():  # connections, code paths and pages that a first request pays for
            run(loaded(url, rate, 1.0, tools=tools))
        for name in ("direct", "gateway", "direct", "gateway"):
            runs[name].append(run(loaded(urls[name], rate, seconds, tools=tools)))
            say(f"{name} tools" if tools else name, runs[name][-1])
    report: dict[str, Any] = {"requests_per_s": rate, "errors": {}}
    for q, word in ((0.5, "p50"), (0.99, "p99")):
        direct, through = (quantile([ms for r in runs[n] for ms in r.latency_ms], q) for n in runs)
        report[word] = (through[0] - direct[0], through[1] - direct[2], through[2] - direct[1])
        report |= {f"direct_{word}": direct[0], f"gateway_{word}": through[0]}
    report["errors"] = {
        name: dict(sum((r.errors for r in each), start=Load().errors)) for name, each in runs.items()
    }
    report["client_late_p99"] = max(quantile(r.late_ms, 0.99)[0] for each in runs.values() for r in each)
    return report


async def loaded(url: str, rate: float, seconds: float, *, tools: bool) -> Load:
    client = Client(url + PATH)
    try:
        return await open_loop(client, lambda n: client.request(chat(n, tools=tools)), rate, seconds)
    finally:
        client.close()


# --- the highest steady rate ------------------------------------------------------------------


def steady(store: Path, upstream: Started, workers: int, highest: float) -> dict[str, Any]:
    """The highest rate with p99 under 50 ms, no error and all answered; and what gave way above it."""
    best: dict[str, Any] = {}
    with gateway(store, upstream.url + "/v1", "--workers", str(workers)) as served:
        run(loaded(served.url, 50, 1.0))
        rate = 100.0
        while rate <= highest:
            began = {name: cpu_s(p.pid) for name, p in (("gateway", served), ("upstream", upstream))}
            own, clock = time.process_time(), time.perf_counter()
            load = run(loaded(served.url, rate, PROBE_S))
            took = time.perf_counter() - clock
            busy = {"client": (time.process_time() - own) / took}
            for name, process in (("gateway", served), ("upstream", upstream)):
                busy[name] = (cpu_s(process.pid) - began[name]) / took
            p99 = quantile(load.latency_ms, 0.99)[0] if load.latency_ms else float("inf")
            say(f"{workers} x {rate:.0f}/s", load)
            probe = {
                "requests_per_s": rate,
                "p99_ms": p99,
                "errors": dict(load.errors),
                "client_late_p99_ms": quantile(load.late_ms, 0.99)[0],
                "cores_busy": busy,
            }
            if p99 >= P99_MS or load.errors:
                return {"best": best, "gave_way_at": probe}
            best, rate = probe, rate * STEP
    return {"best": best, "gave_way_at": None}


def cpu_s(pid: int) -> float:
    """Seconds of processor time of a process and its children, those that ended left out."""
    ticks = 0
    for each in family(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


# --- the soak ---------------------------------------------------------------------------------


@dataclass
class Weight:
    """What the gateway weighs and has spent at a moment of the soak."""

    rss_mib: float
    cpu_s: float
    answered: int


def soak(store: Path, upstream: Started, seconds: float) -> dict[str, Any]:
    """Half an hour's requests in 300 s; memory and processor time of the last quarter against the second."""
    weights: list[Weight] = []
    with gateway(store, upstream.url + "/v1") as served:
        load = run(soaked(served, seconds, weights))
        say("soak", load)
    second, last = (weights[k * len(weights) // 4 : (k + 1) * len(weights) // 4] for k in (1, 3))
    before, after = (statistics.mean(w.rss_mib for w in part) for part in (second, last))
    return {
        "requests_per_s": SOAK_PER_S,
        "seconds": seconds,
        **load.report(),
        "rss_mib": {"second_quarter": before, "last_quarter": after, "most": max(w.rss_mib for w in weights)},
        "rss_grown": after / before - 1,
        "cpu_ms_per_request": {"second_quarter": spent_ms(second), "last_quarter": spent_ms(last)},
        "status_5xx": sum(count for name, count in load.errors.items() if name.startswith("5")),
    }


def spent_ms(part: list[Weight]) -> float:
    """Processor time of the gateway for each request that was answered meanwhile."""
    answered = part[-1].answered - part[0].answered
    return 1000 * (part[-1].cpu_s - part[0].cpu_s) / answered if answered else float("nan")


async def soaked(served: Started, seconds: float, weights: list[Weight]) -> Load:
    client, last, answered = Client(served.url + PATH), "chatcmpl-none", 0

    def request(n: int) -> bytes:
        if n % 10 == 9:
            return client.request(feedback(n, last), "/v1/feedback")
        return client.request(chat(n, stream=n % 10 == 4))

    def seen(n: int, reply: Reply) -> None:
        nonlocal last, answered
        answered += 1
        if n % 10 < 4 and reply.status == 200:
            last = json.loads(reply.body)["id"]

    async def weigh() -> None:
        while True:
            weights.append(Weight(served.rss_mib(), cpu_s(served.pid), answered))
            await asyncio.sleep(seconds / 200)

    weighing = asyncio.create_task(weigh())
    try:
        return await open_loop(client, request, SOAK_PER_S, seconds, seen)
    finally:
        weighing.cancel()
        client.close()


# --- wrk --------------------------------------------------------------------------------------


def by_wrk(store: Path, upstream: Started, seconds: float) -> dict[str, Any]:
    """A closed loop of 16 connections by another's hand."""
    with gateway(store, upstream.url + "/v1") as served:
        said = wrk.drive(served.url + PATH, chat(0), 16, max(1, round(seconds)))
    figures = said | {"connections": 16, "answered_per_s": said["answered"] / said["seconds"]}
    print("wrk", figures, flush=True)
    return figures


def say(name: str, load: Load) -> None:
    p50, p99 = (quantile(load.latency_ms, q)[0] for q in (0.5, 0.99))
    figures = f"{load.answered_per_s:8.1f}/s   p50 {p50:7.2f} ms   p99 {p99:8.2f} ms"
    print(f"{name:14} {figures}   {dict(load.errors) or ''}", flush=True)


if __name__ == "__main__":
    main()
