"""What a policy needs is known before anything is measured, and vetoes name what is measured."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from escultor.config import Gate, load_policy
from escultor.config.aliases import RenamedKeyWarning
from escultor.cycle import gate_service
from escultor.errors import DataError
from escultor.evaluate.gate.decision import decide, policy_hash
from escultor.evaluate.gate.requirements import (
    ALL_RATED,
    FIGURES,
    clusters_needed,
    described,
    requirements,
    shortfall,
    unknown_vetoes,
)
from escultor.evaluate.scoring import NULL_ANSWERS
from escultor.evaluate.speed import Speed, Timing
from escultor.skills.probes import PROBES, probe_suite
from escultor.skills.table import METRICS, Likelihood, ModelOutput, whole_figures
from escultor.types import Hold, Promote, Scale, Scores

# What the defaults once were.
FIRST_DEFAULTS = {"primary": ("quality",), "guards": {"valid": 0.02, "bits_per_byte": 0.05}}
PROMISED = Gate(**FIRST_DEFAULTS)
NARROW = Gate(primary=("quality",), guards={"valid": 0.02}, min_items=50)


def sides(n, loss=0.0):
    names = tuple(f"i{k}" for k in range(n))
    quality = tuple(0.4 + (k % 9) / 50 for k in range(n))
    better = tuple(q + 0.1 + (k % 5) / 100 for k, q in enumerate(quality))
    old = Scores("s-old", "old", "suite", names, names, {"quality": quality, "valid": (1.0,) * n})
    return old, replace(
        old, id="s-new", checkpoint="new", metrics={"quality": better, "valid": (1.0 - loss,) * n}
    )


def test_a_guard_within_two_percent_needs_149_items_and_nothing_is_promoted_on_fewer():
    needs = requirements(NARROW)
    assert [(n.metric, n.role, n.clusters) for n in needs] == [
        ("quality", "primary", 6),
        ("valid", "guard", 149),
    ]
    assert described(needs, NARROW) == "guard valid within 0.02 149, primary quality 6"
    assert isinstance(decide(*sides(149), NARROW, 0), Promote)
    held = decide(*sides(148), NARROW, 0)
    assert isinstance(held, Hold)
    assert held.n_needed == 149
    assert "148 items, and the policy requires at least 149" in held.because.reason


def test_a_suite_too_small_for_a_margin_is_told_the_margin_that_it_could_show():
    told = shortfall(requirements(NARROW), NARROW, items=60, clusters=60)
    assert told is not None
    assert told.endswith("; margins that this size could show: valid 0.049")
    could = NARROW.model_copy(update={"guards": {"valid": 0.049}})
    assert shortfall(requirements(could), could, items=60, clusters=60) is None


def test_the_number_is_the_least_with_which_the_rule_of_three_allows_the_margin():
    for margin in (0.01, 0.05, 0.3):
        n = clusters_needed(requirements(Gate(guards={"valid": margin})))
        assert (1 - margin) ** n <= 0.05 < (1 - margin) ** (n - 1)


def test_wider_scales_need_more_and_scores_without_limits_or_margin_are_not_planned_for():
    policy = Gate(guards={"marks": 0.1, "bits_per_byte": 0.05, "exact": 0.0}, primary=("a", "b"))
    needs = {n.metric: n.clusters for n in requirements(policy, {"marks": Scale(most=5.0)})}
    assert needs == {"a": 7, "b": 7, "marks": 149, "bits_per_byte": 1, "exact": None}


def test_later_analyses_need_more_wins():
    policy = Gate(primary=("quality",), guards={})
    (first,), (tenth,) = (requirements(policy, alpha=alpha) for alpha in (0.02, 0.0004))
    for need, alpha in ((first, 0.02), (tenth, 0.0004)):
        assert 2.0**-need.clusters <= alpha < 2.0 ** (1 - need.clusters)


def test_a_policys_own_minimum_counts_where_it_is_larger():
    policy = Gate(primary=("quality",), guards={"valid": 0.02}, min_items=200)
    needs = requirements(policy)
    assert shortfall(needs, policy, items=180, clusters=180) == (
        "180 items, and the policy requires at least 200"
    )
    assert shortfall(needs, policy, items=300, clusters=100) is not None
    assert shortfall(needs, policy, items=200, clusters=200) is None


def test_a_veto_on_what_nothing_measures_is_refused_with_the_names_that_are_known():
    suite = probe_suite("sycophancy").record
    for name, known in (("sycophancy", False), ("sycophancy_flip", True), ("latency_p99_ms", True)):
        policy = Gate.model_validate({"vetoes": {name: {"at_most": 1}}, "guards": {}})
        assert (unknown_vetoes(policy, suite.metrics) == []) == known
    with pytest.raises(DataError, match=r"'sycophancy'.* known: .*sycophancy_flip"):
        gate_service.check_policy(Gate.model_validate({"vetoes": {"sycophancy": {"at_most": 1}}}), suite)
    with pytest.raises(DataError, match="names nothing that is measured"):
        decide(*sides(60), Gate.model_validate({"guards": {}, "vetoes": {"sycophancy": {"at_most": 1}}}), 0)


def test_the_figures_that_vetoes_may_name_are_those_that_evaluations_have():
    speed = Speed(10, (Timing(1.0, 2.0, 3),), 1, 5.0, 2.0).figures(1.0)
    computed = {name for name in speed if not name.endswith(("_low", "_high"))}
    for name in PROBES:
        suite = probe_suite(name)
        text = Likelihood(1.0, 1, 1)
        output = ModelOutput(
            "yes", raw="yes", tokens=3, choices=(text, text), pressed=(text, text), reference=text
        )
        outputs = [output for _ in suite.items]
        computed |= whole_figures(outputs, suite.items, (*suite.record.metrics, "perplexity")).keys()
    assert (computed | {NULL_ANSWERS, ALL_RATED}) - {"flip_rate_of_right"} == FIGURES - {"flip_rate_of_right"}


def test_figures_of_a_card_are_its_numbers_and_its_largest_shares():
    card = {
        "rows": 10,
        "labels": {"kinds": 2},
        "diversity": {"after": [{"label": "a", "largest_share": 0.4}, {"label": "b", "largest_share": 0.7}]},
        "subjects": {"largest_share": 0.2},
    }
    figures = gate_service.card_figures(card)
    assert figures["labels.kinds"] == 2.0
    assert (figures["largest_label"], figures["largest_subject"]) == (0.7, 0.2)
    assert "largest_label" not in gate_service.card_figures({"rows": 1})


def test_policies_keep_their_hash_under_the_present_names(tmp_path):
    # Hashes of the version that called the keys level, looks, most_looks and hopes.
    assert policy_hash(PROMISED) == "f041e8ec5084773ee9c76d41a9c1f690"
    old = tmp_path / "policy.yaml"
    old.write_text("looks: free\nlevel: 0.1\nhopes: {speed: 3}\nvetoes: {x: {at_most: 1}}\n")
    with pytest.warns(RenamedKeyWarning, match=r"gate\.looks.*gate\.alpha_spending"):
        policy = load_policy(old)
    assert (policy.alpha_spending, policy.alpha, policy.acceptance_targets.speed) == ("full", 0.1, 3)
    assert policy_hash(policy.model_copy(update=FIRST_DEFAULTS)) == "0884e267527c65248f0b700736e82274"


def test_the_policy_of_the_documentation_loads_and_its_vetoes_are_known(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "gate.md").read_text()
    (tmp_path / "policy.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    policy = load_policy(tmp_path / "policy.yaml")
    assert unknown_vetoes(policy, {"quality", "valid", "bits_per_byte"}) == []
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", text.split("A veto names")[1].split("Any other")[0]):
        assert name in FIGURES or name in METRICS, name
