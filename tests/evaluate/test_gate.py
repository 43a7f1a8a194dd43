"""The gate: what it promises in examples, laws and stated odds."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from escultor import stats
from escultor.config import Gate
from escultor.errors import DataError
from escultor.evaluate.gate import decision
from escultor.types import Hold, Promote, Reject, Scale, Scores

LAWS = settings(max_examples=60, deadline=None)
POLICY = Gate(primary=("quality",), guards={"valid": 0.02, "bits_per_byte": 0.05}, alpha=0.05, min_items=50)
SMALL = Gate(primary=("quality", "faithful"), guards={"valid": 0.3}, alpha=0.1, min_items=6)


def scores(name, metrics, per=1, **changes):
    n = len(next(iter(metrics.values())))
    items = tuple(f"i{k:04d}" for k in range(n))
    clusters = tuple(f"c{k // per:04d}" for k in range(n))
    values = {m: tuple(map(float, v)) for m, v in metrics.items()}
    return replace(Scores(f"scores-{name}", name, "suite", items, clusters, values), **changes)


def sides(n=300, quality=0.0, broken=0, bits=0.0, seed=0, per=1):
    """Champion and candidate; the candidate is better by `quality`, invalid on `broken` items more."""
    rng = np.random.default_rng(seed)
    base, nll = rng.uniform(0.3, 0.7, n), rng.uniform(1, 3, n)
    shared = np.repeat(rng.normal(0, 0.1, n), per)[:n]
    old = {"quality": base, "valid": np.ones(n), "bits_per_byte": nll}
    valid = np.where(np.arange(n) < broken, 0.0, 1.0)
    gained = np.clip(base + quality + shared + rng.normal(0, 0.05, n), 0, 1)
    new = {"quality": gained, "valid": valid, "bits_per_byte": nll + bits + rng.normal(0, 0.02, n)}
    return scores("old", old, per), scores("new", new, per)


def effect(verdict, metric):
    return next(e for e in verdict.because.effects if e.metric == metric)


# --- verdicts


def test_better_and_safe_is_promoted_with_figures_in_plain_words():
    verdict = decision.decide(*sides(quality=0.05), POLICY, 0)
    assert isinstance(verdict, Promote)
    reason = verdict.because.reason
    assert reason.startswith("Promote: quality +0.0")
    assert "on 300 items, better (" in reason
    assert "valid within 0.02 (1.000 to 1.000" in reason
    assert "bits_per_byte (lower is better) within 0.05" in reason
    assert reason.endswith(".")
    assert "\n" not in reason


def test_broken_guard_is_rejected_whatever_the_primary():
    verdict = decision.decide(*sides(quality=0.3, broken=40), POLICY, 0)
    assert isinstance(verdict, Reject)
    assert "valid worse by more than 0.02" in verdict.because.reason


def test_worse_is_rejected():
    verdict = decision.decide(*sides(quality=-0.05), POLICY, 0)
    assert isinstance(verdict, Reject)
    assert "quality -0.0" in verdict.because.reason


def test_too_little_evidence_is_held_with_the_items_that_would_be_enough():
    verdict = decision.decide(*sides(n=100, quality=0.012, seed=5), POLICY, 0)
    assert isinstance(verdict, Hold)
    assert verdict.n_needed is not None
    assert verdict.n_needed > 100
    assert f"about {verdict.n_needed} items needed" in verdict.because.reason


def test_a_small_effect_with_no_gain_needs_no_number():
    verdict = decision.decide(*sides(quality=-0.004, seed=2), POLICY, 0)
    assert isinstance(verdict, Hold)
    assert verdict.n_needed is None
    assert "no number of items" in verdict.because.reason


def test_guard_without_a_single_loss_is_not_yet_shown_on_few_items():
    verdict = decision.decide(*sides(n=100, quality=0.1), POLICY, 0)
    assert isinstance(verdict, Hold)
    assert verdict.n_needed == 149  # 0.98^149 <= 0.05 < 0.98^148
    assert "valid not shown to be within 0.02" in verdict.because.reason


def test_lower_is_better_is_turned_round_for_bits_per_byte_only():
    verdict = decision.decide(*sides(quality=0.05, bits=0.2), POLICY, 0)
    assert isinstance(verdict, Reject)
    found = effect(verdict, "bits_per_byte")
    assert found.difference == pytest.approx(found.champion - found.candidate)
    assert found.difference < 0
    kept = effect(verdict, "quality")
    assert kept.difference == pytest.approx(kept.candidate - kept.champion)


def test_primaries_that_disagree_are_held():
    policy = Gate(primary=("one", "two"), guards={}, min_items=50)
    rng = np.random.default_rng(0)
    base = rng.uniform(0.4, 0.6, 200)
    old = scores("old", {"one": base, "two": base})
    new = scores("new", {"one": base + rng.normal(0.1, 0.05, 200), "two": base - rng.normal(0.1, 0.05, 200)})
    for verdict in (decision.decide(old, new, policy, 0), decision.decide(new, old, policy, 0)):
        assert isinstance(verdict, Hold)
        assert "disagree" in verdict.because.reason


def test_two_primaries_share_the_error_after_holm():
    rng = np.random.default_rng(4)
    base = rng.uniform(0.3, 0.7, 100)
    noise = rng.normal(0.01, 0.06, 100)
    old = scores("old", {"quality": base, "other": base})
    new = scores("new", {"quality": base + noise, "other": base + rng.normal(0, 0.06, 100)})
    alone, both = (
        effect(decision.decide(old, new, Gate(primary=p, guards={}), 0), "quality").p_value
        for p in (("quality",), ("quality", "other"))
    )
    assert both == pytest.approx(2 * alone)


def test_zeros_and_ones_are_judged_by_exact_mcnemar():
    old = scores("old", {"quality": [0] * 10 + [1] * 2 + [1] * 48})
    new = scores("new", {"quality": [1] * 10 + [0] * 2 + [1] * 48})
    verdict = decision.decide(old, new, Gate(guards={}), 0)
    assert effect(verdict, "quality").p_value == stats.mcnemar(10, 2, 60)
    assert isinstance(verdict, Promote)


def test_clustered_zeros_and_ones_are_judged_by_clusters():
    old = scores("old", {"quality": [0] * 60}, per=20)
    new = scores("new", {"quality": [1] * 60}, per=20)
    verdict = decision.decide(old, new, Gate(guards={}), 0)
    assert isinstance(verdict, Hold)
    assert effect(verdict, "quality").p_value == 1 / 8


def test_metrics_outside_the_policy_are_told_and_decide_nothing():
    old, new = sides(quality=0.05)
    told = [
        replace(s, metrics={**s.metrics, "length": tuple([v] * 300)}) for s, v in ((old, 1.0), (new, 9.0))
    ]
    verdict = decision.decide(told[0], told[1], POLICY, 0)
    assert isinstance(verdict, Promote)
    assert effect(verdict, "length").role == "info"
    assert effect(verdict, "length").difference == 8.0


def test_the_same_arguments_give_the_same_verdict_and_id():
    old, new = sides(quality=0.05)
    assert decision.decide(old, new, POLICY, 7) == decision.decide(old, new, POLICY, 7)
    assert decision.decide(old, new, POLICY, 7).because.id != decision.decide(old, new, POLICY, 8).because.id


# --- what it cannot tell, and what it refuses


def test_hold_says_why_it_cannot_tell():
    old, new = sides(n=40, quality=0.3)
    few = decision.decide(old, new, POLICY, 0)
    assert isinstance(few, Hold)
    assert "40 items, and the policy requires at least 50" in few.because.reason
    assert few.n_needed is not None
    assert few.n_needed >= 50
    lump = decision.decide(*sides(n=60, quality=0.3, per=60), POLICY, 0)
    assert isinstance(lump, Hold)
    assert "one cluster" in lump.because.reason
    old, new = sides(quality=0.3)
    same = decision.decide(old, replace(new, checkpoint="old"), POLICY, 0)
    assert isinstance(same, Hold)
    assert "the same checkpoint" in same.because.reason
    copy = decision.decide(old, replace(new, metrics=old.metrics), POLICY, 0)
    assert isinstance(copy, Hold)
    assert "equal scores" in copy.because.reason
    assert copy.n_needed is None


def test_no_items_at_all_are_held():
    old, new = (
        scores(name, {m: [] for m in ("quality", "valid", "bits_per_byte")}) for name in ("old", "new")
    )
    verdict = decision.decide(old, new, POLICY, 0)
    assert isinstance(verdict, Hold)
    assert verdict.because.effects == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"suite": "other"}, "different suites"),
        ({"items": ("x",)}, "different items"),
        ({"clusters": ("x",)}, "different clusters"),
        ({"metrics": {}}, "no metric 'quality'"),
        ({"metrics": {"quality": (1.0,)}}, "1 scores of 'quality' for 60 items"),
    ],
)
def test_what_does_not_compare_is_refused(change, words):
    old, new = sides(n=60)
    with pytest.raises(DataError, match=words) as caught:
        decision.decide(old, replace(new, **change), POLICY, 0)
    assert "remedy" in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_without_a_value_are_refused(bad):
    old, new = sides(n=60)
    holed = {**new.metrics, "valid": (bad, *new.metrics["valid"][1:])}
    with pytest.raises(DataError, match="not finite"):
        decision.decide(old, replace(new, metrics=holed), POLICY, 0)


@pytest.mark.parametrize("bad", [1.5, -0.25])
def test_scores_outside_their_scale_are_refused(bad):
    """Bounds count the worst that a score can be: a share of 1.5 is none."""
    old, new = sides(n=60)
    odd = {**new.metrics, "valid": (bad, *new.metrics["valid"][1:])}
    with pytest.raises(DataError, match=rf"1 scores of 'valid' are outside 0.0 to 1.0, such as {bad}"):
        decision.decide(old, replace(new, metrics=odd), POLICY, 0)


def test_order_and_duplicates_are_refused_and_all_problems_told_at_once():
    old, new = sides(n=60)
    with pytest.raises(DataError, match="different order"):
        decision.decide(old, replace(new, items=tuple(reversed(new.items))), POLICY, 0)
    twice = (old.items[1], *old.items[1:])
    with pytest.raises(DataError, match=r"different suites.*candidate: 1 duplicate items.*no metric 'valid'"):
        decision.decide(
            replace(old, items=twice),
            replace(new, items=twice, suite="other", metrics={"quality": new.metrics["quality"]}),
            POLICY,
            0,
        )


def test_a_policy_without_a_primary_takes_the_first_metric_that_has_a_direction():
    old, new = sides(n=60)
    first, *others = decision.decide(old, new, Gate(), 0).because.effects
    assert (first.metric, first.role) == (next(iter(old.metrics)), "primary")
    assert {e.role for e in others} <= {"info"}
    length = {next(iter(old.metrics)): Scale("neither")}
    old, new = (replace(s, metrics=dict(list(s.metrics.items())[:1]), scales=length) for s in (old, new))
    with pytest.raises(DataError, match="no primary"):
        decision.decide(old, new, Gate(), 0)


# --- laws


@st.composite
def comparisons(draw):
    """Two sides over a few items of a coarse grid, so that wins, ties and broken guards all occur."""
    n, per = draw(st.integers(6, 24)), draw(st.integers(1, 3))
    grid = st.sampled_from([0.0, 1.0]) if draw(st.booleans()) else st.integers(0, 4).map(lambda i: i / 4)
    column = st.lists(grid, min_size=n, max_size=n)
    lift = draw(st.sampled_from([0.0, 1.0]))
    old, new = ({m: draw(column) for m in ("quality", "faithful", "valid")} for _ in range(2))
    if lift:  # without a lift almost nothing is ever promoted
        for metric in old:
            new[metric] = [max(a, b) for a, b in zip(old[metric], new[metric], strict=True)]
    return scores("old", old, per), scores("new", new, per)


@LAWS
@given(comparisons(), st.integers(0, 3))
def test_an_equal_candidate_is_never_promoted(pair, seed):
    old, _ = pair
    assert isinstance(decision.decide(old, replace(old, checkpoint="new"), SMALL, seed), Hold)
    assert isinstance(decision.decide(old, old, SMALL, seed), Hold)


@LAWS
@given(comparisons(), st.integers(0, 3))
def test_swapping_sides_never_promotes_both_and_negates_the_effects(pair, seed):
    old, new = pair
    there, back = decision.decide(old, new, SMALL, seed), decision.decide(new, old, SMALL, seed)
    assert not (isinstance(there, Promote) and isinstance(back, Promote))
    for one, two in zip(there.because.effects, back.because.effects, strict=True):
        assert (two.difference, two.low, two.high) == pytest.approx((-one.difference, -one.high, -one.low))
        assert one.low <= one.high


@settings(max_examples=150, deadline=None)
@given(comparisons(), st.integers(0, 3), st.data())
def test_lowering_the_candidates_items_never_helps_it(pair, seed, data):
    old, new = pair
    lowered = {}
    for metric, values in new.metrics.items():
        hit = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
        lowered[metric] = tuple(0.0 if h else v for h, v in zip(hit, values, strict=True))
    if isinstance(decision.decide(old, replace(new, metrics=lowered), SMALL, seed), Promote):
        assert isinstance(decision.decide(old, new, SMALL, seed), Promote)


@LAWS
@given(comparisons(), st.integers(0, 3))
def test_below_the_minimum_is_held(pair, seed):
    assert isinstance(decision.decide(*pair, SMALL.model_copy(update={"min_items": 25}), seed), Hold)


@LAWS
@given(comparisons(), st.integers(0, 3))
def test_broken_guards_are_rejected_and_promotions_are_earned(pair, seed):
    old, new = pair
    ruined = replace(new, metrics={**new.metrics, "valid": (0.0,) * len(new.items)})
    sound = replace(old, metrics={**old.metrics, "valid": (1.0,) * len(old.items)})
    if len(set(old.clusters)) > 5:
        assert isinstance(decision.decide(sound, ruined, SMALL, seed), Reject)
    verdict = decision.decide(old, new, SMALL, seed)
    if isinstance(verdict, Promote):
        effects = verdict.because.effects
        assert any(e.state == "better" and e.p_value <= e.level and e.difference > 0 for e in effects)
        assert all(e.bound is None or e.bound > -e.margin for e in effects if e.role == "guard")


def test_an_outlier_taken_away_does_not_turn_a_hold_into_a_promotion():
    # A t-statistic rises when its one huge gain is lowered; the gate's must not.
    rng = np.random.default_rng(0)
    base = np.full(60, 0.5)
    gaps = rng.normal(0.02, 0.05, 60)
    for height in (50.0, 5.0, 0.5, 0.0):
        endless = {"quality": Scale(most=None)}
        old = scores("old", {"quality": base}, scales=endless)
        new = scores("new", {"quality": base + np.append(gaps[:59], height)}, scales=endless)
        shown = isinstance(decision.decide(old, new, Gate(guards={}), 0), Promote)
        if height == 50.0:
            first = shown
        assert first or not shown


# --- odds


def false_promotions(policy, clustered, runs):
    """A/A comparisons: both sides drawn from one distribution, clusters sharing a common part."""
    count = 0
    for seed in range(runs):
        rng = np.random.default_rng([seed, clustered])
        shared = np.repeat(rng.normal(0, 0.1, (2, 30)), 3, axis=1) if clustered else 0
        quality = np.clip(0.5 + shared + rng.normal(0, 0.1, (2, 90)), 0, 1)
        nll = rng.normal(2, 0.01, (2, 90))
        old, new = (
            scores(name, {"quality": quality[k], "bits_per_byte": nll[k]}, 3 if clustered else 1)
            for k, name in enumerate(("old", "new"))
        )
        count += isinstance(decision.decide(old, new, policy, seed), Promote)
    return count


@pytest.mark.parametrize("clustered", [0, 1])
def test_of_equal_models_one_in_twenty_is_promoted_at_most(clustered):
    runs = 200
    found = false_promotions(Gate(guards={"bits_per_byte": 0.05}, min_items=50), clustered, runs)
    assert found <= binom.ppf(0.999, runs, 0.05)


def test_a_real_gain_is_promoted_as_often_as_the_needed_items_promise():
    policy, promoted, runs = Gate(guards={}), 0, 60
    held = decision.decide(*sides(n=80, quality=0.01, seed=3), policy, 0)
    assert isinstance(held, Hold)
    assert held.n_needed is not None
    seen = effect(held, "quality").difference
    for seed in range(runs):
        promoted += isinstance(
            decision.decide(*sides(held.n_needed, seen, seed=100 + seed), policy, seed), Promote
        )
    assert promoted >= binom.ppf(0.001, runs, 0.7)


# --- harm that few items show


def test_rare_large_losses_that_no_item_shows_do_not_pass_for_small_gains():
    """Two items in a hundred lose 0.8, the others gain 0.006: seen or not, nothing so small is shown."""
    promoted = dict.fromkeys((50, 100, 200), 0)
    for n in promoted:
        for seed in range(25):
            rng = np.random.default_rng([n, seed])
            base = rng.uniform(0.85, 0.9, n)
            gaps = np.where(rng.random(n) < 0.02, -0.8, 0.006 * rng.uniform(0.5, 1.5, n))
            old, new = scores("old", {"quality": base}), scores("new", {"quality": base + gaps})
            promoted[n] += isinstance(decision.decide(old, new, Gate(guards={}), seed), Promote)
    assert sum(promoted.values()) == 0, promoted


def test_rare_large_losses_of_marks_without_an_upper_limit_do_not_pass_unseen():
    marks = {"quality": Scale("higher", "continuous", 0.0, None)}
    for seed in range(20):
        base = np.random.default_rng(seed).uniform(3.9, 4.1, 60)
        old, new = (scores(k, {"quality": v}, scales=marks) for k, v in (("old", base), ("new", base + 0.05)))
        assert isinstance(decision.decide(old, new, Gate(guards={}), seed), Hold)  # 2 % may lose all of it


def test_a_gain_on_every_item_too_small_to_exclude_rare_losses_says_so():
    base = np.random.default_rng(0).uniform(0.3, 0.7, 60)
    gained = base + np.random.default_rng(1).uniform(0.01, 0.02, 60)
    verdict = decision.decide(
        scores("old", {"quality": base}), scores("new", {"quality": gained}), Gate(guards={}), 0
    )
    assert isinstance(verdict, Hold)
    found = effect(verdict, "quality")
    assert found.p_value < 0.001
    assert found.bound is not None
    assert found.bound < 0
    assert "rare losses, not among these items, may leave -0.0" in verdict.because.reason
    assert verdict.n_needed is not None
    assert 150 <= verdict.n_needed <= 400


def test_clusters_count_equally_whatever_their_sizes():
    names = ("large",) * 40 + tuple(f"c{k}" for k in range(60))
    old = replace(scores("old", {"quality": [0.5] * 100}), clusters=names)
    new = replace(scores("new", {"quality": [0.9] * 40 + [0.5] * 60}), clusters=names)
    verdict = decision.decide(old, new, Gate(guards={}), 0)
    assert isinstance(verdict, Hold)
    assert effect(verdict, "quality").difference == pytest.approx(0.4 / 61)


def informative_sizes(seed, clusters, share_large, size):
    """Clusters of one item that are right, and a few large ones that the candidate gets wrong."""
    rng = np.random.default_rng(seed)
    large = rng.random(clusters) < share_large
    names = np.repeat(np.arange(clusters), np.where(large, size, 1))
    quality = rng.random((2, len(names))) < [[0.3], [0.8]]
    valid = np.where(large[names], 0.0, 1.0)
    labels = tuple(f"c{k}" for k in names)
    old = replace(scores("old", {"quality": quality[0], "valid": np.ones(len(names))}), clusters=labels)
    return old, replace(scores("new", {"quality": quality[1], "valid": valid}), clusters=labels)


@pytest.mark.parametrize(("size", "stated"), [(1, None), (6, None), (6, 6)])
def test_a_guard_worse_by_its_margin_is_kept_at_most_one_time_in_twenty_whatever_the_sizes(size, stated):
    policy = Gate(guards={"valid": 0.1}, largest_cluster=stated)
    runs = [decision.decide(*informative_sizes(seed, 60, 0.1, size), policy, seed) for seed in range(120)]
    kept = sum(effect(verdict, "valid").state == "kept" for verdict in runs)
    assert kept <= binom.ppf(0.999, 120, 0.05)


def test_with_a_stated_largest_cluster_a_guard_holds_for_the_items_too():
    """Two clusters in a hundred have twenty items, all wrong: 29 % of the items, 2 % of the clusters."""
    policy = Gate(guards={"valid": 0.1}, largest_cluster=20)
    for seed in range(40):
        found = effect(decision.decide(*informative_sizes(seed, 60, 0.02, 20), policy, seed), "valid")
        assert found.state != "kept"
    sound = decision.decide(*informative_sizes(0, 800, 0.0, 1), policy, 0)
    assert effect(sound, "valid").state == "kept"
    with pytest.raises(DataError, match="has 30 items, and the policy's largest_cluster 20"):
        decision.decide(*informative_sizes(3, 60, 0.1, 30), policy, 0)


def test_what_a_guard_says_of_the_items_is_false_at_most_one_time_in_twenty():
    """Clusters of five, all wrong, are 5 % of the clusters and 21 % of the items; many samples show few."""
    policy, said = Gate(guards={"valid": 0.2}), 0
    for seed in range(60):
        found = effect(decision.decide(*informative_sizes(seed, 60, 0.05, 5), policy, seed), "valid")
        said += found.state == "kept" and found.largest_cluster >= 5
    assert said <= binom.ppf(0.999, 60, 0.05)


def test_the_reason_says_up_to_which_size_of_clusters_a_guard_holds_over_items():
    old, new = informative_sizes(3, 400, 0.004, 4)
    assert 400 < len(old.items) <= 412
    verdict = decision.decide(old, new, Gate(guards={"valid": 0.1}), 0)
    size = effect(verdict, "valid").largest_cluster
    assert size >= 4
    assert f"over items too if no cluster has more than {size})" in verdict.because.reason


def test_a_gain_of_many_single_items_does_not_pay_for_large_clusters_that_lose():
    """Better over clusters, worse over items."""
    names = np.repeat(np.arange(205), [1] * 200 + [60] * 5)
    labels = tuple(f"c{k}" for k in names)
    quality = [np.full(500, 0.5), np.where(names < 200, 0.6, 0.3)]
    old, new = (
        replace(scores(name, {"quality": values}), clusters=labels)
        for name, values in zip(("old", "new"), quality, strict=True)
    )
    verdict = decision.decide(old, new, Gate(guards={}), 0)
    assert isinstance(verdict, Hold)
    assert effect(verdict, "quality").difference > 0.08
    assert "not shown over items" in verdict.because.reason


def test_a_guard_whose_items_were_seen_to_be_worse_is_not_called_kept():
    old, new = informative_sizes(3, 60, 0.02, 40)
    assert len(old.items) > 60  # a large cluster is among them
    found = effect(decision.decide(old, new, Gate(guards={"valid": 0.15}), 0), "valid")
    assert (found.difference > -0.05, found.state) == (True, "open")
