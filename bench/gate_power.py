"""What the gate's rule costs and what it holds, beside the rule of the first version. All by simulation.

    python bench/gate_power.py [--runs 2000] [--seed 0] [--only level|guards|power]

level   share promoted of candidates that are no better on average, by design and items; at most 5 %
guards  share of guards kept that are worse by their margin, where clusters differ in size: over clusters, and
        over items with the size of clusters that the verdict names or the policy states; at most 5 %
power   items for a promotion in 80 % of the runs, under both rules, and their ratio

First version: conditional McNemar test, sign flips of cluster sums, alpha / 2 at the first analysis, a guard
of 0.02 on `valid` whose unseen cluster has the mean size. Restated here, since the package no longer has it.
Every share has its Monte-Carlo error. One JSON object last.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from monte_carlo import share
from scipy.stats import binom

from escultor import stats
from escultor.config import Gate
from escultor.evaluate.gate.alpha_spending import alpha_at
from escultor.rng import derive_seed

DRAWS = 2999
SIZES = (50, 60, 100, 200, 400, 1000)
POLICY = Gate()
ALPHA = {"before": POLICY.alpha / 2, "now": alpha_at(1, POLICY)}  # at the first analysis of a suite
FOURTH = {"before": POLICY.alpha / 20, "now": alpha_at(4, POLICY, promotions=3)}  # after three promotions
MARGIN = {"before": 0.02, "now": 0.05}  # of the guard `valid` by default


@dataclass
class Runs:
    """Cluster sums (R, G) of differences and cluster sizes (R, G); 0 where a run has fewer clusters."""

    sums: np.ndarray
    sizes: np.ndarray
    is_binary: bool = False

    @property
    def means(self) -> np.ndarray:
        return self.sums / np.maximum(self.sizes, 1)


# --- designs: differences of one metric between 0 and 1 -----------------------------------------------


def singles(gaps: np.ndarray, is_binary: bool = False) -> Runs:
    return Runs(gaps, np.ones_like(gaps), is_binary)


def binary(rng: np.random.Generator, runs: int, n: int, gain: float, decodings: int = 1) -> Runs:
    """Right or wrong; items differ in difficulty. Several decodings of an item are averaged."""
    easy = rng.beta(2, 1, (runs, n))
    old = rng.binomial(decodings, easy) / decodings
    new = rng.binomial(decodings, np.clip(easy + gain, 0, 1)) / decodings
    return singles(new - old, decodings == 1)


def binary_twice(rng: np.random.Generator, runs: int, n: int, gain: float) -> Runs:
    """The same, every item answered twice by either side."""
    return binary(rng, runs, n, gain, 2)


def binary_four(rng: np.random.Generator, runs: int, n: int, gain: float) -> Runs:
    """The same, every item answered four times."""
    return binary(rng, runs, n, gain, 4)


def ties(rng: np.random.Generator, runs: int, n: int, gain: float) -> Runs:
    """Right or wrong, and the sides agree on 92 items in 100."""
    moved, up = rng.random((runs, n)) < 0.08, rng.random((runs, n)) < 0.5 + gain / 0.16
    return singles(np.where(moved, np.where(up, 1.0, -1.0), 0.0), True)


def marks(rng: np.random.Generator, runs: int, n: int, gain: float) -> Runs:
    """Marks in quarters; half of the items get the same mark from both."""
    moved, up = rng.random((runs, n)) < 0.5, rng.random((runs, n)) < 0.5 + gain / 0.25
    return singles(np.where(moved, np.where(up, 0.25, -0.25), 0.0))


def continuous(rng: np.random.Generator, runs: int, n: int, gain: float) -> Runs:
    """Scores around an item's own level."""
    return singles(gain + rng.normal(0, 0.14, (runs, n)).clip(-0.5, 0.5))


