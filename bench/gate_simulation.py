"""The gate's error rates, by simulation: what it promotes when nothing is better, and when something is.

    python bench/gate_simulation.py [--runs 400] [--seed 0] [--only equal|looks|power|guard]

equal   both sides drawn from one distribution, over designs and sizes; promotions must be at most 5 % in
        every cell of so many runs
looks   one suite asked by 20 equal candidates in turn, with alpha spending and without
power   a pilot of 100 items is held and names a number of items; a fresh comparison with that many must
        promote a truly better candidate at least 80 % of the time. Once from the pilot's own figures, in a
        quarter of the runs, once from figures of two million items, which are the truth
guard   a candidate better on the primary whose guard is truly worse by twice its margin; at most 5 %

`gate_power.py` has candidates whose rare large losses pay for many small gains. Every share is printed with
its Monte-Carlo standard error. One JSON object last.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist
from unittest.mock import patch

import numpy as np
from monte_carlo import share

from escultor import stats
from escultor.config import Gate
from escultor.evaluate.gate.alpha_spending import alpha_at
from escultor.evaluate.gate.decision import decide
from escultor.evaluate.gate.effects import items_needed, measure
from escultor.rng import derive_seed
from escultor.types import GateContext, Hold, Promote, Reject, Scores

SIZES = (50, 100, 200, 500, 1000, 2000)
POLICY = Gate(primary=("quality",), guards={}, alpha_spending="full")
TWO = Gate(primary=("quality", "faithful"), guards={}, alpha_spending="full")
GUARDED = Gate(primary=("quality",), guards={"valid": 0.05}, alpha_spending="full")

AS_DECIDED = 20  # runs of a cell that are decided in full as well
NO_INTERVAL = stats.Interval(0.0, 0.0, 0.0, 0)

Sides = dict[str, tuple[np.ndarray, np.ndarray]]
Design = Callable[[np.random.Generator, int, float], tuple[Sides, int]]


# --- designs: champion's and candidate's scores, and the items of a cluster -------------------------


def binary(rng: np.random.Generator, n: int, gain: float) -> tuple[Sides, int]:
    """Right or wrong; items differ in difficulty, so the sides agree on most of them."""
    easy = rng.beta(2, 1, n)
    old = (rng.random(n) < easy).astype(float)
    new = (rng.random(n) < np.clip(easy + gain, 0, 1)).astype(float)
    return {"quality": (old, new)}, 1


def continuous(rng: np.random.Generator, n: int, gain: float) -> tuple[Sides, int]:
    """Scores between 0 and 1 around an item's own level."""
    level = rng.beta(3, 2, n) * 0.8 + 0.1
    old, new = (np.clip(level + shift + rng.normal(0, 0.1, n), 0, 1) for shift in (0.0, gain))
    return {"quality": (old, new)}, 1


