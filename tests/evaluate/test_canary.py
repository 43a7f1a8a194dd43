"""The canary's next step: rolled back for harm, held for what is missing, advanced otherwise."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from escultor.config import Canary
from escultor.evaluate.gate.canary import (
    HOUR_S,
    CanaryStage,
    CanaryTrial,
    ErrorWindow,
    deployment_of,
    next_move,
)
from escultor.stats.sequential import SubjectTally
from escultor.store import registry

POLICY = Canary(stage_requests=100, stage_hours=1, min_ratings=50, min_hours=24)


def arm(k, n):
    return SubjectTally(int(n), float(n), float(k), float(n), float(k), float(k), float(k))


def step(share, since=0.0, old=(50, 500), new=(50, 500), answers=500, subjects=None):
    split = subjects or (round(1000 * (1 - share)), round(1000 * share))
    tallies = {name: (arm(*old), arm(*new)) for name in POLICY.guards}
    return CanaryStage(share, since, tallies, answers, split)


def trial(*steps, windows=()):
    return CanaryTrial("old", "new", steps, windows)


def move(*steps, hours=48.0, windows=()):
    return next_move(trial(*steps, windows=windows), POLICY, hours * HOUR_S)


def test_shares_grow_stage_by_stage_until_the_candidate_is_the_champion():
    seen = []
    for share in (0.0, 0.01, 0.05, 0.25, 0.5):
        found = move(step(share))
        seen.append((found.kind, found.share))
    assert seen == [("advance", s) for s in (0.01, 0.05, 0.25, 0.5)] + [("complete", 1.0)]


@pytest.mark.parametrize(
    ("now", "hours", "words"),
    [
        (step(0.0, answers=10), 48, "shadow: 10 of 200 answers"),
        (step(0.05, answers=10), 48, "10 of 100 answers in this stage"),
        (step(0.05), 0.5, "0.5 of 1 hours in this stage"),
        (step(0.5, new=(4, 40)), 48, "40 of 50 ratings"),
        (step(0.5), 12, "12.0 of 24 hours in total"),
    ],
)
def test_floors_hold_and_say_what_is_missing(now, hours, words):
    found = move(now, hours=hours)
    assert found.kind == "hold"
    assert words in found.reason


def test_harm_on_any_guard_rolls_back_at_once():
    harmed = step(0.05, answers=1)
    harmed = replace(harmed, tallies={**harmed.tallies, "error": (arm(5, 500), arm(80, 500))})
    found = move(harmed, hours=0.1)
    assert found.kind == "rollback"
    assert "harm shown: error" in found.reason


def test_harm_of_earlier_stages_counts():
    bad = [step(s, old=(30, 400), new=(56, 400)) for s in (0.05, 0.25, 0.5)]
    assert move(*bad).kind == "rollback"


def test_a_hard_limit_broken_in_two_windows_rolls_back_and_in_one_does_not():
    fine, broken = ErrorWindow(0, 100, 2, 0), ErrorWindow(0, 100, 40, 0)
    assert move(step(0.05), windows=(fine, broken)).kind == "advance"
    found = move(step(0.05), windows=(broken, broken))
    assert found.kind == "rollback"
    assert "failed answers above the hard limit" in found.reason
    assert move(step(0.05), windows=(ErrorWindow(0, 1, 1, 0), ErrorWindow(0, 1, 1, 0))).kind == "advance"


def test_a_split_that_is_not_as_configured_is_held():
    found = move(step(0.25, subjects=(600, 400)))
    assert found.kind == "hold"
    assert "split is not as configured" in found.reason


def test_moves_become_deployments():
    first = registry.deployment_for("a person", "old", None, now=0.0)
    shadow = registry.trial("begun", "new", 0.0, first, now=1.0)
    assert (shadow.shares, shadow.aliases["candidate"]) == ({"old": 1.0}, "new")
    now = trial(step(0.05))
    advanced = deployment_of(next_move(now, POLICY, 1e6), now, shadow, 2.0)
    assert advanced is not None
    assert advanced.shares == {"old": 0.75, "new": 0.25}
    back = deployment_of(replace(move(step(0.05)), kind="rollback"), now, advanced, 3.0)
    assert back is not None
    assert (back.shares, back.aliases) == ({"old": 1.0}, {"champion": "old"})
    done = deployment_of(move(step(0.5)), trial(step(0.5)), advanced, 3.0)
    assert done is not None
    assert done.aliases == {"champion": "new", "previous": "old"}
    assert deployment_of(move(step(0.05, answers=1)), now, advanced, 3.0) is None


@pytest.mark.parametrize(
    "bad", [{"shares": [0.5, 0.1, 1]}, {"shares": [0.5]}, {"guards": {}}, {"guards": {"x": 0}}]
)
def test_settings_that_make_no_trial_are_refused(bad):
    with pytest.raises(ValidationError):
        Canary.model_validate(bad)
