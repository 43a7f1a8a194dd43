"""Drift: traits are drawn without text, a shift is told by people and not by calls, weekends are no drift."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from escultor.config import Monitor
from escultor.ids import plain
from escultor.monitor.drift import ANSWERS, PROMPTS, read_drift
from escultor.monitor.metrics import fold_thumbs
from escultor.monitor.service import MonitorService
from escultor.monitor.traits import PER_HOUR, draw_sample, merge_samples, traits_of
from escultor.skills.skill import Output, Skill
from escultor.stats.shift import psi, shift_p_value
from escultor.types import (
    AnswerTraits,
    CallTally,
    Message,
    Rating,
    Role,
    SourceKind,
    ToolCall,
    ToolDefinitions,
    Usage,
)
from tests.monitor.test_window import call, thumb

DAY = 86_400.0
NOW = 40 * DAY


def no_tools(id):
    return ""


# --- the test of a shift -----------------------------------------------------------------------

COUNTS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 40), max_size=4)


@settings(max_examples=60, deadline=None)
@given(COUNTS, COUNTS)
def test_psi_is_symmetric_and_zero_for_equal_shares(a, b):
    assert psi(a, b) == pytest.approx(psi(b, a))
    assert psi(a, b) >= 0
    assert psi(a, a) == 0
    assert 0 < shift_p_value(a, b, 0.05) <= 1


def test_two_categories_are_tested_as_fishers_exact_test_has_them():
    for table in ([[14, 6], [60, 140]], [[9, 1], [40, 60]], [[30, 70], [31, 69]]):
        (a, b), (c, d) = table
        mine = shift_p_value({"x": a, "y": b}, {"x": c, "y": d}, 1e-4)
        law = scipy_stats.hypergeom(a + b + c + d, a + c, a + b)
        each = np.arange(0, a + b + 1)
        centre = law.mean()
        exact = law.pmf(each)[np.abs(each - centre) >= abs(a - centre) * (1 - 1e-9)].sum()
        assert mine == pytest.approx(exact, rel=0.35)


def test_equal_distributions_are_told_apart_as_often_as_alpha_says():
    rng, shares = np.random.default_rng(0), [0.5, 0.3, 0.15, 0.05]
    small = sum(
        shift_p_value(*(dict(zip("abcd", rng.multinomial(n, shares), strict=True)) for n in (40, 300)), 0.05)
        <= 0.05
        for _ in range(400)
    )
    assert small / 400 == pytest.approx(0.05, abs=0.03)


# --- traits ------------------------------------------------------------------------------------


def test_traits_say_nothing_of_what_was_written():
    secret = "Please write to Maria Quintana at 12 Rose Lane about the garden"
    row = replace(
        call("c1"), messages=(Message(Role.USER, secret),), answer=secret, skill="Maria", subject="subject-1"
    )
    ((sampled,),) = draw_sample([row], {}, no_tools).values()
    text = json.dumps(plain(sampled))
    assert not any(word in text for word in ("Maria", "Quintana", "Rose", "garden", row.subject))
    assert sampled.traits["prompt_language"] == "en"


def test_traits_are_what_they_are_called():
    answer = "I'm sorry, but I can't help with that."
    row = replace(call("c1"), answer=answer, usage=Usage(1000, 0), finish_reason="length")
    traits = traits_of(row, {}, no_tools)
    assert (traits["answer_refusal"], traits["answer_end"], traits["answer_length"]) == ("yes", "length", "0")
    assert traits["prompt_length"] == "~1024"


@pytest.mark.parametrize(
    ("name", "arguments", "is_valid"),
    [
        ("look", '{"city": "Lima"}', True),
        ("look", '{"city": 3}', False),
        ("look", "{", False),
        ("look", "[]", False),
        ("other", '{"city": "Lima"}', False),
    ],
)
def test_calls_are_valid_by_the_schemas_of_their_tools(name, arguments, is_valid):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = json.dumps([{"type": "function", "function": {"name": "look", "parameters": schema}}])
    row = replace(call("c1"), tool_calls=(ToolCall("1", name, arguments),), tools="t")
    assert traits_of(row, {}, lambda id: tools)["answer_calls"] == ("valid" if is_valid else "invalid")
    for broken in (
        "{}",
        "[3]",
        '[{"function": 3}]',
        '[{"function": {"name": "look", "parameters": 3}}]',
        "x",
    ):
        assert traits_of(row, {}, lambda id, b=broken: b)["answer_calls"] in ("valid", "invalid")


def test_an_answer_of_a_skill_with_a_schema_is_verified_by_it():
    skills = {"chat": Skill("chat", output=Output("json", {"type": "object"}))}
    assert traits_of(replace(call("c1"), answer="{}"), skills, no_tools)["answer_form"] == "valid"
    assert traits_of(replace(call("c1"), answer="hm"), skills, no_tools)["answer_form"] == "invalid"


def test_a_sample_is_bounded_and_that_of_both_logs():
    rows = [call(f"c{k}", time=100.0 + k) for k in range(300)]
    whole = draw_sample(rows, {}, no_tools)
    parts = merge_samples(draw_sample(rows[:120], {}, no_tools), draw_sample(rows[120:], {}, no_tools))
    assert {key: [r.draw for r in found] for key, found in whole.items()} == {
        key: [r.draw for r in found] for key, found in parts.items()
    }
    assert [len(found) for found in whole.values()] == [PER_HOUR]


def test_failed_calls_and_shadows_are_left_out():
    rows = [call("a", finish="error"), replace(call("b"), arm="shadow"), call("c", finish="cancelled")]
    assert draw_sample(rows, {}, no_tools) == {}


# --- the rules ---------------------------------------------------------------------------------


def days(shares_of_day, per_day=100, seed=0, n=29, person=None):
    """Rows of `n` days, whose trait `prompt_x` has the shares that a day is given, up to NOW."""
    rng = np.random.default_rng(seed)
    rows = []
    for day in range(n):
        shares = shares_of_day(day)
        for k in range(per_day):
            time = NOW - (n - day) * DAY + k * DAY / per_day
            who = int(rng.integers(2**32)) if person is None else person
            value = str(rng.choice(len(shares), p=shares))
            rows.append(AnswerTraits(time, "v1", int(rng.integers(2**32)), who, {"prompt_x": value}))
    return rows


def read(rows, now=NOW):
    return read_drift("prompt_drift", "", rows, PROMPTS, now)


SAME, OTHER = [0.6, 0.3, 0.1], [0.3, 0.3, 0.4]


def test_a_shift_of_the_last_day_warns_and_never_pages():
    assert not read(days(lambda day: SAME)).warns
    found = read(days(lambda day: OTHER if day == 28 else SAME))
    assert found.warns
    assert not found.pages
    assert not found.is_clear
    assert "prompt_x of the last day: " in found.message


def test_slow_drift_adds_up_over_weeks():
    def slowly(day):
        return [0.6 - 0.015 * day, 0.3, 0.1 + 0.015 * day]

    found = read(days(slowly, per_day=60))
    assert found.warns
    assert "of the last week" in found.message


def test_weekends_are_no_drift():
    def weekly(day):
        return OTHER if day % 7 in (0, 1) else SAME

    for last in range(7):
        assert not read(days(lambda day, last=last: weekly(day + last), seed=last)).warns


def test_one_person_is_no_drift():
    crowd = days(lambda day: SAME)
    assert not read(crowd + days(lambda day: [0, 0, 1], n=1, per_day=400, person=7)).warns


def test_a_young_service_and_few_people_show_no_drift():
    assert not read(days(lambda day: OTHER if day >= 2 else SAME, n=6)).warns
    assert not read(days(lambda day: OTHER if day == 28 else SAME, per_day=20)).warns


def test_traits_of_answers_are_of_one_rule_and_those_of_prompts_of_another():
    rows = days(lambda day: OTHER if day == 28 else SAME)
    assert not read_drift("answer_drift", "v1", rows, ANSWERS, NOW).warns


# --- in the monitor ----------------------------------------------------------------------------


def test_a_sample_comes_back_from_the_log(store):
    tools = ToolDefinitions("t1", json.dumps([{"function": {"name": "look"}}]))
    row = replace(call("c", time=10.0), tool_calls=(ToolCall("1", "look", "{}"),), tools="t1")
    store.log.append(tools, row)
    service = MonitorService(store, Monitor())
    before = service.read(3 * 3600.0).sample
    assert before[0].traits["answer_calls"] == "valid"
    assert store.log.count(CallTally) == 1
    assert MonitorService(store, Monitor()).read(3 * 3600.0).sample == before


def test_judges_page_where_answers_fall_below_the_floor(store):
    calls = [replace(call(f"c{k}", time=10 * DAY + k), subject=f"s{k}") for k in range(60)]
    store.log.append(*calls)
    judged = [
        Rating(
            f"q{k}", 10 * DAY + 100 + k, c.id, "judge", "quality", float(k % 2), source=SourceKind.LLM_JUDGE
        )
        for k, c in enumerate(calls)
    ]
    store.log.append(*judged)
    report = MonitorService(store, Monitor()).check(10 * DAY + 3600)
    states = {a.rule: a.state for a in report.alerts}
    assert (states["quality"], states["thumbs_down"]) == ("firing", "ok")
    quality = next(e for e in report.health[0].estimates if e.name == "quality")
    assert (quality.value, quality.n) == (0.5, 60)


def test_users_give_no_verdict_on_quality():
    rating = replace(thumb("f", "a", True), name="quality", value=0.1, source=SourceKind.END_USER)
    assert fold_thumbs([rating], "quality") == {}
    by_judge = replace(rating, source=SourceKind.LLM_JUDGE)
    assert Counter(t.vote for t in fold_thumbs([by_judge], "quality").values()) == {-1: 1}


def test_late_first_tokens_page_where_they_have_a_limit(store):
    rows = [replace(call(f"c{k}", time=10 * DAY + 10.0 * k), ttft_ms=3000.0) for k in range(200)]
    store.log.append(*rows)
    now = 10 * DAY + 2000.0
    report = MonitorService(store, Monitor(ttft_p99_ms=1000.0)).check(now)
    assert next(a.state for a in report.alerts if a.rule == "ttft_p99") == "firing"
    p99 = next(e for e in report.health[0].estimates if e.name == "ttft_p99_ms")
    assert p99.value == pytest.approx(3000.0, rel=0.01)
    assert not any(a.rule == "ttft_p99" for a in MonitorService(store, Monitor()).check(now + 1).alerts)
