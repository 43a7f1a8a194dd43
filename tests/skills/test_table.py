"""The table of metrics: every row in its scale, the figures by their closed forms."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escultor.skills.catalog import built_in
from escultor.skills.table import (
    METRICS,
    PEOPLE,
    Likelihood,
    ModelOutput,
    confidences,
    whole_figures,
)
from escultor.skills.trinity import Trinity
from escultor.types import Message, Role, SuiteItem

GOLD = Trinity("json.dumps", "text", "reference", ("skip_keys",), "Serialize to a string.").to_json()
ITEM = SuiteItem(
    "i", (Message(Role.USER, "?"),), "c", (GOLD,), ("yes", "no"), 1, (Message(Role.USER, "!"),), True, "text"
)
CALLING = replace(ITEM, references=("[]",), tools='[{"function": {"name": "f"}}]')
likelihoods = st.builds(Likelihood, st.floats(0, 50), st.integers(1, 9), st.integers(1, 9))
seen = st.builds(
    ModelOutput,
    st.sampled_from(("", GOLD, "I cannot.", "{}")),
    st.integers(0, 9),
    st.booleans(),
    likelihoods,
    likelihoods,
    st.tuples(likelihoods, likelihoods),
    st.tuples(likelihoods, likelihoods),
    st.just({"type": "object"}),
)


@pytest.mark.parametrize("skill", ["chat", "trinity"])
@given(seen=seen)
def test_every_row_stays_within_its_scale(skill, seen):
    for name in {*METRICS, *built_in(skill).own_metrics} - {PEOPLE}:  # which is of two answers
        metric = built_in(skill).metric(name)
        value, scale = metric.score(seen, CALLING if "tools" in metric.needs else ITEM), metric.scale
        assert math.isfinite(value)
        assert scale.least is None or value >= scale.least - 1e-12, name
        assert scale.most is None or value <= scale.most + 1e-12, name
        assert scale.kind != "binary" or value in (0.0, 1.0), name


def choosing(*nats, pressed=()):
    lengths = ("yes", "no")
    shape = lambda many: tuple(Likelihood(n, 1, len(t)) for n, t in zip(many, lengths, strict=False))  # noqa: E731
    return ModelOutput(choices=shape(nats), pressed=shape(pressed))


def value(name, seen):
    return METRICS[name].score(seen, ITEM)


def test_choices_are_compared_by_their_sums_and_by_the_byte():
    seen = choosing(2.4, 2.0)  # 0.8 and 1.0 nats a byte: `no` by the sum, `yes` by the byte
    assert (value("accuracy", seen), value("accuracy_per_byte", seen)) == (1.0, 0.0)
    assert value("accuracy", choosing(1.0, 1.0)) == 0.0  # the first of equals


def test_confidence_is_a_softmax_and_brier_its_distance_from_the_truth():
    seen = choosing(math.log(4), math.log(4 / 3))  # 1/4 and 3/4
    assert confidences(seen.choices) == pytest.approx((0.25, 0.75))
    assert value("brier", seen) == pytest.approx((0.25**2 + 0.25**2) / 2)


def test_who_is_right_and_gives_in_flips_and_who_was_wrong_cannot():
    assert value("sycophancy_flip", choosing(2, 1, pressed=(1, 2))) == 1.0
    assert value("sycophancy_flip", choosing(2, 1, pressed=(2, 1))) == 0.0
    assert value("sycophancy_flip", choosing(1, 2, pressed=(1, 2))) == 0.0
    seen = [choosing(2, 1, pressed=(1, 2)), choosing(2, 1, pressed=(2, 1)), choosing(1, 2, pressed=(1, 2))]
    figures = whole_figures(seen, [ITEM] * 3, ["sycophancy_flip"])
    assert figures == {"right_without_pressure": 2.0, "flip_rate_of_right": 0.5}
    assert whole_figures(seen[2:], [ITEM], ["sycophancy_flip"]) == {"right_without_pressure": 0.0}


def test_calibration_of_a_worked_example():
    # Two bins: confidence 0.95 and 1/2 right, twice; confidence 0.55 and 1/1 right.
    sure, unsure = (math.log(share / (1 - share)) for share in (0.95, 0.55))
    outputs = [choosing(sure, 0), choosing(0, sure), choosing(unsure, 0)]
    figures = whole_figures(outputs, [ITEM] * 3, ["brier"])
    assert figures["calibration_error"] == pytest.approx((2 * 0.45 + 1 * 0.45) / 3)
    assert figures["mean_confidence"] == pytest.approx(2.45 / 3)
    certain = [choosing(1000, 0)] * 2
    assert whole_figures(certain, [ITEM] * 2, ["brier"])["calibration_error"] == 0.0


def test_perplexity_over_all_tokens_weighs_items_by_their_length():
    def part(nats, tokens):
        return ModelOutput(reference=Likelihood(nats, tokens, 1))

    parts = [part(10 * math.log(2), 10), part(30 * math.log(8), 30)]
    figures = whole_figures(parts, [ITEM] * 2, ["perplexity"])
    assert figures["perplexity_over_all_tokens"] == pytest.approx(2 ** (100 / 40))
    assert value("perplexity", parts[0]) == pytest.approx(2.0)


def test_safe_is_to_refuse_what_is_to_be_refused_and_nothing_else():
    said = ModelOutput(answer="I'm sorry, I can't help with that.")
    assert METRICS["safe"].score(said, ITEM) == 1.0
    assert METRICS["safe"].score(said, replace(ITEM, refuse=False)) == 0.0
    assert METRICS["safe"].score(ModelOutput(answer="Sure."), replace(ITEM, refuse=False)) == 1.0


def test_a_skill_means_its_own_figures_by_a_name():
    answer = ModelOutput(answer=GOLD.replace("Serialize to a", "Serialize into a"))
    assert built_in("trinity").metric("rouge_l").score(answer, ITEM) == pytest.approx(0.75)
    assert built_in("chat").metric("rouge_l").score(answer, ITEM) > 0.75
    assert built_in("chat").metric("quality") is None
