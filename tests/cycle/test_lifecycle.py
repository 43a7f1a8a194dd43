"""A cycle from feedback to a promoted model: with and without a person, tried, rolled back, cut short."""

import contextlib
import itertools
import shutil
from dataclasses import replace

import pytest
from cycle_store import config_at, fill

from escultor import EvolutionCycle
from escultor.cycle import lifecycle
from escultor.cycle.canary_service import trial_stages
from escultor.errors import InputError, StoreError
from escultor.serve.auth import create
from escultor.store import open_store, registry
from escultor.store.cycles import change, open_cycle, record_event, recorded_cycles
from escultor.store.leases import Lease
from escultor.store.log import Log
from escultor.types import Deployment, Erasure, Feedback, Promote, Scope, Step, Verdict


@pytest.fixture(scope="session")
def begun(tmp_path_factory):
    """A store as it was before any cycle."""
    folder = tmp_path_factory.mktemp("begun")
    fill(config_at(folder), folder)
    return folder / "store"


@pytest.fixture(scope="session")
def trained(begun, tmp_path_factory):
    """A store where a cycle has computed its candidate, and was cancelled; whoever begins another one finds
    what it computed."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(begun, folder / "store")
    config = config_at(folder)
    with open_store(config.store.url) as store:
        key_of(store, "Eva")
        EvolutionCycle(config).run()
        EvolutionCycle(config).cancel("it was only for its steps", "Eva")
    return folder / "store"


@pytest.fixture
def config(tmp_path, request):
    is_fresh = "fresh" in request.fixturenames
    source = request.getfixturevalue("begun" if is_fresh else "trained")
    shutil.copytree(source, tmp_path / "store")
    return config_at(tmp_path)


@pytest.fixture
def fresh():
    """Ask for a store before any cycle."""


@pytest.fixture
def store(config):
    with open_store(config.store.url) as opened:
        yield opened


def key_of(store, name="Ana", scope=Scope.APPROVE) -> str:
    key, record = create(name, (scope,))
    store.log.append(record)
    return key


def champion(store):
    return registry.champion(registry.read_deployments(store.log))


def deployments(store):
    return registry.read_deployments(store.log)


def states(store):
    return [event.state for event in recorded_cycles(store)[-1].events]


def test_where_nobody_may_approve_a_person_s_cycle_is_deployed_at_once(fresh, config, store):
    verdict = EvolutionCycle(config).run()
    assert isinstance(verdict, Promote)
    assert states(store) == ["running", "approved", "promoted"]
    assert champion(store) == verdict.because.candidate
    assert deployments(store)[-1].because == verdict.because.id


def test_a_candidate_waits_for_a_known_person_then_goes_through_its_trial(config, store):
    first, key, wrong = champion(store), key_of(store), key_of(store, "Bob", Scope.INFER)
    turn = EvolutionCycle(config)
    verdict = turn.run()
    assert states(store) == ["running", "waiting"]
    assert champion(store) == first
    with pytest.raises(InputError, match="a cycle of this skill is open"):
        turn.run()
    for given in (None, wrong, "yes"):
        with pytest.raises(InputError, match="who may approve"):
            turn.decide("approved", given)
    cycle = turn.decide("approved", key)
    assert cycle.state == "trial"
    assert cycle.approved_by.startswith("Ana (key ")
    (stage,) = trial_stages(deployments(store))
    assert stage.aliases[registry.CANDIDATE] == verdict.because.candidate
    assert "approved by Ana" in stage.because
    assert turn.resume().state == "trial"  # nobody has answered yet
    # the canary's last move, however it came about
    store.log.append(registry.deployment_for("canary: complete", verdict.because.candidate, stage))
    assert turn.resume().state == "promoted"
    assert champion(store) == verdict.because.candidate
    with pytest.raises(InputError, match="no cycle is open"):
        turn.resume()


def test_a_trial_that_is_rolled_back_ends_the_cycle_so(config, store):
    key, turn, first = key_of(store), EvolutionCycle(config), champion(store)
    turn.run()
    turn.decide("approved", key)
    stage = deployments(store)[-1]
    store.log.append(registry.deployment_for("canary: harm shown", first, stage))
    assert turn.resume().state == "rolled_back"
    assert turn.status()[-1].last.reason == "canary: harm shown"


def test_a_rejected_or_cancelled_candidate_is_never_deployed(config, store):
    key, turn, first = key_of(store), EvolutionCycle(config), champion(store)
    turn.run()
    assert turn.decide("rejected", key, "it is rude").last.by.startswith("Ana")
    turn.run()
    turn.decide("approved", key)
    assert turn.cancel("changed our minds", "Ana").state == "cancelled"
    assert champion(store) == first
    assert not trial_stages(deployments(store))
    assert [d.because for d in deployments(store)][-1] == "canary: cancelled by Ana: changed our minds"


def test_a_candidate_that_was_compared_with_another_champion_is_not_deployed(config, store):
    key, turn = key_of(store), EvolutionCycle(config)
    turn.run()
    store.log.append(registry.deployment_for("by hand", "another", registry.current(deployments(store))))
    assert turn.decide("approved", key).state == "superseded"
    assert champion(store) == "another"


def test_auto_approval_needs_a_suite_of_every_skill(config, store, monkeypatch):
    key_of(store)
    auto = config.model_copy(update={"cycle": config.cycle.model_copy(update={"auto_approve": ("animal",)})})
    monkeypatch.setattr(lifecycle, "suite_of_skill", lambda *_: None)
    EvolutionCycle(auto).run()
    cycle = EvolutionCycle(auto).status()[-1]
    assert (cycle.state, cycle.last.reason) == (
        "waiting", "a person has to approve it: no suite guards animal",
    )  # fmt: skip
    EvolutionCycle(auto).cancel("again", "Ana")
    monkeypatch.undo()
    EvolutionCycle(auto).run()
    assert states(store) == ["running", "approved", "trial"]


def test_a_cycle_that_was_cut_short_trains_on_what_it_began_with(fresh, config, store, monkeypatch):
    class Cut(Exception):
        pass

    def cut(*_, **__):
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr("escultor.cycle.evolution.evaluate_model", cut)
        with pytest.raises(Cut):
            EvolutionCycle(config).run()
    done = store.log.count(Step)
    event = next(event for _, event in store.log.read(Feedback))
    store.log.append(replace(event, id="fb-late", time=9e9, text="bird"))
    verdict = EvolutionCycle(config).run()
    assert isinstance(verdict, Promote)
    assert len(recorded_cycles(store)) == 1
    names = [step.name for _, step in store.log.read(Step)]
    assert names.count("collect") == names.count("evolution") == 1
    assert store.log.count(Step) > done


def test_what_was_erased_meanwhile_is_collected_again(fresh, config, store, monkeypatch):
    from escultor.datasets.erasure import erase_everywhere

    with monkeypatch.context() as patch:
        patch.setattr("escultor.cycle.lifecycle.evolve", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            EvolutionCycle(config).run()
    erase_everywhere(store, "someone-3", "the person")
    assert store.log.count(Erasure) == 1
    monkeypatch.setattr("escultor.cycle.lifecycle.evolve", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        EvolutionCycle(config).run()
    rows = [step.result["rows"]["example"] for _, step in store.log.read(Step, target="collect")]
    assert len(rows) == 2
    assert rows[1] < rows[0]


def test_two_processes_that_go_on_from_one_state_deploy_once(config, store):
    key, turn = key_of(store), EvolutionCycle(config)
    turn.run()
    waiting = open_cycle(store, "animal")
    lifecycle.decide(store, waiting, "approved", "yes", key)
    with pytest.raises(InputError, match="changed meanwhile"):
        lifecycle.decide(store, waiting, "rejected", "no", key)
    approved = open_cycle(store, "animal")
    runners = [lifecycle.CycleRunner(store, config) for _ in range(2)]
    moves = [runner._deploy(approved) for runner in runners]
    assert [record_event(store, *move) for move in moves] == [True, False]
    assert len(trial_stages(deployments(store))) == 1


def test_while_another_process_is_at_work_no_second_one_begins(fresh, config, store):
    held = Lease(store, lifecycle.lease_of(store, "animal").name)
    with held, pytest.raises(InputError, match="another process is at work"):
        EvolutionCycle(config).run()
    assert recorded_cycles(store) == []
    assert store.log.count(Deployment) == 1


def test_a_cycle_that_cannot_be_is_ended_with_its_reason(config, store):
    least = dict.fromkeys(("min_examples", "min_pairs", "min_unpaired"), 10_000)
    many = config.model_copy(update={"feedback": config.feedback.model_copy(update=least)})
    with pytest.raises(InputError, match="too little feedback"):
        EvolutionCycle(many).run()
    assert states(store) == ["running", "failed"]
    cycle = recorded_cycles(store)[-1]
    assert "too little feedback" in cycle.last.reason
    assert not record_event(store, replace(change(cycle, "promoted", "x"), id=cycle.last.id))


class Killed(BaseException):
    """The end of a process, as far as one process can play it."""


def test_a_cycle_killed_around_every_write_ends_as_an_undisturbed_one(
    fresh, begun, tmp_path, config, store, monkeypatch
):
    whole = Log.append_each

    def killed(log, groups, when):
        if when == "before":
            raise Killed
        whole(log, groups)
        raise Killed

    kills = 0
    for when in itertools.cycle(("before", "after")):
        with monkeypatch.context() as patch:
            patch.setattr(Log, "append_each", lambda log, groups, when=when: killed(log, groups, when))
            with contextlib.suppress(Killed):
                EvolutionCycle(config).run() if not _has_ended(store) else None
        if _has_ended(store):
            break
        kills += 1
        assert kills < 60
    assert kills > 12
    assert states(store) == ["running", "approved", "promoted"]
    assert len(recorded_cycles(store)) == 1
    assert len(deployments(store)) == 2
    names = [step.name for _, step in store.log.read(Step)]
    assert names.count("evolution") == names.count("collect") == 1
    shutil.copytree(begun, tmp_path / "calm")
    again = config_at(tmp_path, str(tmp_path / "calm"))
    verdict = EvolutionCycle(again).run()
    cycle = recorded_cycles(store)[-1]
    killed_verdict = store.log.get(Verdict, cycle.verdict)
    assert (type(killed_verdict), cycle.candidate) == (type(verdict), verdict.because.candidate)
    both = [v.because.effects for v in (killed_verdict, verdict)]  # ids cover latencies, which are measured
    assert both[0] == both[1]


def _has_ended(store) -> bool:
    return bool(cycles := recorded_cycles(store)) and not cycles[-1].is_open


def test_the_same_fault_twice_ends_a_cycle_and_one_that_may_pass_does_not(config, store, monkeypatch):
    faults = [
        StoreError("away"),
        OSError("full"),
        AssertionError("a bug"),
        StoreError("away"),
        ValueError("other"),
    ]
    faults += [ValueError("other")]

    def fails(*_, **__):
        raise faults.pop(0)

    monkeypatch.setattr(lifecycle, "evolve", fails)
    while faults:
        with pytest.raises((StoreError, OSError, AssertionError, ValueError)):
            EvolutionCycle(config).run()
    cycle = recorded_cycles(store)[-1]
    assert [(event.state, event.reason) for event in cycle.events[1:]] == [
        ("running", "to be tried again after AssertionError: a bug"),
        ("running", "to be tried again after ValueError: other"),
        ("failed", "twice: ValueError: other"),
    ]
