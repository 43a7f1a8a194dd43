"""A trial among people reads the skill: what its policy asks of an answer alone guards its answers."""

import json
from dataclasses import replace

import pytest

from escultor.config import Canary
from escultor.cycle.canary_service import CanaryService, first_stage
from escultor.cycle.live_metrics import live_metrics
from escultor.serve.in_flight import draft_interaction
from escultor.skills.catalog import load_skills
from escultor.store import open_store, registry
from escultor.types import Sampling

POLICY = Canary(shadow_requests=0, shares=(0.5, 1.0), stage_requests=50, stage_hours=0, min_hours=0)
SKILL = {
    "name": "support",
    "metrics": ["exact_match", {"name": "is_queue", "matches": "billing|sales"}, "cut"],
    "primary": ["exact_match"],
    "guards": {"is_queue": 0.05, "cut": 0.1},
    "suite": [{"input": "x", "reference": "sales"}],
}


@pytest.fixture
def names(tmp_path):
    (tmp_path / "support.yaml").write_text(json.dumps(SKILL))
    return [str(tmp_path / "support.yaml")]


def test_what_an_answer_alone_decides_is_read_with_its_margin(names):
    found = live_metrics(names)
    assert {name: each.margin for name, each in found.items()} == {
        "support: not is_queue": 0.05,
        "support: cut": 0.1,
    }


def test_a_vetos_limits_are_of_the_candidate_alone(tmp_path):
    vetoes = {"is_queue": {"at_least": 0.98}, "cut": {"worse_by": 0.2}, "refusal": {"at_most": 0.1}}
    (tmp_path / "a.yaml").write_text(json.dumps({**SKILL, "guards": {}, "vetoes": vetoes}))
    found = live_metrics([str(tmp_path / "a.yaml")])
    assert {name: (each.margin, each.limit and round(each.limit, 9)) for name, each in found.items()} == {
        "support: cut": (0.2, None),
        "support: not is_queue (limit)": (None, 0.02),
        "support: refusal (limit)": (None, 0.1),
    }


@pytest.mark.parametrize(("at_least", "kind"), [(0.98, "rollback"), (0.76, "hold"), (0.7, "complete")])
def test_a_candidate_below_a_limit_is_not_promoted_however_bad_the_champion_is(tmp_path, at_least, kind):
    """A quarter of both models' answers is no queue: no harm, but the limit is not kept."""
    vetoes = {"is_queue": {"at_least": at_least}}
    (tmp_path / "a.yaml").write_text(json.dumps({**SKILL, "guards": {}, "vetoes": vetoes}))
    names = [str(tmp_path / "a.yaml")]
    said = {arm: ["no idea" if n % 4 == 0 else "sales" for n in range(200)] for arm in ("old", "new")}
    move = moved(tmp_path, names, said, "support")
    assert move.kind == kind, move.reason
    assert "is the limit" in move.reason


@pytest.mark.parametrize(
    ("answer", "skill", "kind"),
    [("no idea", "support", "rollback"), ("sales", "support", "advance"), ("no idea", "chat", "advance")],
)
def test_answers_that_break_a_skills_guard_end_the_trial_of_its_candidate(
    tmp_path, names, answer, skill, kind
):
    said = {"old": ["sales"] * 200, "new": [answer] * 200}
    move = moved(tmp_path, names, said, skill)
    assert "support: not is queue" in move.reason
    assert (move.kind == "rollback") == (kind == "rollback"), move.reason


def moved(folder, names, said, skill):
    """The move after these answers of both models, each of another person."""
    prompt = load_skills(names)["support"].prompt
    with open_store(str(folder / "store")) as store:
        store.log.append(registry.deployment_for("first", "old", None, now=0.5))
        store.log.append(first_stage(store, POLICY, "new", "a trial", now=1.0))
        for n in range(400):
            version, asked = ("old", "new")[n % 2], {"sampling": Sampling(), "skill": skill}
            row = draft_interaction(
                prompt(f"call {n}"), id=f"c{n}", subject=f"s{n}", version=version, **asked
            )
            answer = said[version][n // 2]
            store.log.append(replace(row, time=2.0 + n, answer=answer, finish_reason="stop", latency_ms=5.0))
        policy = POLICY.model_copy(update={"guards": {"error": 0.02}, "min_ratings": 0})
        return CanaryService(store, policy, live_metrics(names)).analyse(now=500.0)