def families(rng: np.random.Generator, runs: int, n: int, gain: float) -> Runs:
    """Families of five prompts on which a side does well or badly together."""
    g = -(-n // 5)
    own = rng.normal(0, 0.113, (runs, g)) + rng.normal(0, 0.113 / math.sqrt(5), (runs, g))
    return Runs(5 * (gain + own.clip(-0.5, 0.5)), np.full((runs, g), 5.0))


def zipf(rng: np.random.Generator, runs: int, n: int, gain: float) -> Runs:
    """Clusters of very different sizes, each with an effect of its own."""
    sizes = np.minimum(rng.zipf(1.7, (runs, n)), 40)
    before = np.cumsum(sizes, axis=1) - sizes
    sizes = np.where(before < n, np.minimum(sizes, n - before), 0).astype(float)
    own = rng.normal(0, 0.15, (runs, n)) + rng.normal(0, 0.07, (runs, n)) / np.sqrt(np.maximum(sizes, 1))
    used = int((sizes > 0).sum(axis=1).max())
    return Runs((sizes * (gain + own.clip(-0.6, 0.6)))[:, :used], sizes[:, :used])


def rare_loss(share_worse: float, loss: float) -> Callable[[np.random.Generator, int, int, float], Runs]:
    """A few items lose much, the others gain what makes up for it."""

    def draw(rng: np.random.Generator, runs: int, n: int, gain: float) -> Runs:
        worse = rng.random((runs, n)) < share_worse
        gained = share_worse * loss / (1 - share_worse)
        return singles(np.where(worse, -loss, gained * rng.uniform(0.5, 1.5, (runs, n))) + gain)

    draw.__name__ = f"{share_worse:.1%} lose {loss:g}"
    return draw


LEVEL = (
    *(binary, binary_twice, ties, marks, continuous, families, zipf),
    *(rare_loss(0.1, 0.18), rare_loss(0.05, 0.5), rare_loss(0.02, 0.8), rare_loss(0.005, 1.0)),
)
POWER: dict[tuple[str, float], Callable[..., Runs]] = {
    **{("binary", gain): binary for gain in (0.10, 0.06)},
    **{("binary, 2 decodings", gain): binary_twice for gain in (0.10, 0.06)},
    **{("binary, 4 decodings", gain): binary_four for gain in (0.10, 0.06)},
    ("ties", 0.04): ties,
    ("marks", 0.05): marks,
    **{("continuous", gain): continuous for gain in (0.05, 0.02)},
    ("families", 0.05): families,
    ("zipf", 0.08): zipf,
}


# --- the two rules, for many runs at once -------------------------------------------------------------


@cache
def exponentials(clusters: int) -> np.ndarray:
    return np.random.default_rng(derive_seed(0, "weights")).standard_exponential(
        (DRAWS, clusters + 1), dtype=np.float32
    )


@cache
def signs(clusters: int) -> np.ndarray:
    drawn = np.random.default_rng(derive_seed(0, "signs")).integers(0, 2, (DRAWS, clusters), dtype=np.int8)
    return (2 * drawn - 1).astype(np.float32)


def flipped(sums: np.ndarray) -> np.ndarray:
    """One-sided p-values (R,) of a sign-flip test."""
    x = sums.astype(np.float32)
    reached = signs(x.shape[1]) @ x.T >= x.sum(axis=1) - 1e-4
    return (1 + reached.sum(axis=0)) / (DRAWS + 1)


def lowest(sums: np.ndarray, sizes: np.ndarray, alpha: float, unseen: np.ndarray, floor: float) -> np.ndarray:
    """Gaffke's lower bound (R,) of the ratio of sums to sizes."""
    weights = exponentials(sums.shape[1])
    seen, extra = weights[:, 1:], weights[:, :1] * unseen.astype(np.float32)
    means = seen @ sums.T.astype(np.float32) + extra * floor
    means /= seen @ sizes.T.astype(np.float32) + extra
    rank = math.floor(alpha * (DRAWS + 1) + 1e-9) - 1
    return np.partition(means, rank, axis=0)[rank]


def largest_unseen(runs: Runs, null: float) -> np.ndarray:
    """The largest size of an unseen cluster (R,) with which the mean over items is above `null`."""
    weights = exponentials(runs.sums.shape[1])
    sizes = weights[:, 1:] @ (runs.sums - null * runs.sizes).T.astype(np.float32)
    sizes /= weights[:, :1] * np.float32(null + 1)
    rank = math.floor(POLICY.alpha * (DRAWS + 1) + 1e-9) - 1
    return np.partition(sizes, rank, axis=0)[rank]


def holds_over_items(runs: Runs, null: float) -> np.ndarray:
    """Whether that is so for a cluster as large as that of the average item: (R,)."""
    return largest_unseen(runs, null) >= (runs.sizes**2).sum(axis=1) / runs.sizes.sum(axis=1)


def equal_weights(runs: Runs, alpha: float) -> np.ndarray:
    """Gaffke's lower bound (R,) of the mean over clusters."""
    is_there = (runs.sizes > 0).astype(float)
    return lowest(runs.means, is_there, alpha, np.ones(len(runs.sums)), -1.0)


@cache
def score_needed(items: int, alpha: float) -> float:
    """The lowest score (wins - losses) / sqrt(wins + losses) that the unconditional test promotes."""
    counts = [(w, lost) for w in range(1, items + 1) for lost in range(min(w, items - w + 1))]
    scores = sorted({round((w - lost) / math.sqrt(w + lost), 9): (w, lost) for w, lost in counts}.items())
    low, high = 0, len(scores)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if stats.mcnemar(*scores[middle][1], items) <= alpha else (middle + 1, high)
    return scores[low][0] if low < len(scores) else math.inf


def is_better(runs: Runs, rule: str, alpha: float) -> np.ndarray:
    """Whether the primary is shown better: (R,)."""
    if runs.is_binary:
        wins, losses = (runs.sums > 0).sum(axis=1), (runs.sums < 0).sum(axis=1)
        items = runs.sums.shape[1]
        if rule == "before" or items > 1000:
            return binom.sf(wins - 1, wins + losses, 0.5) <= alpha
        return (wins - losses) / np.sqrt(np.maximum(wins + losses, 1)) >= score_needed(items, alpha) - 1e-8
    if rule == "before":
        return flipped(runs.sums) <= alpha
    better = (flipped(runs.means) <= alpha) & (equal_weights(runs, POLICY.alpha) > 0)
    return better & holds_over_items(runs, 0.0)


def is_kept(runs: Runs, rule: str, margin: float, largest: int | None = None) -> np.ndarray:
    """Whether a guard is shown to be within its margin: (R,)."""
    if rule == "before":
        unseen = runs.sizes.sum(axis=1) / (runs.sizes > 0).sum(axis=1)
        return lowest(runs.sums, runs.sizes, POLICY.alpha, unseen, -1.0) > -margin
    kept = (equal_weights(runs, POLICY.alpha) > -margin) & holds_over_items(runs, -margin)
    if largest is not None:
        unseen = np.full(len(runs.sums), float(largest))
        kept &= lowest(runs.sums, runs.sizes, POLICY.alpha, unseen, -1.0) > -margin
    return kept


# --- the questions ------------------------------------------------------------------------------------


def generator(seed: int, *names: object) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "bench", *names))


