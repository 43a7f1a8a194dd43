"""Diagnoses and plans: training only for what it can mend, with something to learn from, and a reason."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from escultor.config import Monitor
from escultor.monitor.triggers import STAGES, diagnose, plan
from escultor.types import Alert, Estimate, Plan

CONFIG = Monitor()
ALERT = Alert(
    "alert-1",
    100.0,
    "thumbs_down",
    "firing",
    Estimate("thumbs_down_share", 0.25, 0.18, 0.33, 120),
    0.10,
    "thumbs down 25.0% of 120 votes",
    "v1",
)


def test_a_plan_stores_its_reason():
    found = plan(diagnose([ALERT], 40, "v1"), None, CONFIG, 200.0)
    assert found is not None
    assert (found.time, found.stages, found.because) == (200.0, STAGES, "alert-1")
    assert found.reason == "thumbs down 25.0% of 120 votes; 40 new usable rows to learn from"


def test_nothing_is_done_without_a_firing_alert():
    assert diagnose([replace(ALERT, state="warn"), replace(ALERT, state="ok")], 40).remedy == "none"
    assert diagnose([], 40).remedy == "none"


def test_infrastructure_is_for_a_person_and_hides_what_people_say_meanwhile():
    for rule in ("errors", "latency_p99", "daily_cost", "no_traffic"):
        assert diagnose([replace(ALERT, rule=rule), ALERT], 40, "v1").remedy == "person"


def test_a_candidate_on_trial_is_rolled_back():
    of_candidate = replace(ALERT, version="v2", rule="errors")
    assert diagnose([of_candidate, ALERT], 40, "v1", "v2").remedy == "rollback"
    assert diagnose([of_candidate], 40, "v1").remedy == "person"


def test_without_new_rows_a_person_looks():
    found = diagnose([ALERT], 0, "v1")
    assert (found.remedy, found.alert) == ("person", ALERT)
    assert "nothing new to learn from" in found.reason


def test_none_within_the_cooldown():
    last = Plan("plan-0", 200.0, STAGES, "alert-0", "before")
    assert plan(diagnose([ALERT], 40), last, CONFIG, 200.0 + 3599.0) is None
    assert plan(diagnose([ALERT], 40), last, CONFIG, 200.0 + 3600.0) is not None


@given(
    st.lists(st.sampled_from(["ok", "warn", "firing", "resolved"]), max_size=4),
    st.integers(0, 3),
    st.floats(0, 1e4),
    st.booleans(),
)
def test_a_plan_exists_exactly_when_all_conditions_hold(states, rows, later, again):
    found = [replace(ALERT, id=f"alert-{k}", state=state) for k, state in enumerate(states)]
    last = Plan("plan-0", 0.0, STAGES, "alert-0", "before") if again else None
    made = plan(diagnose(found, rows, "v1"), last, CONFIG, later)
    assert (made is not None) == ("firing" in states and rows > 0 and (not again or later >= 3600.0))
    assert made == plan(diagnose(found[::-1], rows, "v1"), last, CONFIG, later)
    if made is not None:
        assert made.because in {a.id for a in found if a.state == "firing"}
        assert made.reason
