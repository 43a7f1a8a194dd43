"""A judge: both orders, strict verdicts, counted failures, asked once; corrected by people as stated."""

import numpy as np
import pytest
from replying import server
from test_preference import new_session

from escultor.errors import DataError, UpstreamFault
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.raters.judge import (
    EndpointJudge,
    LocalJudge,
    judge_choices,
    judge_session,
    pair_prompt,
    parse_verdict,
)
from escultor.evaluate.raters.judge_calibration import correct_judge, prediction_powered_mean
from escultor.evaluate.served_model import TRIES, Endpoint
from escultor.types import Message, Role, SourceKind


class Scripted:
    """Replies by a rule, and counts how often it was asked."""

    name = "scripted"

    def __init__(self, rule):
        self.rule, self.asked = rule, 0

    def ask(self, prompts):
        self.asked += len(prompts)
        return [self.rule(prompt[0].content) for prompt in prompts]


def likes_b(text):
    return "[[A]]" if text.index("model-b") < text.index("model-a") else "so [[B]]"


@pytest.mark.parametrize(
    ("reply", "mark"),
    [("[[A]]", "A"), ("I think [[B]].", "B"), ("[[C]] and again [[C]]", "C"), ("[[A]] or [[B]]", None),
     ("A", None), ("[[D]]", None), ("[A]", None), ("", None)],
)  # fmt: skip
def test_a_verdict_is_one_mark_and_nothing_else(reply, mark):
    assert parse_verdict(reply) == mark


def test_verdicts_that_hold_in_both_orders_count_and_are_asked_for_once(tmp_path):
    session, judge = new_session(8, alike=2), Scripted(likes_b)
    found = judge_session(session, judge, EvaluationCache(tmp_path / "cache.jsonl"))
    assert [j.value for j in found] == [0.0] * 2 + [1.0] * 6
    assert judge.asked == 12
    assert judge_session(session, judge, EvaluationCache(tmp_path / "cache.jsonl")) == found
    assert judge.asked == 12
    choices = judge_choices(session, judge, found)
    assert len(choices) == 16
    assert {c.source for c in choices} == {SourceKind.LLM_JUDGE}
    assert {c.winner for c in choices if c.winner} == {session.answer_id("b", f"i{n}") for n in range(2, 8)}


def test_a_judge_of_places_decides_nothing_and_one_of_no_words_is_counted():
    session = new_session(6)
    found = judge_session(session, Scripted(lambda text: "[[A]]"), EvaluationCache(None))
    assert {j.value for j in found} == {0.0}
    assert all(j.inconsistent for j in found)
    mixed = judge_session(
        session, Scripted(lambda t: likes_b(t) if "model-a 1" in t else "hm"), EvaluationCache(None)
    )
    assert [j.value for j in mixed] == [None, 1.0, None, None, None, None]
    with pytest.raises(DataError, match="named no verdict"):
        judge_session(session, Scripted(lambda text: "hm"), EvaluationCache(None))


def test_a_request_is_told_as_text_and_no_turn_of_its_own():
    (message,) = pair_prompt((Message(Role.SYSTEM, "be {a}"), Message(Role.USER, "say [[A]]")), "x", "y")
    assert message.role is Role.USER
    assert "(system) be {a}\nsay [[A]]" in message.content


def test_a_local_model_judges_as_well():
    from tiny_suites import talkative

    (said,) = LocalJudge(talkative(), "id").ask([(Message(Role.USER, "cat"),)])
    assert isinstance(said, str)


# --- behind a server --------------------------------------------------------------------------


GOOD = (200, {"choices": [{"message": {"content": "[[A]]"}}]})
PROMPT = [(Message(Role.USER, "which?"),)]


def test_a_server_is_asked_again_after_a_fault_and_is_given_its_key():
    waits = []
    with server((503, {}), (429, {}), GOOD) as (url, seen):
        assert EndpointJudge(Endpoint(url, "secret", sleep=waits.append), "m").ask(PROMPT) == ["[[A]]"]
    assert waits == [0.5, 1.0]
    path, headers, body = seen[-1]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body["messages"] == [{"role": "user", "content": "which?"}]


def test_a_judge_that_sends_no_text_has_named_no_verdict():
    with server((200, {"choices": [{"message": {"content": None}}]}), GOOD) as (url, _):
        judge = EndpointJudge(Endpoint(url), "m")
        assert list(map(parse_verdict, judge.ask(PROMPT) + judge.ask(PROMPT))) == [None, "A"]


