"""Rates follow their schedule, and each optimizer takes what is its own."""

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from escultor.train.optim import Optimizers, rate

schedules = st.sampled_from(["linear", "cosine", "wsd", "constant"])


@given(schedules, st.integers(1, 500), st.integers(0, 200))
def test_a_rate_warms_up_then_falls_to_0_or_stays(schedule, steps, warmup_steps):
    own = tiny.settings(schedule=schedule, warmup_steps=warmup_steps)
    rates = [rate(step, steps, own) for step in range(steps)]
    warmup = min(warmup_steps, steps // 10)
    assert all(0 < value <= 1 for value in rates)
    assert rates[:warmup] == sorted(set(rates[:warmup]))
    assert rates[warmup] == 1.0
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rate(steps, steps, own) == (1.0 if schedule == "constant" else pytest.approx(0.0, abs=1e-12))


def test_wsd_stays_flat_until_its_last_part():
    own = tiny.settings(schedule="wsd")
    rates = [rate(step, 100, own) for step in range(100)]
    assert rates[:61] == [1.0] * 61
    assert rates[80] == pytest.approx(0.5)


def test_muon_takes_hidden_matrices_and_adamw_the_rest():
    model = tiny.llama().model
    names = {id(p): name for name, p in model.named_parameters()}

    def taken(part):
        return {names[id(p)] for group in part.param_groups for p in group["params"]}

    rest, hidden = map(taken, Optimizers(model, tiny.settings(optimizer="muon")).parts)
    assert not rest & hidden
    assert rest | hidden == set(names.values())
    assert hidden == {name for name in names.values() if "proj" in name}
    (alone,) = Optimizers(model, tiny.settings()).parts
    assert taken(alone) == set(names.values())


def test_vectors_do_not_decay():
    model = tiny.llama().model
    for part in Optimizers(model, tiny.settings(weight_decay=0.5)).parts:
        for group in part.param_groups:
            assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.5}
