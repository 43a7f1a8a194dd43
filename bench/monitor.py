"""What watching costs: a year of hourly windows, and the throughput of a gateway beside a monitor.

    python bench/monitor.py [--versions 1] [--seconds 20] [--rounds 4] [--every 5]

The year: 8,760 hourly tallies are read from a log, merged, and the health of every hour is computed.
The throughput: a closed loop of 16 connections to a gateway before the cheapest upstream, without and with
`--monitor`, in turns (as a service the monitor checks once a minute, not every five seconds). 0 seconds leave
it out. Prints one JSON object last; quotients count on a quiet machine only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from load import Client, Load, closed_loop, rounded, run
from machine import processor
from serving import chat, gateway, mock, tidily

from escultor.monitor.buckets import BUCKET_S, CallCounts, as_record, from_record, of_versions
from escultor.monitor.metrics import MetricsWindow, health
from escultor.store import open_store
from escultor.types import CallTally

WARM_S = 8.0
HOURS, HOUR_S, PER_HOUR = 365 * 24, 3600.0, int(3600 // BUCKET_S)


def tallies(versions: int) -> Iterator[CallTally]:
    """An hour each: every five minutes of every version has forty calls, of many latencies."""
    latencies = Counter(np.random.default_rng(0).integers(500, 700, 39).tolist())
    rows = [
        as_record(CallCounts(f"v{v}", 0, calls=40, failed=1, cost_nano_usd=10**7, latencies=latencies))
        for v in range(versions)
    ]
    rows = [replace(row, skill="chat", arm="champion") for row in rows]
    for hour in range(HOURS):
        numbers = range(hour * PER_HOUR, (hour + 1) * PER_HOUR)
        counts = tuple(replace(row, number=number) for number in numbers for row in rows)
        yield CallTally(f"calls-{hour}", hour * HOUR_S, hour, counts)


def year(folder: Path, versions: int) -> dict[str, float]:
    """Seconds of processor time for a year."""
    with open_store(str(folder)) as store:
        made = tallies(versions)
        while some := [*islice(made, 200)]:
            store.log.append(*some)
        began = time.process_time(), time.perf_counter()
        window: dict[tuple[str, int], CallCounts] = {}
        for _, tally in store.log.read(CallTally):
            window.update(of_versions(map(from_record, tally.counts)))
        read_s = time.process_time() - began[0]
        whole = MetricsWindow(window)
        for hour in range(HOURS):
            for v in range(versions):
                health(f"v{v}", whole, hour * HOUR_S, (hour + 1) * HOUR_S)
    return {
        "read_cpu_s": read_s,
        "cpu_s": time.process_time() - began[0],
        "wall_s": time.perf_counter() - began[1],
        "windows": HOURS * versions,
        "calls": sum(each.calls for each in window.values()),
    }


async def loaded(url: str, seconds: float) -> Load:
    client = Client(url + "/v1/chat/completions")
    try:
        return await closed_loop(client, lambda n: client.request(chat(n)), 16, seconds)
    finally:
        client.close()


def throughput(folder: Path, seconds: float, rounds: int, every: float) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"alone": [], "watched": []}
    with mock() as upstream:
        for name in ("alone", "watched") * rounds:
            options = ("--monitor", str(every)) if name == "watched" else ()
            with gateway(folder, upstream.url + "/v1", *options) as served:
                run(loaded(served.url, WARM_S))  # the monitor's start is not what is measured
                load = run(loaded(served.url, seconds))
            rates[name].append(load.answered_per_s)
            print(name, round(rates[name][-1], 1), dict(load.errors), flush=True)
    alone, watched = (statistics.median(each) for each in rates.values())
    return {"answered_per_s": rates, "every_s": every, "slower_by": 1 - watched / alone}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--every", type=float, default=5.0)
    given = parser.parse_args()
    tidily()
    facts: dict[str, Any] = {"bench": "monitor", "machine": processor(), "settings": vars(given)}
    with tempfile.TemporaryDirectory() as folder:
        facts["year"] = year(Path(folder) / "year", given.versions)
        print("year", facts["year"], flush=True)
        if given.seconds:
            facts["overhead"] = throughput(Path(folder) / "served", given.seconds, given.rounds, given.every)
    print(json.dumps(rounded(facts)))


if __name__ == "__main__":
    main()
