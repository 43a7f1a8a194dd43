"""`compare plan`: the number of items that a policy and a wished effect need."""

import numpy as np
import pytest
from scipy.stats import binom

from escultor.config import Gate
from escultor.errors import InputError
from escultor.evaluate.gate.decision import decide
from escultor.evaluate.gate.plan import ExpectedComparison, plan
from escultor.types import Promote, Scale, Scores

POLICY = Gate(primary=("quality",), guards={"valid": 0.05})


def scores(name, per=1, **metrics):
    n = len(next(iter(metrics.values())))
    items, clusters = (tuple(f"{k // size}" for k in range(n)) for size in (1, per))
    return Scores(
        f"s-{name}", name, "s", items, clusters, {m: tuple(map(float, v)) for m, v in metrics.items()}
    )


def promoted(expected, runs, draw):
    """Promotions of comparisons with the planned number of items, and the fewest there may be."""
    made = plan(POLICY, expected)
    hits = 0
    for seed in range(runs):
        gaps = draw(np.random.default_rng(seed), made.clusters).reshape(-1)
        old, new = np.where(gaps > 0, 0, 1) if expected.is_binary else np.full(len(gaps), 0.5), None
        new = old + gaps
        sound = np.ones(len(gaps))
        sides = (
            scores(name, expected.cluster_size, quality=v, valid=sound)
            for name, v in (("a", old), ("b", new))
        )
        hits += isinstance(decide(*sides, POLICY, seed), Promote)
    return hits, binom.ppf(0.001, runs, POLICY.power)


def test_right_or_wrong_with_the_planned_items_is_promoted_as_often_as_planned():
    expected = ExpectedComparison(0.15, differing=0.35)
    hits, least = promoted(expected, 60, lambda rng, n: rng.choice([1, -1, 0], n, p=[0.25, 0.1, 0.65]))
    assert hits >= least


def test_clusters_of_continuous_scores_are_promoted_as_often_as_planned():
    expected = ExpectedComparison(0.05, spread=0.12, cluster_size=3, correlation=0.5)

    def draw(rng, clusters):
        shared, own = (
            rng.normal(0, 0.12 * 0.5**0.5, (clusters, 1)),
            rng.normal(0, 0.12 * 0.5**0.5, (clusters, 3)),
        )
        return np.clip(0.05 + shared + own, -0.5, 0.5)

    hits, least = promoted(expected, 40, draw)
    assert hits >= least


def test_what_makes_a_comparison_noisier_needs_more_items_and_decodings_need_fewer():
    base = plan(POLICY, ExpectedComparison(0.1, differing=0.3)).items
    assert plan(POLICY, ExpectedComparison(0.05, differing=0.3)).items > 3 * base
    assert (
        plan(POLICY, ExpectedComparison(0.1, differing=0.3, cluster_size=4, correlation=0.5)).items > 2 * base
    )
    twice = plan(POLICY, ExpectedComparison(0.1, differing=0.3, decodings=2, noise=1.0))
    assert twice.items < 0.6 * base
    assert twice.answers == 2 * twice.items
    assert plan(POLICY, ExpectedComparison(0.1, differing=0.3, failing=0.05)).items > base


def test_a_perfect_guard_needs_what_the_rule_of_three_says_and_no_margin_has_no_number():
    tiny = ExpectedComparison(0.5, spread=0.01)
    assert plan(POLICY, tiny).items == 59  # 0.95^59 <= 0.05
    assert plan(POLICY.model_copy(update={"guards": {"valid": 0.0}}), tiny).items is None
    wide = plan(POLICY.model_copy(update={"guards": {"marks": 0.1}}), tiny, {"marks": Scale(most=5.0)})
    assert wide.items == 149
    endless = POLICY.model_copy(update={"guards": {"bits_per_byte": 0.05}})
    assert [need.metric for need in plan(endless, tiny).metrics] == ["quality"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"effect": 0.1},
        {"effect": 0.1, "differing": 0.3, "spread": 0.1},
        {"effect": 0.0, "differing": 0.3},
        {"effect": 0.4, "differing": 0.3},
        {"effect": 0.1, "differing": 0.3, "decodings": 2},
    ],
)
def test_figures_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(InputError):
        plan(POLICY, ExpectedComparison(**wrong))
