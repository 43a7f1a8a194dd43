import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_records import deployment

from escultor.errors import InputError
from escultor.store import open_store, registry
from escultor.types import Deployment

checkpoints = st.sampled_from(["a", "b", "c", "d"])
orders = st.lists(checkpoints | st.none(), max_size=12)  # None: roll back, where that is possible


def replayed(steps) -> list[Deployment]:
    """The history that a list of orders leaves."""
    history: list[Deployment] = []
    for candidate in steps:
        if candidate is not None:
            history.append(registry.deployment_for("a test", candidate, registry.current(history)))
        elif registry.previous(history) is not None:
            history.append(registry.rollback(history))
    return history


def test_before_the_first_deployment_there_is_no_champion():
    assert registry.current([]) is registry.champion([]) is registry.previous([]) is None
    assert registry.aliases([]) == {}


@given(orders)
def test_only_the_last_deployment_is_in_force(steps):
    history = replayed(steps)
    for end in range(1, len(history) + 1):
        assert registry.current(history[:end]) == history[end - 1]
        assert registry.aliases(iter(history[:end])) == history[end - 1].aliases


@given(orders, checkpoints)
def test_rolling_back_a_promotion_restores_champion_and_previous(steps, candidate):
    history = replayed(steps)
    before = registry.champion(history)
    promoted = registry.deployment_for("verdict", candidate, registry.current(history))
    assert registry.champion([*history, promoted]) == candidate
    assert promoted.shares == {candidate: 1.0}
    if before is not None and before != candidate:
        assert promoted.aliases["previous"] == before
        back = registry.rollback([*history, promoted])
        assert registry.aliases([*history, promoted, back]) == registry.aliases(history)
        assert back.shares == {before: 1.0}


@given(orders)
def test_every_deployment_is_valid_and_no_champion_precedes_itself(steps):
    history = replayed(steps)
    assert len({entry.id for entry in history}) == len(history)
    for entry in history:
        assert registry.validated(entry) is entry
        assert entry.aliases["champion"] != entry.aliases.get("previous")


def test_repeated_rollbacks_walk_back_to_the_first_champion():
    history = replayed(["a", "b", "c", None, None])
    assert [entry.aliases["champion"] for entry in history] == ["a", "b", "c", "b", "a"]
    with pytest.raises(InputError, match=r"no previous champion.*5 deployments, champion a"):
        registry.rollback(history)


def test_rolling_back_an_empty_history_is_refused():
    with pytest.raises(InputError, match="deploy a checkpoint by its id"):
        registry.rollback([])


def test_deploying_the_champion_again_ends_a_trial_and_keeps_the_previous_one():
    named = {"champion": "b", "candidate": "c", "previous": "a"}
    trial = registry.validated(Deployment("d", 1.0, {"b": 0.9, "c": 0.1}, named, "a trial"))
    ended = registry.deployment_for("enough seen", "b", trial, now=2.0)
    assert (ended.shares, ended.aliases) == ({"b": 1.0}, {"champion": "b", "previous": "a"})
    assert (ended.time, ended.because) == (2.0, "enough seen")


@pytest.mark.parametrize(
    ("shares", "aliases", "message"),
    [
        ({"a": 0.5, "b": 0.4}, {"champion": "a"}, "do not sum to 1"),
        ({}, {"champion": "a"}, "do not sum to 1"),
        ({"a": 1.5, "b": -0.5}, {"champion": "a"}, "out of range"),
        ({"a": float("nan")}, {"champion": "a"}, "out of range"),
        ({"a": 1.0}, {}, "the champion takes no traffic"),
        ({"a": 1.0}, {"champion": "b"}, "the champion takes no traffic"),
        ({"a": 1.0}, {"champion": "a", "canary": "b"}, "an alias is not known"),
    ],
)
def test_an_invalid_deployment_is_refused(shares, aliases, message):
    with pytest.raises(InputError, match=message):
        registry.validated(Deployment("d", 1.0, shares, aliases, "a test"))


@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=20))
def test_shares_made_by_dividing_by_their_sum_are_accepted(weights):
    shares = {str(k): weight / sum(weights) for k, weight in enumerate(weights)}
    registry.validated(Deployment("d", 1.0, shares, {"champion": "0"}, "a test"))


@pytest.mark.parametrize(("because", "candidate"), [("", "a"), ("a reason", " ")])
def test_a_deployment_without_reason_or_candidate_is_refused(because, candidate):
    with pytest.raises(InputError, match="needs a reason and a candidate"):
        registry.deployment_for(because, candidate, None)


def test_the_log_never_loses_a_past_deployment(tmp_path):
    with open_store(str(tmp_path)) as store:
        history: list[Deployment] = []
        for step in ["a", "b", None, "c", "c", None, "d"]:
            if step is None:
                history.append(registry.rollback(record for _, record in store.log.read(Deployment)))
            else:
                history.append(registry.deployment_for("a test", step, store.log.last(Deployment)))
            store.log.append(history[-1])
            assert [record for _, record in store.log.read(Deployment)] == history
            assert store.log.last(Deployment) == registry.current(history)


def test_the_strategies_of_these_tests_reach_a_rollback():
    assert registry.champion([deployment("x", champion="a"), *replayed(["b", "c", None])]) == "b"
