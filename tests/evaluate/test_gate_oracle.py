"""The gate's and the canary's statistics, held against a second implementation from the formulas.

Nothing of `escultor.stats` is used here: scipy's distributions, plain loops and other random numbers.
"""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import optimize, special
from scipy import stats as st

from escultor.config import Canary, Gate
from escultor.evaluate.gate.canary import CanaryStage, CanaryTrial, guard_harms
from escultor.evaluate.gate.decision import decide
from escultor.stats import wilson
from escultor.stats.sequential import SubjectTally, rate_bounds
from escultor.types import Promote, Reject, Scores

# --- the formulas -------------------------------------------------------------------------------------


def unconditional_mcnemar(wins, losses, n):
    """Highest trinomial probability, over the share of decided items, of a z as large (Suissa & Shuster)."""
    if wins <= losses:
        return 1.0
    z = (wins - losses) / math.sqrt(wins + losses)
    extreme = [
        (w, lost)
        for w in range(n + 1)
        for lost in range(n - w + 1)
        if w > lost and (w - lost) / math.sqrt(w + lost) >= z - 1e-9
    ]
    w, lost = np.array(extreme).T
    log_ways = special.gammaln(n + 1) - sum(special.gammaln(k + 1) for k in (w, lost, n - w - lost))

    def probability(share):
        rest = special.xlogy(n - w - lost, 1 - share)
        return float(np.exp(log_ways + special.xlogy(w + lost, share / 2) + rest).sum())

    starts = np.linspace(0.002, 1, 200)
    best = max(starts, key=probability)
    near = optimize.minimize_scalar(
        lambda s: -probability(s), bounds=(max(best - 0.01, 1e-9), min(best + 0.01, 1)), method="bounded"
    )
    return max(probability(best), -near.fun)


def cluster_means(gaps, clusters):
    found = {}
    for gap, cluster in zip(gaps, clusters, strict=True):
        found.setdefault(cluster, []).append(gap)
    return np.array([sum(v) / len(v) for v in found.values()])


def sign_flip(means, rng, draws=60_000):
    """All flips of few clusters, many drawn ones of more; its Monte-Carlo error beside it."""
    total = means.sum()
    if len(means) <= 12:
        sums = [np.dot(signs, means) for signs in itertools.product((1, -1), repeat=len(means))]
        return float(np.mean(np.array(sums) >= total - 1e-9)), 0.0
    hits = sum(
        int((rng.choice((-1.0, 1.0), (5000, len(means))) @ means >= total - 1e-9).sum())
        for _ in range(draws // 5000)
    )
    p = (hits + 1) / (draws + 1)
    return p, math.sqrt(p * (1 - p) * (1 / draws + 1 / 5000))


def holm(p_values):
    order, adjusted, highest = np.argsort(p_values), np.empty(len(p_values)), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, (len(p_values) - rank) * p_values[i])
        adjusted[i] = min(1.0, highest)
    return adjusted


def gaffke(means, alpha, floor, rng, draws=40_000):
    """The alpha-quantile of Dirichlet(1, …, 1) means of the sample and the floor."""
    weights = rng.dirichlet(np.ones(len(means) + 1), draws)
    return float(np.quantile(weights @ np.append(means, floor), alpha))


# --- the gate -----------------------------------------------------------------------------------------


def scores(who, metrics, clusters):
    items = tuple(f"i{k}" for k in range(len(clusters)))
    return Scores(
        f"{who}-id", who, "s", items, tuple(clusters), {k: tuple(map(float, v)) for k, v in metrics.items()}
    )


@pytest.mark.parametrize("case", range(8))
def test_p_values_bounds_and_verdicts_agree(case):
    rng = np.random.default_rng([11, case])
    n, per = [(10, 1), (36, 3), (60, 1), (80, 8), (120, 1), (120, 3), (200, 1), (40, 4)][case]
    clusters = [f"c{k // per if k % 7 else 0}" for k in range(n)] if per > 1 else [f"c{k}" for k in range(n)]
    right = rng.random(n) < 0.6
    binary = right, np.where(rng.random(n) < 0.75, right, rng.random(n) < 0.8)
    level = rng.beta(2, 2, n)
    smooth = level, np.clip(level + rng.normal(0.05, 0.1, n), 0, 1)
    valid = (rng.random((2, n)) < 0.96).astype(float)
    policy = Gate(primary=("binary", "smooth"), guards={"valid": 0.15}, min_items=1, alpha_spending="full")
    old = scores("old", {"binary": binary[0], "smooth": smooth[0], "valid": valid[0]}, clusters)
    new = scores("new", {"binary": binary[1], "smooth": smooth[1], "valid": valid[1]}, clusters)
    verdict = decide(old, new, policy, case)
    found = {e.metric: e for e in verdict.because.effects}

    means = {m: cluster_means(np.subtract(new.metrics[m], old.metrics[m]), clusters) for m in found}
    for metric, mean in means.items():
        assert found[metric].difference == pytest.approx(mean.mean(), abs=1e-12)
    p, errors = [], []
    for metric in policy.primary:
        x = means[metric]
        sides = cluster_means(old.metrics[metric], clusters), cluster_means(new.metrics[metric], clusters)
        if set(np.concatenate(sides)) <= {0.0, 1.0}:
            p.append(unconditional_mcnemar(int((x > 0).sum()), int((x < 0).sum()), len(x)))
            errors.append(0.0005)
            assert found[metric].bound is None
        else:
            value, error = sign_flip(x, rng)
            p.append(value)
            errors.append(5 * error + 1e-9)
            assert found[metric].bound == pytest.approx(gaffke(x, 0.025, -1.0, rng), abs=0.012)
    for metric, expected in zip(policy.primary, holm(p), strict=True):
        assert found[metric].p_value == pytest.approx(expected, abs=2 * max(errors))
    low = gaffke(means["valid"], 0.05, -1.0, rng)
    assert found["valid"].bound == pytest.approx(low, abs=0.012)
    if isinstance(verdict, Promote):
        assert min(holm(p)) <= 0.05 + 2 * max(errors)
        assert low > -0.15 - 0.012
    elif not isinstance(verdict, Reject):
        clear = [e for e in found.values() if e.role == "primary" and e.state == "better"]
        assert not clear or found["valid"].state != "kept" or "requires" in verdict.because.reason


