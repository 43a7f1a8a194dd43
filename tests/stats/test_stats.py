"""Statistics against scipy, closed forms and their own laws."""

import importlib
import inspect
import math
import pkgutil
import re

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor import stats
from escultor.errors import DataError
from escultor.stats import sampling

FEW = settings(max_examples=30, deadline=None)
GAPS = st.lists(st.integers(-20, 20).map(lambda i: i / 20), min_size=2, max_size=30)


def names(n, per=1):
    return [f"c{i // per:04d}" for i in range(n)]


def spread(n, seed, per=1, shift=0.1):
    """Differences that share a part within clusters of `per` items."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.normal(shift, 0.2, math.ceil(n / per)), per)[:n]
    return shared + rng.normal(0, 0.1, n)


# --- means


def test_standard_error_of_single_items_is_the_textbook_one():
    x = spread(40, 0)
    error = stats.standard_error(*stats.cluster_sums(x, names(40)))
    assert error == pytest.approx(scipy.stats.sem(x))


def test_standard_error_of_equal_clusters_is_that_of_their_means():
    x = spread(60, 1, per=5)
    error = stats.standard_error(*stats.cluster_sums(x, names(60, 5)))
    assert error == pytest.approx(scipy.stats.sem(x.reshape(12, 5).mean(axis=1)))


def test_bootstrap_interval_of_normal_data_is_close_to_students():
    x = spread(200, 2)
    ours = stats.bootstrap_mean(x, names(200), 0.05, seed=0)
    low, high = scipy.stats.t.interval(0.9, 199, x.mean(), scipy.stats.sem(x))
    assert ours.value == pytest.approx(x.mean())
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_bootstrap_t_covers_skewed_means_better_than_students_interval():
    covered = {"ours": 0, "student": 0}
    for seed in range(300):
        x = np.random.default_rng(seed).lognormal(0, 1, 20)
        ours = stats.bootstrap_mean(x, names(20), 0.05, seed)
        low, high = scipy.stats.t.interval(0.9, 19, x.mean(), scipy.stats.sem(x))
        covered["ours"] += ours.low <= math.exp(0.5) <= ours.high
        covered["student"] += low <= math.exp(0.5) <= high
    assert covered["ours"] > covered["student"]
    assert covered["ours"] >= 0.83 * 300


def test_interval_that_ignores_clusters_is_too_short():
    x = spread(200, 3, per=10)
    whole, single = (stats.bootstrap_mean(x, c, 0.025, 0) for c in (names(200, 10), names(200)))
    assert whole.high - whole.low > 1.8 * (single.high - single.low)


@pytest.mark.parametrize("gap", [0.0, 0.25])
def test_no_variance_gives_the_rule_of_three_and_not_a_width_of_zero(gap):
    found = stats.bootstrap_mean([gap] * 100, names(100), 0.05, 0, floor=-1, ceiling=1)
    unseen = 1 - 0.05 ** (1 / 100)
    assert found.low == pytest.approx(gap - unseen * (1 + gap), abs=2e-3)
    assert found.high == pytest.approx(gap + unseen * (1 - gap), abs=2e-3)


def test_one_cluster_bounds_nothing_without_a_floor():
    found = stats.bootstrap_mean([0.1, 0.2], ["c", "c"], 0.05, 0)
    assert found.value == pytest.approx(0.15)
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_few_clusters_that_vary_still_give_an_ordered_finite_interval():
    for moved in range(1, 8):
        found = stats.bootstrap_mean([0.5] * moved + [0.0] * (60 - moved), names(60), 0.05, 0, -1, 1)
        assert -1 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(("bad", "n"), [(0, 50), (1, 60), (4, 80)])
def test_bounded_mean_of_zeros_and_ones_is_clopper_pearson(bad, n):
    ours = stats.bounded_mean([-1.0] * bad + [0.0] * (n - bad), names(n), 0.05, 0, -1, 1)
    theirs = scipy.stats.binomtest(bad, n).proportion_ci(0.9, method="exact")
    assert -ours.low == pytest.approx(theirs.high, rel=0.05)


@FEW
@given(
    sizes=st.lists(st.integers(1, 6), min_size=30, max_size=60),
    losses=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_the_largest_cluster_is_the_one_up_to_which_the_bound_is_above_null(sizes, losses, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = [str(group) for group in groups]
    gaps = np.where(groups < losses, -1.0, 0.0)

    def bound(largest=1):
        return stats.bounded_mean(gaps, labels, 0.05, seed, -1, 1, -0.3, largest)

    largest = math.floor(bound().largest)
    for size in (largest, largest + 1):
        if size >= max(sizes):
            assert (bound(size).low > -0.3) == (size == largest)


def test_bounded_mean_covers_rare_harm_that_a_bootstrap_does_not_see():
    rng, missed = np.random.default_rng(5), 0
    for seed in range(200):
        x = -(rng.random(40) < 0.03).astype(float)
        missed += stats.bounded_mean(x, names(40), 0.05, seed, -1, 1).low > -0.03
    assert missed <= scipy.stats.binom.ppf(0.999, 200, 0.05)


@FEW
@given(GAPS, st.integers(0, 5), st.floats(-0.9, 0.9))
def test_bounded_p_value_agrees_with_the_bound(gaps, seed, null):
    found = stats.bounded_mean(gaps, names(len(gaps)), 0.05, seed, -1, 1, null)
    assert (found.p_value <= 0.05) == (found.low > null)


@FEW
@given(GAPS, st.integers(0, 5), st.data())
def test_lowering_an_item_never_raises_a_bound_nor_lowers_a_p_value(gaps, seed, data):
    drops = data.draw(st.lists(st.floats(0, 0.5), min_size=len(gaps), max_size=len(gaps)))
    lower, clusters = [g - d for g, d in zip(gaps, drops, strict=True)], names(len(gaps), 2)
    before, after = (stats.bounded_mean(x, clusters, 0.05, seed, -2, 2) for x in (gaps, lower))
    assert after.low <= before.low + 1e-12
    worse, better = (stats.sign_flip(x, clusters, 0.05, seed).better for x in (lower, gaps))
    assert worse >= better


@FEW
@given(GAPS, st.integers(0, 5))
def test_swapping_sides_negates_the_difference_and_mirrors_the_bounds(gaps, seed):
    clusters, back = names(len(gaps), 2), [-g for g in gaps]
    for one, two in (
        [stats.bootstrap_mean(x, clusters, 0.05, seed, -1, 1) for x in (gaps, back)],
        [stats.bounded_mean(x, clusters, 0.05, seed, -1, 1) for x in (gaps, back)],
    ):
        assert (two.value, two.low, two.high) == pytest.approx((-one.value, -one.high, -one.low), abs=1e-9)


@FEW
@given(GAPS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_order_of_items_changes_nothing(gaps, seed, random):
    rows = list(zip(gaps, names(len(gaps), 3), strict=True))
    random.shuffle(rows)
    mixed, clusters = [list(column) for column in zip(*rows, strict=True)]
    old = names(len(gaps), 3)
    for function in (stats.bootstrap_mean, stats.bounded_mean):
        one, two = function(gaps, old, 0.05, seed, -1, 1), function(mixed, clusters, 0.05, seed, -1, 1)
        assert tuple(one) == pytest.approx(tuple(two), abs=1e-9)
    assert stats.sign_flip(gaps, old, 0.05, seed) == stats.sign_flip(mixed, clusters, 0.05, seed)
    wins = np.sign(gaps), np.sign(mixed)
    assert stats.win_rate(wins[0], old) == pytest.approx(stats.win_rate(wins[1], clusters))


@pytest.mark.parametrize(
    ("values", "clusters"), [([], []), ([1.0], []), ([math.nan], ["c"]), ([math.inf], ["c"])]
)
def test_unusable_values_are_refused(values, clusters):
    with pytest.raises(DataError):
        stats.bootstrap_mean(values, clusters, 0.05, 0)


def test_large_samples_are_drawn_in_blocks_and_give_the_same_kind_of_answer(monkeypatch):
    x = spread(50, 8)
    whole = stats.bootstrap_mean(x, names(50), 0.05, 0)
    monkeypatch.setattr(sampling, "BLOCK_CELLS", 5000)
    assert tuple(stats.bootstrap_mean(x, names(50), 0.05, 0)) == pytest.approx(tuple(whole))


# --- tests


def test_sign_flip_enumerates_as_scipy_does():
    x = spread(10, 6, shift=0.05)
    theirs = scipy.stats.permutation_test((x,), np.sum, permutation_type="samples", alternative="greater")
    assert stats.sign_flip(x, names(10), 0.05, 0).better == pytest.approx(theirs.pvalue)


def test_sign_flip_by_chance_is_close_to_the_exact_p_value():
    x = [1.0] * 16 + [-1.0] * 8  # 24 equal steps: the binomial tail
    exact = scipy.stats.binom.sf(15, 24, 0.5)
    assert stats.sign_flip(x, names(24), 0.05, 0).better == pytest.approx(exact, abs=0.015)


def test_sign_flip_flips_whole_clusters():
    assert stats.sign_flip([0.1] * 30, names(30, 10), 0.05, 0).better == 1 / 8


def test_sign_flip_p_value_is_never_zero():
    assert stats.sign_flip([1.0] * 100, names(100), 0.05, 0).better == 1 / 5000


def test_mcnemar_is_the_binomial_tail_of_many_items_and_the_largest_trinomial_one_of_few():
    assert stats.mcnemar(8, 2, 5000) == pytest.approx((45 + 10 + 1) / 1024)
    assert stats.mcnemar(3, 0, 3) == 1 / 8  # all three decided
    for items in (10, 5000):
        assert stats.mcnemar(0, 0, items) == stats.mcnemar(0, 5, items) == 1.0


@given(st.integers(2, 60), st.data())
def test_mcnemar_never_favours_a_candidate_that_loses_an_item(items, data):
    wins = data.draw(st.integers(1, items))
    losses = data.draw(st.integers(0, items - wins))
    p = stats.mcnemar(wins, losses, items)
    assert p <= stats.mcnemar(wins - 1, losses, items) + 1e-12
    assert wins + losses == items or p <= stats.mcnemar(wins, losses + 1, items) + 1e-12


def test_mcnemar_is_wrong_at_most_as_often_as_it_says_whatever_share_is_decided():
    items, alpha = 40, 0.05
    first = [
        next((w for w in range(d + 1) if stats.mcnemar(w, d - w, items) <= alpha), d + 1)
        for d in range(items + 1)
    ]
    tail = scipy.stats.binom.sf(np.array(first) - 1, np.arange(items + 1), 0.5)
    shares = np.linspace(0.001, 1, 997)
    wrong = scipy.stats.binom.pmf(np.arange(items + 1), items, shares[:, None]) @ tail
    assert 0.04 < wrong.max() <= alpha + 1e-4


def test_holm_steps_down_with_the_rank_and_stays_monotone():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert stats.holm([]) == ()
    assert stats.holm([0.7, 0.9]) == (1.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_what_the_step_down_procedure_rejects(ps):
    for alpha in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
            if (len(ps) - rank) * ps[i] > alpha:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(stats.holm(ps)) if p <= alpha} == rejected


# --- sample sizes


@pytest.mark.parametrize(
    ("discordant", "margin", "n"), [(10, 0.05, 248), (20, 0.05, 495), (30, 0.05, 742), (10, 0.02, 1546)]
)
def test_n_for_power_is_the_published_size_of_a_non_inferiority_trial(discordant, margin, n):
    gaps = ([1.0] * discordant + [-1.0] * discordant + [0.0] * (200 - 2 * discordant)) * 50
    found = stats.n_for_power(gaps, names(len(gaps)), margin, 0.05)
    assert found == pytest.approx(n + 1.645**2 / 2, abs=1)


def test_n_for_power_delivers_the_power():
    x = spread(500, 9, shift=0.0)
    n = stats.n_for_power(x, names(500), 0.04, 0.05)
    assert n is not None
    shown = 0
    for seed in range(200):
        y = spread(n, 1000 + seed, shift=0.04)
        shown += scipy.stats.ttest_1samp(y, 0, alternative="greater").pvalue <= 0.05
    assert 0.7 <= shown / 200 <= 0.9


def test_clusters_that_agree_need_more_items():
    x = spread(200, 3, per=10)
    alone, together = (stats.n_for_power(x, c, 0.05, 0.05) for c in (names(200), names(200, 10)))
    assert alone is not None
    assert together is not None
    assert together > 3 * alone


@pytest.mark.parametrize(
    ("gaps", "step"),
    [
        ([1, 0, -1], 1.0),
        ([0.25, -0.5, 0, 1], 0.25),
        ([0, 0], 0.0),
        ([0.3, 0.2], 0.0),
        ([0.1 + 0.2, -0.3], 0.3),
    ],
)
def test_the_step_of_differences_is_what_all_are_multiples_of(gaps, step):
    assert stats.score_step(gaps) == pytest.approx(step)


def test_the_step_of_a_test_of_counts_is_what_its_ties_cost():
    """The conditional test over all outcomes, beside the planned power with the step and without."""
    n, wins, losses = 300, 0.12, 0.06
    power = 0.0
    for discordant in range(n + 1):
        share = scipy.stats.binom.pmf(discordant, n, wins + losses)
        if share > 1e-9:
            tail = scipy.stats.binom.sf(np.arange(discordant + 1) - 1, discordant, 0.5)
            need = next((w for w, p in enumerate(tail) if p <= 0.05), None)
            if need is not None:
                power += share * scipy.stats.binom.sf(need - 1, discordant, wins / (wins + losses))
    spread = math.sqrt(wins + losses - (wins - losses) ** 2)
    with_step, without = (
        stats.Condition(wins - losses, spread, 0.05, step=step).power(n) for step in (1.0, 0.0)
    )
    assert with_step == pytest.approx(power, abs=0.01)
    assert without > power + 0.015


def kept_exactly(n, rate, margin):
    """The chance that Gaffke's bound of gains and losses of 1, each at this rate, clears the margin: over
    all counts by their multinomial law. More losses never help, so the most that are borne are searched."""

    def borne(gains):
        losses, most = -1, int(stats.n_without_event(0.5, 0.05) or 0) + int(margin * n)
        while losses < most:
            middle = (losses + most + 1) // 2
            gaps = np.repeat([1.0, -1.0, 0.0], [gains, middle, n - gains - middle])
            kept = stats.bounded_mean(gaps, names(n), 0.05, 0, -1.0, 1.0).low > -margin
            losses, most = (middle, most) if kept else (losses, middle - 1)
        return losses

    found = 0.0
    for gains in range(int(scipy.stats.binom.ppf(0.999, n, rate)) + 1):
        rest = scipy.stats.binom.cdf(borne(gains), n - gains, rate / (1 - rate))
        found += float(scipy.stats.binom.pmf(gains, n, rate) * rest)
    return found


@pytest.mark.parametrize("n", [120, 180, 311])
def test_the_power_of_a_guard_on_rare_harm_is_what_counting_all_outcomes_gives(n):
    rate, margin = 0.0196, 0.05
    planned = stats.Condition(margin, math.sqrt(2 * rate), 0.05, harm=1.0).power(n)
    assert planned == pytest.approx(kept_exactly(n, rate, margin), abs=0.035)


def test_without_the_weight_of_the_unseen_cluster_a_guard_would_promise_too_much():
    naive = scipy.stats.norm.cdf((0.05 - 1 / 121) * math.sqrt(120) / math.sqrt(2 * 0.0196) - 1.645)
    assert naive > kept_exactly(120, 0.0196, 0.05) + 0.05


@pytest.mark.parametrize("effect", [0.0, -0.1, 1e-300])
def test_no_number_of_items_shows_an_effect_that_is_not_there(effect):
    assert stats.n_for_power(spread(20, 0), names(20), effect, 0.05) is None


def test_one_cluster_tells_no_number():
    assert stats.n_for_power([0.1, 0.3], ["c", "c"], 0.1, 0.05) is None


@pytest.mark.parametrize(
    ("share", "n"), [(0.01, 299), (0.02, 149), (0.5, 5), (1.0, 1), (0.0, None), (-0.1, None)]
)
def test_n_without_event_is_the_exact_rule_of_three(share, n):
    assert stats.n_without_event(share, 0.05) == n


# --- shares and quantiles


@given(st.integers(1, 300), st.data())
def test_wilson_is_scipys(n, data):
    k = data.draw(st.integers(0, n))
    theirs = scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert stats.wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_of_nothing_says_nothing_and_of_nonsense_is_refused():
    assert stats.wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(DataError, match="3 of 2"):
        stats.wilson(3, 2)


def test_win_rate_leaves_ties_out_and_mirrors():
    votes = [1] * 30 + [-1] * 10 + [0] * 20
    ours, swapped = (stats.win_rate([s * v for v in votes], names(60)) for s in (1, -1))
    assert (ours.value, ours.n, ours.ties) == (0.75, 60, 20)
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((0.25, 1 - ours.high, 1 - ours.low))
    theirs = scipy.stats.binomtest(30, 40).proportion_ci(0.95, method="exact")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_win_rate_of_repeated_votes_is_no_surer_than_of_single_ones():
    votes = [1] * 20 + [-1] * 10
    once = stats.win_rate(votes, names(30))
    thrice = stats.win_rate(np.repeat(votes, 3), list(np.repeat(names(30), 3)))
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))


def test_win_rate_with_nothing_decided_is_unknown_and_with_all_won_is_not_certain():
    assert stats.win_rate([0, 0], ["a", "b"]) == (0.5, 0.0, 1.0, 2, 2)
    assert stats.win_rate([1] * 20, names(20)).low == pytest.approx(0.025 ** (1 / 20), abs=0.01)
    with pytest.raises(DataError):
        stats.win_rate([0.5], ["a"])


@pytest.mark.parametrize(
    ("n", "q"), [(1000, 0.99), (400, 0.99), (100, 0.99), (100, 0.5), (12, 0.5), (5, 0.99)]
)
def test_quantile_bounds_lie_within_scipys_whole_order_statistics_and_next_to_them(n, q):
    x = np.sort(np.random.default_rng(n).exponential(100, n))
    ours = stats.quantile(x, q)
    for bound, side in ((ours.low, "greater"), (ours.high, "less")):
        interval = scipy.stats.quantile_test(x, p=q, alternative=side).confidence_interval(0.975)
        outer = interval.low if side == "greater" else interval.high
        if bound is None:
            assert math.isnan(outer)
            continue
        at = int(np.searchsorted(x, outer))
        inner = x[min(at + 1, n - 1)] if side == "greater" else x[max(at - 1, 0)]
        assert min(outer, inner) <= bound <= max(outer, inner)
    assert ours.value in x
    assert ours.n == n


@pytest.mark.parametrize(("n", "known"), [(367, False), (368, True)])
def test_p99_has_an_upper_bound_from_368_requests_on(n, known):
    assert (stats.quantile(range(n), 0.99).high is not None) == known


def test_quantile_interval_covers():
    rng = np.random.default_rng(0)
    truth, hits = -math.log(0.1), 0
    for _ in range(300):
        found = stats.quantile(rng.exponential(1, 80), 0.9)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert hits >= scipy.stats.binom.ppf(0.001, 300, 0.95)


@pytest.mark.parametrize(("values", "q"), [([], 0.5), ([1.0], 0.0), ([math.nan], 0.5)])
def test_impossible_quantiles_are_refused(values, q):
    with pytest.raises(DataError):
        stats.quantile(values, q)


def test_parameters_say_whether_an_error_is_of_one_side_or_of_both():
    files = [m.name for m in pkgutil.iter_modules(stats.__path__)]
    modules = [importlib.import_module(f"escultor.stats.{name}") for name in files]
    functions = [f for m in modules for f in vars(m).values() if inspect.isfunction(f)]
    functions += [stats.Condition]
    names = {name for f in functions for name in inspect.signature(f).parameters}
    errors = {name for name in names if re.search("level|alpha|confiden|signific", name)}
    assert errors == {"alpha", "two_sided_alpha", "confidence"}


@pytest.mark.parametrize(("events", "n"), [(0, 10), (3, 10), (10, 10), (17, 400)])
def test_clopper_pearson_is_scipys_and_the_exact_p_value_agrees_with_it(events, n):
    low, high = stats.clopper_pearson(events, n)
    theirs = scipy.stats.binomtest(events, n).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((theirs.low, theirs.high))
    if events:
        assert stats.binomial_p_value(events, n, low) == pytest.approx(0.025)
    assert stats.clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("x", [-800.0, -40.0, -0.3, 0.0, 2.0, 800.0])
def test_log_odds_and_the_logistic_function_are_inverse(x):
    assert stats.logistic(x) + stats.logistic(-x) == pytest.approx(1.0)
    if abs(x) < 30:
        assert stats.log_odds(stats.logistic(x)) == pytest.approx(x, abs=1e-9)
        assert stats.sigmoid(np.array([x]))[0] == pytest.approx(stats.logistic(x))


def test_tails_of_a_fair_coin_are_what_scipy_says():
    from scipy.stats import binom

    from escultor.stats.coin import coin_tail

    for heads, tosses in (
        (0, 5),
        (3, 3),
        (40, 60),
        (41, 61),
        (20, 61),
        (600, 1100),
        (400, 1000),
        (5100, 10000),
    ):
        assert coin_tail(heads, tosses) == pytest.approx(binom.sf(heads - 1, tosses, 0.5), rel=1e-10)
