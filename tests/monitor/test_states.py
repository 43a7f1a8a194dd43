"""States: they hold until something else is shown, a rule pages at most once an hour, and nothing flaps."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from escultor.monitor.rules import Reading
from escultor.monitor.states import PAGE_EVERY_S, RuleHistory, alert_of, changed, histories
from escultor.types import Alert, Estimate

CALM = Reading("errors", "v1", Estimate("error_share", 0.0, 0.0, 0.1, 10), 0.01, False, False, False, "text")
PAGES, WARNS, CLEAR = (replace(CALM, **{name: True}) for name in ("pages", "warns", "is_clear"))


def follow(readings, step=60.0):
    """The alerts of readings that follow each other, and the recorded changes."""
    recorded, states = [], []
    for k, reading in enumerate(readings):
        now = 1000.0 + step * k
        known = histories(recorded, now)
        alert = alert_of(reading, known.get(("errors", "v1"), RuleHistory()), now)
        recorded += changed([alert], known)
        states.append(alert.state)
    return states, recorded


def test_a_page_holds_until_it_is_shown_to_be_over():
    states, recorded = follow([CALM, PAGES, CALM, WARNS, CALM, CLEAR, CALM])
    assert states == ["ok", "firing", "firing", "firing", "firing", "resolved", "resolved"]
    assert [a.state for a in recorded] == ["firing", "resolved"]


def test_a_warning_becomes_a_page_or_goes():
    assert follow([WARNS, CALM, PAGES])[0] == ["warn", "warn", "firing"]
    assert follow([WARNS, CLEAR, WARNS])[0] == ["warn", "ok", "warn"]


def test_an_unchanged_state_is_the_recorded_alert():
    _, recorded = follow([PAGES])
    history = histories(recorded, 5000.0)["errors", "v1"]
    assert alert_of(PAGES, history, 5000.0) is recorded[0]


def test_a_page_says_what_was_shown():
    _, (alert,) = follow([PAGES])
    assert alert.message == "version v1: text; shown to be beyond the limit"
    assert (alert.rule, alert.version, alert.limit) == ("errors", "v1", 0.01)


@given(st.lists(st.sampled_from([CALM, PAGES, WARNS, CLEAR]), max_size=80), st.sampled_from([60.0, 1700.0]))
def test_a_rule_pages_at_most_once_an_hour_whatever_it_reads(readings, step):
    _, recorded = follow(readings, step)
    pages = [a.time for a in recorded if a.state == "firing"]
    assert all(b - a >= PAGE_EVERY_S for a, b in pairwise(pages))
    states = [a.state for a in recorded]
    assert all(a != b for a, b in pairwise(states))


def test_alerts_recorded_by_earlier_versions_are_read():
    old = [
        Alert(f"alert-{k}", float(k), "thumbs_down", state, Estimate("e", 0, 0, 0, 0), 0.1, "")
        for k, state in enumerate(("ok", "ok", "firing", "firing", "ok"))
    ]
    history = histories(old, 10.0)["thumbs_down", ""]
    assert [a.state for a in history.changes] == ["firing", "ok"]
