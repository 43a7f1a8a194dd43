"""Model names go to the upstreams that the configuration names, in order; embeddings pass through."""

import json
import socket
from contextlib import ExitStack, contextmanager

import httpx2
import pytest
from gateway_side import deployment, running, serving
from hypothesis import given
from hypothesis import strategies as st
from mock_upstream import PIECES, MockUpstream, answers, choice, disconnects, hangs, serves, streams
from pydantic import ValidationError

from escultor.config import Serve
from escultor.config.serving import matches
from escultor.serve.engine_loading import EngineSource, engine_loader
from escultor.serve.gateway import gateway as gateway_module
from escultor.serve.gateway.gateway import Gateway
from escultor.store import open_store
from escultor.types import Consent, Interaction

ASK = {"messages": [{"role": "user", "content": "Where is the cat?"}]}
TEXT = "".join(PIECES)
QUICK = {"connect_timeout_s": 5, "idle_timeout_s": 0.3, "retries": 2}


def unused_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


@contextmanager
def routed(root, models, **upstreams):
    """A gateway whose upstreams are mocks, or urls."""
    with ExitStack() as stack:
        table = {}
        for name, mock in upstreams.items():
            url = mock if isinstance(mock, str) else stack.enter_context(mock).url
            table[name] = {"url": url, "model": f"{name}-model", "price": [1.0, 2.0], **QUICK}
        serve = Serve.model_validate({"follow_s": 0.05, "upstreams": table, "models": models})
        store = stack.enter_context(open_store(str(root / "store")))
        load, default, fixed = engine_loader(store, EngineSource(None), serve)
        yield stack.enter_context(running(Gateway(store, serve, load, default, fixed=fixed)))


def post(side, model, path="/v1/chat/completions", **body):
    return httpx2.post(side.url + path, json={**ASK, "model": model, **body}, timeout=120)


def test_a_name_goes_to_its_upstream_an_exact_one_first(tmp_path):
    a, b = MockUpstream(serves()), MockUpstream(serves())
    models = {"gpt-*": ["a"], "gpt-4o": ["b"], "*": ["a"]}
    with routed(tmp_path, models, a=a, b=b) as side:
        versions = [
            post(side, name).headers["x-escultor-version"] for name in ("gpt-4o", "gpt-3", "escultor")
        ]
        assert versions == ["b/b-model", "a/a-model", "a/a-model"]
        assert [asked.body["model"] for asked in a.asked + b.asked] == ["a-model", "a-model", "b-model"]
        listed = httpx2.get(side.url + "/v1/models").json()["data"]
        assert [(each["id"], each["root"]) for each in listed] == [("gpt-4o", "b/b-model")]
        rows = side.rows()
        assert [row.version for row in rows] == versions
        assert [row.cost_usd for row in rows] == [pytest.approx((7 * 1 + 3 * 2) / 1000)] * 3


FAILURES = {
    "dead": None,
    "busy": answers(b"{}", status=429),
    "broken": answers(b"{}", status=500),
    "gone": disconnects,
    "no such model": answers(b"{}", status=404),
    "silent": hangs,
}


@pytest.mark.parametrize("fault", FAILURES)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_next_upstream_answers_where_one_does_not(tmp_path, fault, is_streamed):
    plan = FAILURES[fault]
    if fault == "silent" and not is_streamed:
        return  # an answer in one piece may take as long as `deadline_s`
    second = MockUpstream(serves())
    first = unused_url() if plan is None else MockUpstream(plan)
    with routed(tmp_path, {"m": ["first", "second"], "*": ["second"]}, first=first, second=second) as side:
        answer = post(side, "m", stream=is_streamed)
        assert answer.status_code == 200
        assert answer.headers["x-escultor-version"] == "second/second-model"
        (row,) = side.rows()
        assert (row.version, row.answer, row.arm) == ("second/second-model", TEXT, "route")
        body = answer.text if is_streamed else json.dumps(answer.json())
        assert "second/second-model" in body
        assert "first/" not in body
        if is_streamed:
            assert [p.interaction.version for p in side.pending()] == ["second/second-model"]
        if isinstance(first, MockUpstream):
            assert len(first.asked) == 1  # the other is asked instead of the same again
            post(side, "m")
            assert len(first.asked) == 1 + (fault in ("busy", "no such model"))  # not faults of its own


@pytest.mark.parametrize("status", [400, 422])
def test_what_is_wrong_with_the_request_goes_to_no_other_upstream(tmp_path, status):
    plan, second = answers(b"{}", status=status), MockUpstream(serves())
    with routed(tmp_path, {"*": ["first", "second"]}, first=MockUpstream(plan), second=second) as side:
        assert post(side, "m").status_code == status
        assert second.asked == []


def test_an_answer_that_has_begun_is_not_asked_for_again(tmp_path):
    first, second = MockUpstream(streams(choice("The "), cut=True)), MockUpstream(serves())
    with routed(tmp_path, {"*": ["first", "second"]}, first=first, second=second) as side:
        answer = post(side, "m", stream=True)
        assert "upstream_failed" in answer.text
        assert second.asked == []
        side.until(side.rows)
        (row,) = side.rows()
        assert (row.version, row.answer, row.finish_reason) == ("first/first-model", "The ", "error")


