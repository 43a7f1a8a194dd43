"""Plans: none without a reason, a cooldown and something to learn from."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from escultor.config import Monitor
from escultor.monitor.triggers import STAGES, plan
from escultor.types import Alert, Estimate, Plan

CONFIG = Monitor()
ALERT = Alert(
    "alert-1",
    100.0,
    "thumbs_down",
    "firing",
    Estimate("thumbs_down_share", 0.25, 0.18, 0.33, 120),
    0.10,
    "thumbs down 25.0% of 120 ratings",
)


def test_a_plan_stores_its_reason():
    found = plan([ALERT], None, 40, CONFIG, 200.0)
    assert found is not None
    assert (found.time, found.stages, found.because) == (200.0, STAGES, "alert-1")
    assert found.reason == "thumbs down 25.0% of 120 ratings; 40 new usable rows to learn from"


def test_none_without_a_firing_alert():
    quiet = [replace(ALERT, state="warn"), replace(ALERT, state="ok")]
    assert plan(quiet, None, 40, CONFIG, 200.0) is None
    assert plan([], None, 40, CONFIG, 200.0) is None


def test_none_for_what_training_cannot_mend():
    slow = [replace(ALERT, rule="latency_p99"), replace(ALERT, rule="daily_cost")]
    assert plan(slow, None, 40, CONFIG, 200.0) is None


def test_none_without_new_rows():
    assert plan([ALERT], None, 0, CONFIG, 200.0) is None


def test_none_within_the_cooldown():
    last = Plan("plan-0", 200.0, STAGES, "alert-0", "before")
    assert plan([ALERT], last, 40, CONFIG, 200.0 + 3599.0) is None
    assert plan([ALERT], last, 40, CONFIG, 200.0 + 3600.0) is not None


@given(
    st.lists(st.sampled_from(["ok", "warn", "firing"]), max_size=4),
    st.integers(0, 3),
    st.floats(0, 1e4),
    st.booleans(),
)
def test_a_plan_exists_exactly_when_all_conditions_hold(states, rows, later, again):
    found = [replace(ALERT, id=f"alert-{k}", state=state) for k, state in enumerate(states)]
    last = Plan("plan-0", 0.0, STAGES, "alert-0", "before") if again else None
    made = plan(found, last, rows, CONFIG, later)
    assert (made is not None) == ("firing" in states and rows > 0 and (not again or later >= 3600.0))
    assert made == plan(found[::-1], last, rows, CONFIG, later)
    if made is not None:
        assert made.because in {a.id for a in found if a.state == "firing"}
        assert made.reason
