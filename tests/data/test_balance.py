"""Laws of balance: never more than there is, targets met where they can be, no order, no change twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escultor.config.curation import Balance
from escultor.data.balance import allocate, apportioned, balance_choice, lopsided
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
    dealt = apportioned(total, {str(i): w / sum(weights) for i, w in enumerate(weights)})
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


def test_the_best_of_each_stay_and_what_is_missing_is_said():
    values = np.asarray(["x"] * 6 + ["y"] * 2, dtype=object)
    score = np.asarray([0.1, 0.9, 0.5, 0.9, 0.2, 0.3, 0.0, 0.0])
    tie = np.arange(8, dtype=np.uint64)
    targets = Balance(targets={"x": 0.4, "y": 0.4, "z": 0.2})
    keep, said = balance_choice(values, score, tie, targets)
    assert keep.tolist() == [False, True, False, True, False, False, True, True]
    assert said == ["no row of domain z, of which 20% were wanted"]
    with pytest.raises(DataError, match="no row has a domain that is wanted"):
        balance_choice(values, score, tie, Balance(targets={"q": 1.0}))


def test_one_label_too_many_is_said_in_words():
    said = lopsided("domain", {"ai-ml": 95, "web": 5}, 0.6)
    assert said == ["95% ai-ml: the model will be good at ai-ml and worse elsewhere"]
    assert lopsided("domain", {"ai-ml": 60, "web": 40}, 0.6) == []
    assert lopsided("domain", {}, 0.6) == []
