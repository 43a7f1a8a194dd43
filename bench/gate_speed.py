"""How long a decision takes: 100,000 items in 50,000 clusters, ten metrics.

    python bench/gate_speed.py [--items 100000]

Five primaries and five guards, so that every kind of statistic is paid for. One JSON object last.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from escultor.config import Gate
from escultor.evaluate.gate.decision import decide
from escultor.types import Scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    n = parser.parse_args().items
    rng, base = np.random.default_rng(0), np.random.default_rng(1).uniform(0.2, 0.8, (10, n))
    items, clusters = tuple(f"i{k}" for k in range(n)), tuple(f"c{k // 2}" for k in range(n))
    sides = []
    for name, gain in (("old", 0.0), ("new", 0.002)):
        values = np.clip(base + gain + rng.normal(0, 0.1, base.shape), 0, 1)
        metrics = {f"m{k}": tuple(row.tolist()) for k, row in enumerate(values)}
        sides.append(Scores(name, name, "suite", items, clusters, metrics))
    policy = Gate(primary=tuple(f"m{k}" for k in range(5)), guards={f"m{k}": 0.01 for k in range(5, 10)})
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        verdict = decide(sides[0], sides[1], policy, 0)
        seconds.append(round(time.perf_counter() - began, 2))
    said = {"verdict": type(verdict).__name__, "items": n, "metrics": 10}
    print(json.dumps({**said, "seconds": min(seconds), "all_seconds": seconds}))


if __name__ == "__main__":
    main()