def clustered(rng: np.random.Generator, n: int, gain: float) -> tuple[Sides, int]:
    """Families of five prompts on which a model does well or badly together."""
    level = rng.beta(3, 2, n) * 0.6 + 0.2
    shared = [np.repeat(rng.normal(0, 0.08, -(-n // 5)), 5)[:n] for _ in range(2)]
    old, new = (
        np.clip(level + shift + own + rng.normal(0, 0.08, n), 0, 1)
        for shift, own in zip((0.0, gain), shared, strict=True)
    )
    return {"quality": (old, new)}, 5


def ties(rng: np.random.Generator, n: int, gain: float) -> tuple[Sides, int]:
    """Marks in quarters; seven items in ten get the same mark from both."""
    mark = rng.integers(0, 5, n) / 4
    moved = rng.random((2, n)) < 0.3
    up = rng.random((2, n)) < np.array([[0.5], [0.5 + gain / 0.15]])
    old, new = (np.clip(mark + np.where(moved[k], np.where(up[k], 0.25, -0.25), 0), 0, 1) for k in (0, 1))
    return {"quality": (old, new)}, 1


DESIGNS: dict[str, Design] = {f.__name__: f for f in (binary, continuous, clustered, ties)}


def scores(sides: Sides, per: int) -> tuple[Scores, Scores]:
    n = len(next(iter(sides.values()))[0])
    items = tuple(f"i{k}" for k in range(n))
    clusters = tuple(f"c{k // per}" for k in range(n))
    made = []
    for at, name in enumerate(("old", "new")):
        metrics = {m: tuple(pair[at].tolist()) for m, pair in sides.items()}
        made.append(Scores(name, name, "suite", items, clusters, metrics))
    return made[0], made[1]


def generator(seed: int, *names: object) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "bench", *names))


# --- the four questions ---------------------------------------------------------------------------


def equal_models(runs: int, seed: int) -> dict[str, object]:
    """Promotions among comparisons of equal sides, one or two primaries in turn."""
    by: dict[str, dict[str, float]] = {}
    for name, design in DESIGNS.items():
        for n in SIZES:
            found = 0
            for run in range(runs):
                rng = generator(seed, "A/A", name, n, run)
                sides, per = design(rng, n, 0.0)
                policy = TWO if run % 2 else POLICY
                if policy is TWO:
                    sides["faithful"] = design(rng, n, 0.0)[0]["quality"]
                found += _promotes(scores(sides, per), policy, run, is_checked=run < AS_DECIDED)
            by[f"{name} {n}"] = share(found, runs)
            print(f"A/A {name:10} n {n:5}: {by[f'{name} {n}']}", flush=True)
    return {"highest": max(cell["share"] for cell in by.values()), "by": by}


def many_looks(suites: int, seed: int) -> dict[str, object]:
    """Whether any of 20 equal candidates is promoted on one suite."""
    any_of = dict.fromkeys(("shared", "full"), 0)
    for run in range(suites):
        rng = generator(seed, "looks", run)
        found = dict.fromkeys(any_of, False)
        old = 0.4 + 0.2 * rng.beta(3, 2, 200)
        for look in range(1, 21):
            new = np.clip(old + rng.normal(0, 0.1, 200), 0, 1)
            sides = scores({"quality": (old, new)}, 1)
            for rule in any_of:
                policy = POLICY.model_copy(update={"alpha_spending": rule})
                found[rule] |= _promotes(sides, policy, look, look, is_checked=run < AS_DECIDED // 20)
        for rule, hit in found.items():
            any_of[rule] += hit
    return {rule: share(count, suites) for rule, count in any_of.items()}


def _promotes(
    sides: tuple[Scores, Scores], policy: Gate, seed: int, look: int = 1, *, is_checked: bool = False
) -> bool:
    """What `decide` makes of two sides, by its own tests and draws but without the intervals that it shows,
    which take most of its time; none is drawn where a normal test of every primary is far above its alpha."""
    alpha = alpha_at(look, policy)
    states: set[str] = set()
    if any(_normal_p_value(*sides, metric) < min(20 * alpha, 0.25) for metric in policy.primary):
        with patch.object(stats, "bootstrap_mean", lambda *_, **__: NO_INTERVAL):
            effects = [m.effect for m in measure(*sides, policy, alpha, seed)]
        states = {e.state for e in effects if e.role == "primary"}
        states |= {"unsafe" for e in effects if e.role == "guard" and e.state != "kept"}
    found = "better" in states and not {"worse", "unsafe"} & states
    if is_checked:
        verdict = decide(*sides, policy, seed, GateContext(look=look))
        assert found == isinstance(verdict, Promote), verdict.because.reason
    return found


def _normal_p_value(old: Scores, new: Scores, metric: str) -> float:
    gaps = np.subtract(new.metrics[metric], old.metrics[metric])
    groups = stats.grouped(old.clusters)
    means = stats.cluster_sums(gaps, groups)[0] / groups.sizes
    spread = float(means.std(ddof=1))
    return NormalDist().cdf(-float(means.mean()) / spread * math.sqrt(len(means))) if spread else 1.0


GAINS = {"binary": 0.06, "continuous": 0.02, "clustered": 0.03, "ties": 0.02}


def _with_guard(sides: Sides, rng: np.random.Generator, loss: float) -> Sides:
    """A guard on which both sides fail now and then, the candidate by `loss` more often."""
    n = len(sides["quality"][0])
    bad = rng.random((2, n)) < np.array([[0.02], [0.02 + loss]])
    return {**sides, "valid": (1.0 - bad[0], 1.0 - bad[1])}


def power(runs: int, seed: int) -> dict[str, object]:
    """Promotions of a truly better candidate with the items that the tool named."""
    found: dict[str, object] = {}
    for name, design in DESIGNS.items():
        for policy in (POLICY, GUARDED):
            kind = "primary and guard" if policy.guards else "primary"

            def draw(n: int, *at: object, design: Design = design, name: str = name, policy: Gate = policy):
                rng = generator(seed, "power", name, bool(policy.guards), *at)
                sides, per = design(rng, n, GAINS[name])
                return scores(_with_guard(sides, rng, 0.0) if policy.guards else sides, per)

            planned = _planned([draw(50_000, "truth", part) for part in range(40)], policy)
            hits = 0
            for r in range(runs):
                hits += _promotes(draw(planned, "plan", r), policy, r, is_checked=r < AS_DECIDED)
            held, after, named = 0, 0, []
            for r in range(runs // 4):
                pilot = decide(*draw(100, "pilot", r), policy, r)
                if isinstance(pilot, Hold) and pilot.n_needed is not None and pilot.n_needed <= 20_000:
                    held += 1
                    named.append(pilot.n_needed)
                    after += isinstance(decide(*draw(pilot.n_needed, "after", r), policy, r), Promote)
            found[f"{name}, {kind}"] = {
                "planned_n": planned,
                "planned": share(hits, runs),
                "pilot_n_median": float(np.median(named)) if named else None,
                "after_pilot": share(after, held) if held else None,
            }
            print(f"power {name}, {kind}: {found[f'{name}, {kind}']}", flush=True)
    return found


def _planned(parts: list[tuple[Scores, Scores]], policy: Gate) -> int:
    """What a hold names from figures that are the truth, taken from two million items in parts, without
    the rule that it never names fewer items than it was shown."""
    measured = [measure(*sides, policy, policy.alpha, 0) for sides in parts]
    true = []
    for same in zip(*measured, strict=True):
        spread = float(np.sqrt(np.mean([m.needs[0].spread ** 2 for m in same])))
        slack = float(np.mean([m.needs[0].slack for m in same]))
        needs = tuple(replace(c, slack=slack, spread=spread, seen=None) for c in same[0].needs)
        true.append(replace(same[0], needs=needs))
    n = items_needed(true, policy, policy.min_items)
    assert n is not None
    return n


def broken_guard(runs: int, seed: int) -> dict[str, object]:
    """Promotions of a candidate whose guard is worse by twice its margin."""
    found: dict[str, object] = {}
    for n in SIZES:
        promoted = rejected = 0
        for r in range(runs):
            rng = generator(seed, "guard", n, r)
            sides, per = continuous(rng, n, 0.1)
            verdict = decide(*scores(_with_guard(sides, rng, 0.10), per), GUARDED, r)
            promoted += isinstance(verdict, Promote)
            rejected += isinstance(verdict, Reject)
        found[str(n)] = {"promoted": share(promoted, runs), "rejected": share(rejected, runs)}
        print(f"guard broken, n {n:5}: {found[str(n)]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    questions = {"equal": equal_models, "looks": many_looks, "power": power, "guard": broken_guard}
    parser.add_argument("--only", choices=tuple(questions))
    asked, began = parser.parse_args(), time.perf_counter()
    found = {
        name: ask(asked.runs, asked.seed) for name, ask in questions.items() if asked.only in (None, name)
    }
    print(json.dumps({**found, "seed": asked.seed, "seconds": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
