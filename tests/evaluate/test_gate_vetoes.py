"""Vetoes, void items, scales and slices: what no gain makes up for, and what is told beside the verdict."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from escultor.config import Gate
from escultor.errors import DataError
from escultor.evaluate.gate.decision import decide
from escultor.types import GateContext, Hold, Promote, Reject, Scale, Scores

N = 120
LABELS = {
    "language": tuple("de" if k % 3 else "en" for k in range(N)),
    "source": tuple(["a"] * 115 + ["b"] * 5),
}


def sides(canary=1.0, **metrics):
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.6, N)
    names = tuple(f"i{k}" for k in range(N))
    made = []
    for name, gain in (("old", 0.0), ("new", 0.05)):
        quality = base + gain + rng.normal(0, 0.02, N)
        values = {"quality": tuple(quality), "canary": (canary if name == "new" else 1.0,) * N}
        values |= {m: tuple(pair[name == "new"] for _ in range(N)) for m, pair in metrics.items()}
        made.append(Scores(name, name, "suite", names, names, values, {"p99": 100.0}, slices=LABELS))
    return made


def policy(**changes):
    return Gate.model_validate({"guards": {}, "min_items": 50} | changes)


def test_a_broken_veto_rejects_whatever_the_gain():
    rules = policy(vetoes={"canary": {"at_least": 1.0}})
    assert isinstance(decide(*sides(), rules, 0), Promote)
    verdict = decide(*sides(canary=0.99), rules, 0)
    assert isinstance(verdict, Reject)
    assert "veto: canary 0.990, at least 1" in verdict.because.reason


@pytest.mark.parametrize(
    ("better", "pair", "broken"), [("higher", (0.5, 0.3), True), ("lower", (0.5, 0.3), False)]
)
def test_worse_by_follows_the_scale(better, pair, broken):
    old, new = (replace(s, scales={"probe": Scale(better)}) for s in sides(probe=pair))
    verdict = decide(old, new, policy(vetoes={"probe": {"worse_by": 0.1}}), 0)
    assert isinstance(verdict, Reject) == broken


def test_figures_that_are_not_per_item_have_limits_too():
    assert isinstance(decide(*sides(), policy(vetoes={"p99": {"at_most": 99}}), 0), Reject)
    with pytest.raises(DataError, match="score per item"):
        decide(*sides(), policy(vetoes={"p99": {"worse_by": 1}}), 0)


def test_a_dataset_card_beyond_its_limit_rejects_and_one_that_is_missing_waits():
    rules = policy(card={"largest_label": 0.6, "largest_subject": 0.2})
    for card, kind in (
        (None, Hold),
        ({"largest_label": 0.4}, Hold),
        ({"largest_label": 0.4, "largest_subject": 0.1}, Promote),
        ({"largest_label": 0.7, "largest_subject": 0.1}, Reject),
    ):
        assert isinstance(decide(*sides(), rules, 0, GateContext(card=card)), kind)


def test_a_promotion_waits_for_its_signature():
    waiting = decide(*sides(), policy(sign_off=True), 0)
    assert isinstance(waiting, Hold)
    assert "waits for sign-off" in waiting.because.reason
    assert isinstance(decide(*sides(), policy(sign_off=True), 0, GateContext(signed_by="Ana")), Promote)


def test_an_erased_item_voids_the_comparison():
    verdict = decide(*sides(), policy(), 0, GateContext(void={"i3": "erased", "elsewhere": "leaked"}))
    assert isinstance(verdict, Hold)
    assert "void: 1 of 120 items may not be used (erased)" in verdict.because.reason
    assert verdict.n_needed is None


def test_a_metric_of_which_neither_more_nor_less_is_better_decides_nothing():
    old, new = (replace(s, scales={"length": Scale("neither", most=None)}) for s in sides(length=(9.0, 4.0)))
    with pytest.raises(DataError, match="neither more nor less"):
        decide(old, new, policy(guards={"length": 1.0}), 0)
    assert isinstance(decide(old, new, policy(), 0), Promote)


def test_sides_measured_on_different_scales_are_refused():
    old, new = sides()
    with pytest.raises(DataError, match="different scales of quality"):
        decide(old, replace(new, scales={"quality": Scale("lower")}), policy(), 0)
    with pytest.raises(DataError, match="different scales of quality"):
        decide(
            replace(old, scales={"quality": Scale()}),
            replace(new, scales={"quality": Scale(most=5.0)}),
            policy(),
            0,
        )


def test_slices_are_told_for_parts_that_are_large_enough():
    found = decide(*sides(), policy(), 0).because.slices
    assert [(s.way, s.name, s.n) for s in found] == [
        ("language", "de", 80),
        ("language", "en", 40),
        ("source", "a", 115),
    ]
    assert all(s.low < s.difference < s.high for s in found)


@pytest.mark.parametrize(
    "bad",
    [
        {"vetoes": {"canary": {}}},
        {"vetoes": {"canary": {"at_least": 1, "at_most": 0}}},
        {"primary": ["quality"], "guards": {"quality": 0.1}},
    ],
)
def test_policies_that_contradict_themselves_are_refused(bad):
    with pytest.raises(ValidationError):
        Gate.model_validate(bad)