@pytest.mark.parametrize(("losses", "n"), [(0, 59), (1, 93), (3, 155), (7, 300)])
def test_a_guard_on_losses_alone_is_the_exact_binomial_bound(losses, n):
    """Gaffke's bound of zeros and minus ones is that of Clopper and Pearson."""
    gone = [0.0] * losses + [1.0] * (n - losses)
    names = [f"c{k}" for k in range(n)]
    quality = {"quality": [0.0] * n}, {"quality": [1.0] * n}
    old = scores("old", quality[0] | {"valid": [1.0] * n}, names)
    new = scores("new", quality[1] | {"valid": gone}, names)
    verdict = decide(old, new, Gate(primary=("quality",), guards={"valid": 0.05}), 0)
    exact = float(st.beta.ppf(0.95, losses + 1, n - losses))
    bound = next(e.bound for e in verdict.because.effects if e.metric == "valid")
    assert bound == pytest.approx(-exact, rel=0.06)


# --- shares, and the canary ---------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 7), (1, 7), (30, 400), (200, 400), (400, 400)])
def test_wilsons_bounds_are_the_roots_of_the_score_equation(k, n):
    z = NormalDist().inv_cdf(0.975)

    def score(p):
        return (k / n - p) ** 2 - z * z * p * (1 - p) / n

    low = 0.0 if k == 0 else optimize.brentq(score, 1e-12, k / n - 1e-12)
    high = 1.0 if k == n else optimize.brentq(score, k / n + 1e-12, 1 - 1e-12)
    assert wilson(k, n) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 40), (40, 40), (120, 900)])
def test_bounds_of_a_rate_are_where_the_mixture_martingale_reaches_its_limit(k, n):
    def log_ratio(p):
        return (
            special.betaln(k + 0.5, n - k + 0.5)
            - special.betaln(0.5, 0.5)
            - special.xlogy(k, p)
            - special.xlog1py(n - k, -p)
            - math.log(1 / 0.05)
        )

    low, high = (float(b) for b in rate_bounds(k, n, 0.05))
    expected_low = 0.0 if k == 0 else optimize.brentq(log_ratio, 1e-12, k / n - 1e-12 * (k == n))
    expected_high = 1.0 if k == n else optimize.brentq(log_ratio, max(k / n, 1e-12), 1 - 1e-12)
    assert (low, high) == pytest.approx((expected_low, expected_high), abs=1e-7)


def test_a_canarys_bounds_are_those_of_the_asymptotic_confidence_sequence():
    """One stage of single observations: difference of rates ± the half-normal mixture's radius."""
    policy = Canary(guards={"error": 0.0}, alpha=0.05, tuned_ratings=3000)
    n, m, a, b = 1200, 900, 60, 72
    sides = tuple(SubjectTally(k, k, e, k, e, e, e) for k, e in ((n, a), (m, b)))
    stage = CanaryStage(0.5, 0.0, {"error": sides}, m, (n, m))
    harm = guard_harms(CanaryTrial("old", "new", (stage,)), policy, {})["error"]
    p, q, t, alpha = a / n, b / m, n * m / (n + m), 0.05 * 0.9
    variance = (p * (1 - p) + 1 / n) / n + (q * (1 - q) + 1 / m) / m
    cost = -2 * math.log(2 * alpha)
    rho2 = (cost + math.log(1 + cost)) / 1500
    radius = math.sqrt(
        variance * 2 * (t * rho2 + 1) / (t * rho2) * math.log(1 + math.sqrt(t * rho2 + 1) / (2 * alpha))
    )
    assert harm.difference == pytest.approx(q - p, abs=1e-12)
    assert harm.low == pytest.approx(q - p - radius, abs=1e-9)
