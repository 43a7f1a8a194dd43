"""Two processes decide about one stage of a trial: the log takes one, and a rollback is never undone."""

import pytest

from escultor.config import Canary
from escultor.cycle import canary_service
from escultor.cycle.canary_service import CanaryService, end_trial, trial_stages
from escultor.errors import IdTaken
from escultor.store import open_store, registry

POLICY = Canary(shadow_requests=0, stage_requests=1, stage_hours=0, shares=(0.5, 1.0))


@pytest.fixture
def store(tmp_path):
    with open_store(str(tmp_path / "store")) as opened:
        first = registry.deployment_for("the first", "old", None, now=1.0)
        opened.log.append(first, registry.trial("a trial", "new", 0.25, first, now=2.0))
        yield opened


def deployments(store):
    return registry.read_deployments(store.log)


def test_of_two_moves_from_one_stage_the_log_takes_the_first(store):
    stage = deployments(store)[-1]
    advance = registry.trial("advance", "new", 0.5, stage)
    assert registry.deployment_for("by hand", "other", stage).id == advance.id
    store.log.append(registry.deployment_for("rolled back", "old", stage))
    with pytest.raises(IdTaken):
        store.log.append(advance)
    assert registry.aliases(deployments(store)) == {"champion": "old"}


def test_an_analysis_that_comes_second_changes_nothing(store, monkeypatch):
    stages = trial_stages(deployments(store))
    end_trial(store, "monitor: it is bad")
    monkeypatch.setattr(canary_service, "trial_stages", lambda _: stages)  # as it was read before
    monkeypatch.setattr(
        canary_service, "next_move", lambda *_: canary_service.CanaryMove("advance", 0.5, "no harm", {})
    )
    move = CanaryService(store, POLICY).analyse(3.0)
    assert (move.kind, move.reason) == ("hold", "another process decided at the same time")
    assert len(deployments(store)) == 3


def test_a_rollback_comes_through_against_an_advance_at_the_same_time(store, monkeypatch):
    read, stale = canary_service.trial_stages, [trial_stages(deployments(store))]
    store.log.append(registry.trial("advance", "new", 0.5, deployments(store)[-1]))
    monkeypatch.setattr(canary_service, "trial_stages", lambda past: stale.pop() if stale else read(past))
    assert end_trial(store, "monitor: it is bad")
    assert registry.current(deployments(store)).shares == {"old": 1.0}
    assert not end_trial(store, "again")
