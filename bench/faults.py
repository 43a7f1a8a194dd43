"""`kill -9` of a loaded gateway, thirty times on one store: what was acknowledged must be there, once.

    python bench/faults.py [--rounds 30] [--store FOLDER]

Eleven clients ask (every other answer streamed) and judge; events whose fate is unknown are sent again. The
upstream is a mock. Prints one JSON object last; leaves with 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from machine import processor
from serving import MockUpstream, found, killed, serves, tidily


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--store", type=Path, help="where the store is made")
    given = parser.parse_args()
    tidily()
    began = time.perf_counter()
    mock = MockUpstream(serves(pause_s=0.001, calls_tools=True))
    with tempfile.TemporaryDirectory(dir=given.store) as folder, mock:
        store = Path(folder) / "store"
        told = killed(given.rounds, store, mock.url)
        after = found(store, told)
    report = {
        "bench": "faults",
        "machine": processor(),
        "date": time.strftime("%Y-%m-%d"),
        "kills": given.rounds,
        "seconds": round(time.perf_counter() - began, 1),
        "asked": told.asked,
        "answers_acknowledged": len(told.answers),
        "streams_begun": len(told.begun),
        "events_acknowledged": len(told.events),
        "events_sent": told.events_sent,
        **asdict(after),
    }
    print(json.dumps(report))
    sys.exit(1 if after.broken else 0)


if __name__ == "__main__":
    main()
