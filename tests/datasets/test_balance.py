"""Laws of balance: never more than there is, targets met where they can be, no order, no change twice."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.config.curation import Balance
from escultor.datasets.balance import allocate, allocate_jointly, apportion
from escultor.datasets.curation.balancing import choose_balanced, dominant_value
from escultor.errors import DataError

NAMES = ["a", "b", "c", "d", "e"]
supplies = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 200), min_size=1)
shares = st.lists(st.integers(1, 20), min_size=1, max_size=4).map(
    lambda found: {
        name: n / sum(found) for name, n in zip([*NAMES[: len(found) - 1], "*"], found, strict=True)
    }
)
wanted = st.one_of(st.none(), st.integers(1, 400))


@given(supplies, shares, wanted)
def test_never_more_than_there_is_and_the_same_again_from_any_order(supply, targets, rows):
    dealt = allocate(supply, targets, rows)
    assert dealt.keys() == supply.keys()
    assert all(0 <= n <= supply[name] for name, n in dealt.items())
    assert rows is None or sum(dealt.values()) == min(rows, sum(supply.values()))
    assert allocate(dict(reversed(supply.items())), targets, rows) == dealt
    assert allocate(dealt, targets, rows) == dealt


@given(shares, st.integers(1, 300))
def test_targets_are_met_to_the_row_where_supply_allows(targets, rows):
    supply = dict.fromkeys([name for name in targets if name != "*"], 10_000) | {"z": 10_000}
    for total in (rows, None):
        dealt = allocate(supply, targets, total)
        whole = sum(dealt.values())
        for name, share in targets.items():
            got = dealt["z"] if name == "*" else dealt[name]
            assert abs(got - share * whole) < 1 or got == 1 or whole < 40


@given(st.integers(0, 500), st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_apportioning_gives_out_everything(total, weights):
    dealt = apportion(total, {str(i): w / sum(weights) for i, w in enumerate(weights)})
    assert sum(dealt.values()) == total
    assert total < len(weights) or min(dealt.values()) >= 1


def test_the_mix_that_was_asked_for():
    targets = {"education": 0.3, "business": 0.3, "technical": 0.3, "edge": 0.1}
    supply = {"education": 900, "business": 600, "technical": 5000, "edge": 100}
    assert allocate(supply, targets) == {"education": 300, "business": 300, "technical": 300, "edge": 100}
    # 2,000 rows: what edge cases lack is dealt out to the others.
    assert allocate(supply, targets, 2000) == {
        "education": 650,
        "business": 600,
        "technical": 650,
        "edge": 100,
    }


def coded(values):
    names = sorted(set(values))
    return np.asarray([names.index(value) for value in values], dtype=np.uint32), names


def chosen(values, score, tie, targets, **more):
    labels = {"domain": coded(values), "purpose": coded(["unlabelled"] * len(values))}
    every = np.ones(len(values), dtype=bool)
    return choose_balanced(labels, score, tie, every, Balance(targets=targets, **more))


def test_the_best_of_each_stay_and_what_is_missing_is_said():
    values = ["x"] * 6 + ["y"] * 2
    score = np.asarray([0.1, 0.9, 0.5, 0.9, 0.2, 0.3, 0.0, 0.0])
    tie = np.arange(8, dtype=np.uint64)
    keep, said = chosen(values, score, tie, {"domain": {"x": 0.4, "y": 0.4, "z": 0.2}})
    assert keep.tolist() == [False, True, False, True, False, False, True, True]
    assert said == ["no row of domain z, of which 20% were wanted"]
    with pytest.raises(DataError, match="no row has a domain that is wanted"):
        chosen(values, score, tie, {"domain": {"q": 1.0}})
    keep, said = chosen(values, score, tie, {})
    assert keep.all()
    assert said == ["75% x: the model will be good at x and worse elsewhere"]


# --- several labels -----------------------------------------------------------------------------

cells = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), st.integers(1, 60), min_size=4, max_size=9
)
pair_targets = st.tuples(
    st.sampled_from([{"a": 0.5, "b": 0.5}, {"a": 0.2, "*": 0.8}, {"a": 0.25, "b": 0.25, "c": 0.5}]),
    st.sampled_from([{"x": 0.5, "y": 0.5}, {"x": 0.7, "*": 0.3}, {"x": 0.2, "y": 0.3, "z": 0.5}]),
)


def group(value, shares):
    return value if value in shares else "*" if "*" in shares else None


@settings(max_examples=60, deadline=None)
@given(cells, pair_targets)
def test_targets_of_two_labels_are_met_but_for_rounding_and_from_any_order(supply, targets):
    try:
        dealt = allocate_jointly(supply, ("one", "other"), targets)
    except DataError:
        return  # they exclude each other: see below
    total = sum(dealt.values())
    assert all(0 <= dealt[cell] <= n for cell, n in supply.items())
    for k, shares in enumerate(targets):
        there = {
            g for cell in supply if None not in map(group, cell, targets) if (g := group(cell[k], shares))
        }
        whole = sum(shares[g] for g in there)
        for g in there:
            got = sum(n for cell, n in dealt.items() if group(cell[k], shares) == g)
            assert abs(got - total * shares[g] / whole) <= 3
    assert allocate_jointly(dict(reversed(supply.items())), ("one", "other"), targets) == dealt


def test_two_labels_against_every_whole_number_there_is():
    supply = {("a", "x"): 4, ("a", "y"): 6, ("b", "x"): 7, ("b", "y"): 2}
    dealt = allocate_jointly(supply, ("p", "q"), ({"a": 0.5, "b": 0.5}, {"x": 0.5, "y": 0.5}))
    best = max(
        (sum(n), n)
        for n in product(*(range(most + 1) for most in supply.values()))
        if n[0] + n[1] == n[2] + n[3] and n[0] + n[2] == n[1] + n[3]
    )
    assert sum(dealt.values()) == best[0] == 16
    assert dealt[("a", "x")] + dealt[("a", "y")] == dealt[("a", "x")] + dealt[("b", "x")] == 8


def test_targets_that_exclude_each_other_are_refused_and_with_rows_met_as_far_as_can_be():
    supply = {("a", "x"): 50, ("b", "y"): 50}
    targets = ({"a": 0.5, "b": 0.5}, {"x": 0.9, "y": 0.1})
    with pytest.raises(DataError, match="the targets of domain and length cannot be met together"):
        allocate_jointly(supply, ("domain", "length"), targets)
    dealt = allocate_jointly(supply, ("domain", "length"), targets, 60)
    assert sum(dealt.values()) == 60
    assert dealt[("a", "x")] == 50 or 30 <= dealt[("a", "x")] <= 54


def test_combinations_keep_their_share_of_the_supply_where_targets_let_them():
    supply = {("a", "x"): 300, ("a", "y"): 100, ("b", "x"): 300, ("b", "y"): 100}
    dealt = allocate_jointly(supply, ("p", "q"), ({"a": 0.5, "b": 0.5}, {"x": 0.75, "y": 0.25}), 400)
    assert dealt == {("a", "x"): 150, ("a", "y"): 50, ("b", "x"): 150, ("b", "y"): 50}


def test_the_best_of_each_combination_stay():
    draw = np.random.default_rng(0)
    labels = {
        "domain": coded(draw.choice(["law", "art"], 400, p=[0.6, 0.4]).tolist()),
        "length": coded(draw.choice(["short", "long"], 400).tolist()),
        "purpose": coded(["unlabelled"] * 400),
    }
    score, tie = draw.random(400), np.arange(400, dtype=np.uint64)
    targets = {"domain": {"law": 0.5, "art": 0.5}, "length": {"short": 0.35, "long": 0.65}}
    keep, said = choose_balanced(labels, score, tie, np.ones(400, dtype=bool), Balance(targets=targets))
    codes = labels["domain"][0] * 2 + labels["length"][0]
    for code in range(4):
        own = codes == code
        assert score[own & keep].min() > score[own & ~keep].max(initial=0)
    shares = [float((labels[name][0][keep] == 0).mean()) for name in ("domain", "length")]
    assert shares == pytest.approx([0.5, 0.65], abs=0.02)
    assert said == ["65% length long: the model will be good at length long and worse elsewhere"]


def test_one_label_too_many_is_said_in_words():
    said = dominant_value("domain", {"ai-ml": 95, "web": 5}, 0.6)
    assert said == ["95% ai-ml: the model will be good at ai-ml and worse elsewhere"]
    assert dominant_value("domain", {"ai-ml": 60, "web": 40}, 0.6) == []
    assert dominant_value("domain", {}, 0.6) == []
    assert dominant_value("domain", {"unlabelled": 9}, 0.6) == []
    said = dominant_value("domain", {"unlabelled": 9, "law": 1}, 0.6)
    assert said == ["90% of the rows have no domain: their balance is unknown"]