def test_when_none_answers_the_last_ones_fault_is_told(tmp_path):
    with routed(tmp_path, {"*": ["a", "b"]}, a=unused_url(), b=unused_url()) as side:
        assert post(side, "m").status_code == 502
        side.until(side.rows)
        assert side.rows()[0].finish_reason == "error"


def test_a_dead_upstream_shows_in_health_though_nobody_asked_it(tmp_path, monkeypatch):
    monkeypatch.setattr(gateway_module, "CHECK_UPSTREAMS_S", 0.05)
    models = {"a": ["alive"], "d": ["dead"], "*": ["alive"]}
    with routed(tmp_path, models, alive=MockUpstream(serves()), dead=unused_url()) as side:

        def health():
            return httpx2.get(side.url + "/health").json()

        side.until(lambda: health()["status"] == "degraded")
        assert health()["upstreams"] == {"alive/alive-model": "ok", "dead/dead-model": "failing"}
        assert "dead/dead-model: it cannot be reached" in health()["problem"]
        assert post(side, "a").status_code == 200


def test_names_outside_the_table_are_those_of_our_own_models(tmp_path):
    other = MockUpstream(serves())
    with other:
        upstreams = {"other": {"url": other.url, "model": "m"}}
        models = {"gpt-*": ["other"]}
        with serving(tmp_path, holds=deployment("v1"), upstreams=upstreams, models=models) as side:
            assert post(side, "escultor").headers["x-escultor-version"] == "v1"
            assert post(side, "gpt-4o").headers["x-escultor-version"] == "other/m"
            assert post(side, "nothing").status_code == 404
            # our own models refuse what an upstream is sent
            assert post(side, "escultor", num_ctx=8).status_code == 400
            assert post(side, "gpt-4o", num_ctx=8).status_code == 200
            assert [row.cost_usd > 0 for row in side.rows()] == [True, False, False]


TABLE = {"a": {"url": "http://127.0.0.1:1/v1", "model": "m"}}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"models": {"x": ["b"]}, "upstreams": TABLE}, "names b"),
        ({"upstreams": TABLE}, "has a, which no entry"),
        ({"models": {"x": []}, "upstreams": TABLE}, "at least 1"),
        ({"models": {"a*b*c": ["a"]}, "upstreams": TABLE}, "match pattern"),
        ({"models": {"*": ["a"]}, "upstreams": TABLE, "upstream": TABLE["a"]}, "never be asked"),
    ],
)
def test_a_table_that_cannot_act_is_refused(settings, problem):
    with pytest.raises(ValidationError, match=problem):
        Serve.model_validate(settings)


@given(st.text("ab", max_size=4), st.text("ab", max_size=4), st.text("ab", max_size=6))
def test_a_star_stands_for_any_text(before, after, middle):
    assert matches(f"{before}*{after}", before + middle + after)
    assert not matches(f"{before}*{after}c", before + middle + after)
    assert matches(before, before)


# --- embeddings -------------------------------------------------------------------------------

VECTORS = json.dumps(
    {
        "object": "list",
        "model": "e",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }
).encode()


def test_embeddings_pass_through_and_the_log_has_their_figures_and_no_text(tmp_path):
    mock = MockUpstream(answers(VECTORS))
    with routed(tmp_path, {"text-*": ["e"], "*": ["e"]}, e=mock) as side:
        body = {"input": ["the secret text", "b"], "dimensions": 2, "metadata": {"escultor_skill": "search"}}
        answer = httpx2.post(side.url + "/v1/embeddings", json={"model": "text-1", **body}, timeout=60)
        assert answer.content == VECTORS
        assert mock.asked[0].body == {"model": "e-model", "input": body["input"], "dimensions": 2}
        assert mock.asked[0].path == "/v1/embeddings"
        (row,) = side.rows()
        assert (row.skill, row.task, row.consent) == ("search", "embedding", Consent.NONE)
        assert row.messages[0].content == "[2 inputs, 16 characters]"
        assert (row.usage.prompt_tokens, row.usage.completion_tokens) == (5, 0)
        assert row.cost_usd == pytest.approx(0.005)
        assert json.loads(row.parameters) == {"dimensions": 2}
        assert "secret" not in repr(row)


@pytest.mark.parametrize(
    ("plan", "status"),
    [(answers(b"{}"), 502), (answers(b"[]"), 502), (answers(b"{}", status=400), 400), (disconnects, 502)],
)
def test_embeddings_that_do_not_come_are_an_error_and_no_row(tmp_path, plan, status):
    with routed(tmp_path, {"*": ["e"]}, e=MockUpstream(plan)) as side:
        answer = httpx2.post(side.url + "/v1/embeddings", json={"model": "m", "input": "a"}, timeout=60)
        assert answer.status_code == status
        assert side.rows() == []


@pytest.mark.parametrize("given_input", [None, [], [1.5], {"a": 1}, ["a", 1]])
def test_an_input_that_is_none_is_refused(tmp_path, given_input):
    with serving(tmp_path) as side:
        body = {"model": "escultor", "input": given_input}
        assert httpx2.post(side.url + "/v1/embeddings", json=body).status_code == 400


def test_our_own_models_make_no_embeddings(tmp_path):
    with serving(tmp_path) as side:
        body = {"model": "escultor", "input": "a"}
        answer = httpx2.post(side.url + "/v1/embeddings", json=body)
        assert answer.status_code == 404
        assert "no upstream makes embeddings" in answer.json()["error"]["message"]
        assert side.log.count(Interaction) == 0