def level(runs: int, seed: int) -> dict[str, object]:
    """Promotions of candidates whose mean is the champion's."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for design in LEVEL:
        for n in SIZES:
            drawn = design(generator(seed, design.__name__, n), runs, n, 0.0)
            cell = {rule: share(int(is_better(drawn, rule, ALPHA[rule]).sum()), runs) for rule in ALPHA}
            found[f"{design.__name__}, {n}"] = cell
            print(f"level {design.__name__:16} n {n:5}: {cell}", flush=True)
    highest = {rule: max(cell[rule]["share"] for cell in found.values()) for rule in ALPHA}
    return {"highest": highest, "by": found}


def large_clusters(
    rng: np.random.Generator, runs: int, g: int, share_large: float, size: int, wrong: float
) -> Runs:
    """Single items of which all are right, and large clusters; of those the share `wrong` is lost whole."""
    large = rng.random((runs, g)) < share_large
    sizes = np.where(large, float(size), 1.0)
    return Runs(np.where(large & (rng.random((runs, g)) < wrong), -sizes, 0.0), sizes)


def guards(runs: int, seed: int) -> dict[str, object]:
    """Guards kept although they are worse by the margin or more: over clusters, and over items. What is said
    of the items is false where no cluster is larger than the verdict says, or the policy."""
    found: dict[str, object] = {}
    cases = [
        *((g, 0.1, size, 0.1, 1.0) for g in (60, 200, 600) for size in (1, 5, 40)),
        *(
            (60, 0.02, 40, 0.1, 1.0),
            (60, 0.02, 20, 0.1, 1.0),
            (100, 0.01, 50, 0.1, 1.0),
            (200, 0.01, 30, 0.1, 1.0),
        ),
    ]
    for g, margin in ((60, 0.1), (150, 0.05), (400, 0.05)):  # just as bad over items as the margin
        for share_large, size in ((0.3, 5), (0.1, 5), (0.1, 20), (0.05, 20), (0.02, 20)):
            of_items = share_large * size / (share_large * size + 1 - share_large)
            cases.append((g, share_large, size, margin, margin / of_items))
    for g, share_large, size, margin, wrong in cases:
        rng = generator(seed, g, share_large, size, margin)
        drawn = large_clusters(rng, runs, g, share_large, size, wrong)
        kept, of_items = (
            is_kept(drawn, "now", margin),
            share_large * size / (share_large * size + 1 - share_large),
        )
        cell = {
            "clusters_worse_by": round(share_large * wrong, 3),
            "items_worse_by": round(of_items * wrong, 3),
            "margin": margin,
            "before": share(int(is_kept(drawn, "before", margin).sum()), runs),
            "kept": share(int(kept.sum()), runs),
            "kept, said of items": share(int((kept & (largest_unseen(drawn, -margin) >= size)).sum()), runs),
            "kept, largest_cluster stated": share(int(is_kept(drawn, "now", margin, size).sum()), runs),
        }
        found[f"{g} clusters, {share_large:.0%} of {size}, margin {margin:g}, {wrong:.2f} wrong"] = cell
        print(f"guard {g} clusters, {share_large:.0%} of {size}, {wrong:.2f} wrong: {cell}", flush=True)
    return found


def power(runs: int, seed: int) -> dict[str, object]:
    """Items for 80 % power: the primary alone, with the guard `valid` of the first defaults and of today's,
    and at the fourth analysis after three promotions; the candidates' items differ in difficulty."""
    found: dict[str, dict[str, float]] = {}
    for (name, gain), design in POWER.items():
        first = POWER[("binary", gain)] if name.startswith("binary") else design
        for kind, fails, alphas in (
            ("no guard", None, ALPHA),
            ("valid fails 0%", 0.0, ALPHA),
            ("valid fails 2%", 0.02, ALPHA),
            ("no guard, fourth analysis", None, FOURTH),
        ):
            needed = {
                rule: items_for(rule, drawn_by, gain, fails, alphas[rule], runs=runs, seed=seed)
                for rule, drawn_by in (("before", first), ("now", design))
            }
            cell = {**needed, "ratio": round(needed["before"] / needed["now"], 2)}
            found[f"{name} +{gain:.2f}, {kind}"] = cell
            print(f"power {name} +{gain:.2f}, {kind}: {cell}", flush=True)

    def mean_ratio(is_in: Callable[[str], bool]) -> float:
        return round(
            math.exp(float(np.mean([math.log(c["ratio"]) for k, c in found.items() if is_in(k)]))), 2
        )

    means = {
        "all": mean_ratio(lambda _: True),
        "one decoding, default guard": mean_ratio(lambda k: "valid" in k and "decodings" not in k),
        "one decoding, no guard": mean_ratio(lambda k: k.endswith("no guard") and "decodings" not in k),
        "two decodings, no guard": mean_ratio(lambda k: k.endswith("no guard") and "2 decodings" in k),
        "one decoding, fourth analysis": mean_ratio(lambda k: "fourth" in k and "decodings" not in k),
    }
    return {"geometric_mean_ratio": means, "by": found}


