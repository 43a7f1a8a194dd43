"""Keys have budgets, models, an end and new secrets; what is used up is refused with what is left."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import httpx2
import pytest
from gateway_side import Fake, gateway_of, running, serving
from hypothesis import given
from hypothesis import strategies as st

from escultor.serve import auth, budgets
from escultor.serve.wire.errors import ApiError
from escultor.store.kinds import DAY_S, Spending
from escultor.types import Interaction, KeyLimits, KeyRevoked, Scope

ASK = {"model": "escultor", "messages": [{"role": "user", "content": "Olá?"}]}  # 7 + 5 tokens by `Fake`
PRICES = {"v1": (1000.0, 1000.0)}  # a dollar a token


def guarded(side, **limits):
    key, event = auth.create("k", [Scope.INFER], limits=KeyLimits(**limits))
    side.log.append(event)
    side.until(lambda: event.id in side.gateway.keys.keys)
    return key, event.id


def ask(side, key, path="/v1/chat/completions", **more):
    headers = {"Authorization": f"Bearer {key}"}
    return httpx2.post(side.url + path, json={**ASK, **more}, headers=headers, timeout=120)


@pytest.mark.parametrize(
    ("limits", "status", "code"),
    [
        ({"tokens_per_day": 20}, 429, "rate_limit_error"),
        ({"tokens_per_month": 20}, 429, "rate_limit_error"),
        ({"usd_per_day": 20.0}, 402, "insufficient_quota"),
        ({"usd_per_month": 20.0}, 402, "insufficient_quota"),
    ],
)
def test_a_budget_that_is_used_up_is_refused_with_what_is_left(tmp_path, limits, status, code):
    name = next(iter(limits))
    header = budgets.HEADER + name.replace("_", "-")
    with serving(tmp_path, prices=PRICES) as side:
        key, id = guarded(side, **limits)
        seen = [ask(side, key, stream=is_streamed) for is_streamed in (False, True)]
        assert [(each.status_code, each.headers[header]) for each in seen] == [(200, "20"), (200, "8")]
        refused = ask(side, key)
        assert (refused.status_code, refused.headers[header]) == (status, "0")
        assert 0 < int(refused.headers["retry-after"]) <= 31 * DAY_S + 1
        assert refused.headers["x-should-retry"] == "false"
        error = refused.json()["error"]
        assert (error["code"], error["type"]) == ("budget_exceeded", code)
        assert f"left: 0 {name.replace('_', ' ')}" in error["message"]
        assert side.log.spending(id, 0) == [Spending(id, int(time.time() // DAY_S), 24, 24.0)]
        other, _ = guarded(side, **limits)
        assert ask(side, other).status_code == 200
        messages = ask(side, key, "/v1/messages", max_tokens=5)
        assert (messages.status_code, messages.json()["type"]) == (status, "error")
    # it is as used up after a restart, and at another gateway of the store
    gateway, known = gateway_of(tmp_path, prices=PRICES)
    with running(gateway, known) as side:
        assert ask(side, key).status_code == status
    gateway.store.close()


def test_at_most_the_calls_in_flight_are_spent_beyond_a_budget(tmp_path):
    first, known = gateway_of(tmp_path)
    second, others = gateway_of(tmp_path)
    with running(first, known) as a, running(second, others) as b, ThreadPoolExecutor(8) as pool:
        key, id = guarded(a, tokens_per_day=60)
        b.until(lambda: id in b.gateway.keys.keys)
        answers = list(pool.map(lambda n: ask((a, b)[n % 2], key).status_code, range(40)))
        spent = sum(each.tokens for each in a.log.spending(id, 0))
        assert spent == 12 * answers.count(200)
        assert 60 <= spent < 60 + 8 * 12
    first.store.close()
    second.store.close()


def test_an_answer_that_its_client_leaves_is_spent_too(tmp_path):
    engine = Fake()
    engine.gate = asyncio.Semaphore(1)
    with serving(tmp_path, engine) as side:
        key, id = guarded(side, tokens_per_day=1000)
        with httpx2.stream(
            "POST",
            side.url + "/v1/chat/completions",
            json={**ASK, "stream": True},
            headers={"Authorization": f"Bearer {key}"},
            timeout=120,
        ) as stream:
            next(stream.iter_lines())
        side.until(lambda: side.log.spending(id, 0))
        assert side.rows()[0].finish_reason == "cancelled"


def test_only_the_models_of_a_key_may_be_asked_for(tmp_path):
    with serving(tmp_path, names=("escultor", "gpt-4o", "gpt-4o-mini")) as side:
        key, _ = guarded(side, models=("gpt-*",))
        assert ask(side, key, model="gpt-4o").status_code == 200
        refused = ask(side, key)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
        headers = {"Authorization": f"Bearer {key}"}
        listed = httpx2.get(side.url + "/v1/models", headers=headers).json()["data"]
        assert [each["id"] for each in listed] == ["gpt-4o", "gpt-4o-mini"]
        assert httpx2.get(side.url + "/v1/models/escultor", headers=headers).status_code == 404
        assert ask(side, key, "/v1/embeddings", input="a").status_code == 403


def ring(*events, now):
    return auth.Keyring(events, clock=lambda: now)


def is_valid(keyring, key):
    return keyring.holder(key, Scope.INFER) is not None


def test_a_key_ends_when_it_expires():
    key, event = auth.create("k", [Scope.INFER], 1.0, KeyLimits(expires=10.0))
    assert [is_valid(ring(event, now=now), key) for now in (9.9, 10.0)] == [True, False]


@given(st.permutations(range(4)), st.floats(0, 100))
def test_a_rotated_key_is_its_newest_secret_and_the_old_ones_as_long_as_was_said(order, now):
    first, created = auth.create("k", [Scope.INFER], 0.0)
    second, one = auth.rotate(auth.Keyring([created]), created.id, 30.0, 20.0)  # until 50
    third, two = auth.rotate(auth.Keyring([created]), created.id, 0.0, 40.0)  # ends both at 40
    other, _ = auth.create("k", [Scope.INFER], 0.0)
    events = [created, one, two, replace(one, id="x", key="another")]
    keyring = ring(*(events[k] for k in order), now=now)
    valid = [is_valid(keyring, key) for key in (first, second, third, other)]
    assert valid == [now < 40, now < 40, True, False]
    ended = ring(*events, KeyRevoked("r", 50.0, created.id), now=now)
    assert not any(is_valid(ended, key) for key in (first, second, third))


AT = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 50)), max_size=8), st.integers(1, 100))
def test_what_is_left_is_the_limit_less_what_the_period_spent(days, limit):
    start = budgets.first_day(AT)
    assert start == int(datetime(2026, 12, 1, tzinfo=UTC).timestamp() // DAY_S)
    limits = KeyLimits(tokens_per_day=limit, usd_per_month=float(limit))
    spent = [Spending("k", start + day, n, float(n)) for day, n in days]
    left = budgets.remaining(limits, spent, AT)
    today = sum(n for day, n in days if day == 30)
    total = sum(n for _, n in days)
    assert left == {"tokens_per_day": max(0, limit - today), "usd_per_month": max(0, limit - total)}


@pytest.mark.parametrize(("name", "seconds"), [("tokens_per_day", 2), ("usd_per_month", 2)])
def test_a_period_ends_at_midnight_utc(name, seconds):
    with pytest.raises(ApiError) as caught:
        budgets.refuse_spent(KeyLimits(**{name: 1}), {name: 0}, AT)
    assert caught.value.headers["Retry-After"] == str(seconds)
    assert "2027-01-01T00:00Z" in caught.value.message


def test_the_skill_of_a_key_is_that_of_requests_which_name_none(tmp_path):
    with serving(tmp_path, skill="chat") as side:
        key, event = auth.create("k", [Scope.INFER], skill="support")
        plain, other = auth.create("l", [Scope.INFER])
        side.log.append(event, other)
        side.until(lambda: {event.id, other.id} <= side.gateway.keys.keys.keys())
        headers = {"Authorization": f"Bearer {key}", "x-escultor-skill": "sorting"}
        assert ask(side, key).status_code == 200
        assert httpx2.post(side.url + "/v1/chat/completions", json=ASK, headers=headers).status_code == 200
        assert ask(side, plain).status_code == 200
        rows = [row.skill for _, row in side.log.read(Interaction)]
        assert rows == ["support", "sorting", "chat"]