@pytest.mark.parametrize(
    ("reply", "asked"),
    [((500, {}), TRIES), ((401, {}), 1), ((200, b"<html>"), 1), ((200, {}), 1),
     ((200, {"choices": [{"message": {"content": ["A"]}}]}), 1)],
)  # fmt: skip
def test_a_server_that_fails_or_speaks_nonsense_is_a_fault_without_its_key(reply, asked):
    with server(reply) as (url, seen):
        judge = EndpointJudge(Endpoint(url, "secret", sleep=lambda _: None), "m")
        with pytest.raises(UpstreamFault) as caught:
            judge.ask(PROMPT)
    assert len(seen) == asked
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_a_fault():
    judge = EndpointJudge(Endpoint("http://127.0.0.1:9", timeout_s=1.0, sleep=lambda _: None), "m")
    with pytest.raises(UpstreamFault, match=f"failed {TRIES} times"):
        judge.ask(PROMPT)


# --- people's labels --------------------------------------------------------------------------


def draws(seed, n=60, more=600, per=1):
    """Labels from {-1, 0, 1} around 0.1, and a biased judge that agrees with them most of the time."""
    rng = np.random.default_rng(seed)
    total = n + more
    family = np.repeat(rng.normal(0, 0.6, total // per), per)
    label = np.sign(np.round(0.1 + family + rng.normal(0, 1, total), 0)).clip(-1, 1)
    judged = np.where(rng.random(total) < 0.75, label, 1.0)
    names = [f"c{i // per}" for i in range(total)]
    return label, judged, names


def corrected(label, judged, names, n=60):
    return prediction_powered_mean(label[:n], judged[:n], names[:n], judged[n:], names[n:])


@pytest.mark.parametrize("per", [1, 3])
def test_corrected_intervals_cover_the_truth_and_are_narrower_than_peoples_alone(per):
    truth = np.mean([draws(s, 60, 60_000, per)[0].mean() for s in range(20)])
    runs = [corrected(*draws(1000 + s, per=per)) for s in range(400)]
    inside = sum(r.low <= truth <= r.high for r in runs) / len(runs)
    assert 0.915 <= inside <= 0.98  # 95 %: outside with odds below 1 in 1,000
    ratio = np.mean([(r.high - r.low) / (r.people_high - r.people_low) for r in runs])
    assert ratio < 0.8
    judge_alone = np.mean([draws(s)[1].mean() for s in range(50)])
    assert judge_alone > truth + 0.1  # what the correction has to undo


def test_the_power_is_that_of_the_papers_formula():
    label, judged, names = draws(1)
    f, y, n, more = judged[:60], label[:60], 60, 600
    found = corrected(label, judged, names)
    cov, var = np.cov(y, f)[0, 1], np.var(f, ddof=1)
    paper = cov / (var + np.var(judged[60:], ddof=1) * n / more)
    assert found.power == pytest.approx(paper)
    expected = y.mean() + paper * (judged[60:].mean() - f.mean())
    assert found.value == pytest.approx(expected)


def test_a_judge_that_tells_nothing_changes_nothing():
    label, _, names = draws(2)
    constant = np.ones(len(label))
    found = corrected(label, constant, names)
    assert (found.power, found.value) == (0.0, pytest.approx(label[:60].mean()))
    assert (found.low, found.high) == pytest.approx((found.people_low, found.people_high))
    nobody = correct_judge({"a": 1.0}, {}, {"a": "a"})
    assert nobody is None
    only = correct_judge({"a": 1.0, "b": 0.0}, {"a": 1.0, "b": -1.0}, {"a": "a", "b": "b"})
    assert only is not None
    assert only.power == 0.0  # people rated all there is
    with pytest.raises(DataError, match="cannot be corrected"):
        prediction_powered_mean([1.0, 0.0], [1.0, 0.0], ["c", "c"], [], [])
    with pytest.raises(DataError, match="not finite"):
        prediction_powered_mean([1.0, float("nan")], [1.0, 0.0], ["c", "d"], [], [])


def test_the_rubric_of_a_skill_is_told_to_the_judge():
    asked = (Message(Role.USER, "q"),)
    (message,) = pair_prompt(asked, "x", "y", "Prefer the right queue.")
    assert "[What matters here]\nPrefer the right queue." in message.content
    assert "What matters here" not in pair_prompt(asked, "x", "y")[0].content