def items_for(
    rule: str,
    design: Callable[..., Runs],
    gain: float,
    fails: float | None,
    alpha: float,
    *,
    runs: int,
    seed: int,
) -> int:
    """Items with which the rule promotes in 80 % of runs: sizes in steps of a fifth, then interpolated."""
    wanted = NormalDist().inv_cdf(0.8)
    n, last = max(50, 0 if fails is None else math.ceil(math.log(0.05) / math.log1p(-MARGIN[rule]))), None
    while n < 20_000:
        rng = generator(seed, design.__name__, gain, fails, n)
        count = min(runs, 200_000 // n)
        shown = is_better(drawn := design(rng, count, n, gain), rule, alpha)
        if fails is not None:
            bad = rng.random((2, *drawn.sums.shape)) < fails
            shown &= is_kept(singles(bad[0].astype(float) - bad[1]), rule, MARGIN[rule])
        z = NormalDist().inv_cdf(min(max(float(shown.mean()), 0.5 / count), 1 - 0.5 / count))
        if z >= wanted:
            if last is None:
                return n
            part = (wanted - last[1]) / (z - last[1])
            return round(last[0] + part * (n - last[0]))
        last, n = (n, z), math.ceil(1.2 * n)
    raise ValueError("no number of items below 20,000 is enough")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    questions = {"level": level, "guards": guards, "power": power}
    parser.add_argument("--only", choices=tuple(questions))
    asked, began = parser.parse_args(), time.perf_counter()
    found = {
        name: ask(asked.runs, asked.seed) for name, ask in questions.items() if asked.only in (None, name)
    }
    print(json.dumps({**found, "seed": asked.seed, "seconds": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
