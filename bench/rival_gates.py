"""What other tools' gates promote, beside ours: by true gain, number of items and kind of score.

    python bench/rival_gates.py [--runs 2000] [--seed 0]

Rules, in our own words, as tools for this loop ship them (they look at the two means alone):

within five points   promoted unless the candidate's mean is more than 0.05 below the champion's
mean wins            promoted where the candidate's mean is the higher one
always               promoted
escultor             the gate at a suite's first analysis, no guards: better at its share of alpha, and for
                     other than 0/1 scores a distribution-free lower bound above 0

All rules see the same simulated scores. One JSON object last, and before it the table of docs/gate.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from gate_power import ALPHA, Runs, binary, continuous, generator, is_better, rare_loss
from monte_carlo import share

GAINS = (-0.05, 0.0, 0.05, 0.10)
SIZES = (50, 100, 200, 400)
KINDS: dict[str, Callable[[np.random.Generator, int, int, float], Runs]] = {
    "right or wrong": binary,
    "continuous": continuous,
    "2 % lose 0.8": rare_loss(0.02, 0.8),
}


def mean(runs: Runs) -> np.ndarray:
    return runs.sums.sum(axis=1) / runs.sizes.sum(axis=1)


RULES: dict[str, Callable[[Runs], np.ndarray]] = {
    "within five points": lambda runs: mean(runs) >= -0.05,
    "mean wins": lambda runs: mean(runs) > 0,
    "always": lambda runs: np.ones(len(runs.sums), bool),
    "escultor": lambda runs: is_better(runs, "now", ALPHA["now"]),
}


def promoted(runs: int, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """The share promoted by kind, gain and items, under every rule."""
    found = {}
    for kind, design in KINDS.items():
        for gain in GAINS:
            for n in SIZES:
                drawn = design(generator(seed, "rivals", kind, gain, n), runs, n, gain)
                found[f"{kind}, {gain:+.2f}, {n}"] = {
                    rule: share(int(decides(drawn).sum()), runs) for rule, decides in RULES.items()
                }
    return found


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """The lowest and the highest share over the numbers of items, in percent."""
    lines = [f"| kind | true gain | {' | '.join(RULES)} |", f"|---|---|{'---|' * len(RULES)}"]
    for kind in KINDS:
        for gain in GAINS:
            cells = [found[f"{kind}, {gain:+.2f}, {n}"] for n in SIZES]
            shares = [[round(100 * cell[rule]["share"]) for cell in cells] for rule in RULES]
            words = [f"{min(s)} to {max(s)}" if min(s) < max(s) else str(s[0]) for s in shares]
            lines.append(f"| {kind} | {100 * gain:+.0f} points | {' | '.join(words)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked, began = parser.parse_args(), time.perf_counter()
    found = promoted(asked.runs, asked.seed)
    print(table(found), flush=True)
    print(json.dumps({"by": found, "seed": asked.seed, "seconds": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
