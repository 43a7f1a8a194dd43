"""The gate's error rates, by simulation: what it promotes when nothing is better, and when something is.

    python bench/gate_simulation.py [--comparisons 10000] [--seed 0]

1  A/A: both sides drawn from one distribution, over designs and sizes; promotions must be at most 5 %.
2  One suite asked by 20 equal candidates in turn, with alpha spending and without.
3  Power: a pilot of 100 items is held and names a number of items; a fresh comparison with that many
   must promote a truly better candidate at least 80 % of the time. Once from the pilot's own figures, once
   from figures of two million items, which are the truth.
4  A candidate better on the primary whose guard is truly worse by twice its margin; promotions at most 5 %.
5  A candidate that is no better on average, whose rare large losses pay for many small gains; promotions
   at most 5 %. `gate_power.py` has more of this kind.

Every share is printed with its Monte-Carlo standard error. One JSON object last.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

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

AS_DECIDED = 20  # runs that are decided in full as well

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


# --- the five questions ---------------------------------------------------------------------------


def equal_models(comparisons: int, seed: int) -> dict[str, object]:
    """Promotions among A/A comparisons, one or two primaries in turn."""
    each, by, total = -(-comparisons // (len(DESIGNS) * len(SIZES))), {}, 0
    for name, design in DESIGNS.items():
        for n in SIZES:
            found = 0
            for run in range(each):
                rng = generator(seed, "A/A", name, n, run)
                sides, per = design(rng, n, 0.0)
                policy = TWO if run % 2 else POLICY
                if policy is TWO:
                    sides["faithful"] = design(rng, n, 0.0)[0]["quality"]
                found += isinstance(decide(*scores(sides, per), policy, run), Promote)
            by[f"{name} {n}"] = share(found, each)
            total += found
            print(f"A/A {name:10} n {n:5}: {by[f'{name} {n}']}", flush=True)
    return {"all": share(total, each * len(by)), "by": by}


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
                shown = _is_near(new - old, alpha_at(look, policy)) and _promotes(*sides, policy, look, look)
                found[rule] |= shown
                if run < AS_DECIDED // 20:
                    verdict = decide(*sides, policy, look, GateContext(look=look))
                    assert shown == isinstance(verdict, Promote)
        for rule, hit in found.items():
            any_of[rule] += hit
    return {rule: share(count, suites) for rule, count in any_of.items()}


def _is_near(gaps: np.ndarray, alpha: float) -> bool:
    """Whether a test may come out below its alpha: where a normal one is far above, none is drawn."""
    z = float(gaps.mean() / gaps.std(ddof=1) * np.sqrt(len(gaps)))
    return NormalDist().cdf(-z) < 20 * alpha


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
            for r in range(4 * runs):
                sides = draw(planned, "plan", r)
                hits += (shown := _promotes(*sides, policy, r))
                assert r >= AS_DECIDED or shown == isinstance(decide(*sides, policy, r), Promote)
            held, after, named = 0, 0, []
            for r in range(runs // 4):
                pilot = decide(*draw(100, "pilot", r), policy, r)
                if isinstance(pilot, Hold) and pilot.n_needed is not None and pilot.n_needed <= 20_000:
                    held += 1
                    named.append(pilot.n_needed)
                    after += isinstance(decide(*draw(pilot.n_needed, "after", r), policy, r), Promote)
            found[f"{name}, {kind}"] = {
                "planned_n": planned,
                "planned": share(hits, 4 * runs),
                "pilot_n_median": float(np.median(named)) if named else None,
                "after_pilot": share(after, held) if held else None,
            }
            print(f"power {name}, {kind}: {found[f'{name}, {kind}']}", flush=True)
    return found


def _promotes(old: Scores, new: Scores, policy: Gate, seed: int, look: int = 1) -> bool:
    """What `decide` makes of it, without the intervals that it shows, which take most of its time: the same
    tests with the same draws, held against it on the first runs."""
    groups = stats.grouped(old.clusters)

    def gaps(metric: str) -> np.ndarray:
        return np.subtract(new.metrics[metric], old.metrics[metric])

    quality, own, alpha = gaps("quality"), derive_seed(seed, "gate", "quality"), alpha_at(look, policy)
    if {*old.metrics["quality"], *new.metrics["quality"]} <= {0.0, 1.0}:
        p, limits = stats.mcnemar(int((quality > 0).sum()), int((quality < 0).sum()), len(quality)), {}
    else:
        p, limits = stats.sign_flip(quality, groups, alpha, own).better, {"quality": 0.0}
    if p > alpha:
        return False
    limits |= policy.guards
    return all(
        stats.bounded_mean(
            gaps(name),
            groups,
            policy.alpha,
            derive_seed(seed, "gate", name),
            floor=-1.0,
            ceiling=1.0,
            null=-margin,
        ).low
        > -margin
        for name, margin in limits.items()
    )


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


def skewed(runs: int, seed: int) -> dict[str, object]:
    """Promotions where the mean difference is 0 but its distribution is lopsided."""
    found: dict[str, object] = {}
    for n in SIZES:
        hits = 0
        for r in range(runs):
            rng = generator(seed, "skewed", n, r)
            gaps = np.where(rng.random(n) < 0.1, -0.18, 0.02)
            base = rng.uniform(0.3, 0.7, n)
            hits += isinstance(decide(*scores({"quality": (base, base + gaps)}, 1), POLICY, r), Promote)
        found[str(n)] = share(hits, runs)
        print(f"skewed, n {n:5}: {found[str(n)]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=10_000, help="A/A comparisons")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("equal", "looks", "power", "guard", "skewed"))
    asked = parser.parse_args()
    began, runs = time.perf_counter(), max(20, asked.comparisons // 20)
    questions = {
        "equal": lambda: equal_models(asked.comparisons, asked.seed),
        "looks": lambda: many_looks(4 * runs, asked.seed),
        "power": lambda: power(runs, asked.seed),
        "guard": lambda: broken_guard(runs, asked.seed),
        "skewed": lambda: skewed(runs, asked.seed),
    }
    found = {name: ask() for name, ask in questions.items() if asked.only in (None, name)}
    print(json.dumps({**found, "seed": asked.seed, "seconds": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
