"""Keys of different tenants do not touch each other's rows, people and feedback; those of one tenant do."""

import asyncio

import httpx2
import pytest
from gateway_side import serving

from escultor.serve.auth import EVERY_TENANT, create
from escultor.serve.intake.targets import answers_of
from escultor.store.feedback import live
from escultor.types import Feedback, KeyCreated, Scope

ALL = [Scope.INFER, Scope.FEEDBACK, Scope.READ, Scope.ADMIN]
CHAT = {"model": "escultor", "messages": [{"role": "user", "content": "Olá?"}], "user": "maria"}


class Tenant:
    """A client with a key."""

    def __init__(self, side, name, scopes=ALL, tenant=None, old=False):
        key, made = create(name, scopes, tenant=tenant)
        made = KeyCreated(made.id, made.time, made.name, made.scopes, made.digest) if old else made
        side.log.append(made)
        side.until(lambda: made.id in side.gateway.keys.keys)
        self.url, self.headers = side.url, {"Authorization": f"Bearer {key}"}

    def ask(self, method, path, json=None, **headers):
        return httpx2.request(method, self.url + path, json=json, headers=self.headers | headers, timeout=60)

    def answer(self, **headers):
        return self.ask("POST", "/v1/chat/completions", CHAT, **headers).json()["id"]

    def rate(self, target, value=True, **more):
        return self.ask("POST", "/v1/feedback", {"kind": "boolean", "target": target, "value": value, **more})

    def feedback(self, target):
        return self.ask("GET", f"/v1/feedback?target={target}").json()


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("tenants")) as running:
        yield running


@pytest.fixture(scope="module")
def a(side):
    return Tenant(side, "a")


@pytest.fixture(scope="module")
def b(side):
    return Tenant(side, "b")


MARIA = {"source": {"id": "maria"}}


def test_one_name_is_two_people(side, a, b):
    a.answer()
    b.answer()
    first, second = side.rows()[-2:]
    assert first.subject != second.subject


def test_feedback_on_anothers_answer_is_refused_and_changes_nothing(a, b):
    mine = a.answer()
    assert a.rate(mine, True, id="same", **MARIA).json()["id"] == "same"
    refused = b.rate(mine, False, id="same", **MARIA)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_value")
    both = [mine, b.answer()]
    choice = {"kind": "comparison", "comparison": {"candidates": both, "shown_order": both}}
    assert b.ask("POST", "/v1/feedback", choice).status_code == 400
    live = a.feedback(mine)["live"]
    assert [(event["id"], event["value"]) for event in live] == [("same", True)]
    assert b.feedback(mine) | {"target": ""} == {**b.feedback("unheard-of"), "target": ""}


def test_ids_of_events_are_a_tenants_own(a, b):
    mine, other = a.answer(), b.answer()
    for tenant, row in ((a, mine), (b, other)):
        assert tenant.rate(row, True, id="vote-1").status_code == 202
        assert tenant.rate(row, True, id="vote-1").status_code == 202
        assert tenant.rate(row, False, id="vote-1").status_code == 409
    assert b.ask("DELETE", "/v1/feedback/vote-1").status_code == 200
    assert b.feedback(other)["live"] == []
    assert len(a.feedback(mine)["live"]) == 1


def test_nobody_withdraws_anothers_event(side, a, b):
    mine = a.answer()
    id = a.rate(mine).json()["id"]
    stored = next(event.id for _, event in side.log.read(Feedback, target=mine))
    for each in (id, stored):
        assert b.ask("DELETE", f"/v1/feedback/{each}").status_code == 404
    assert a.ask("DELETE", f"/v1/feedback/{id}").status_code == 200


def test_events_of_browsers_are_theirs_to_whom_the_answer_was_given(a, b):
    answer = a.ask("POST", "/v1/chat/completions", CHAT)
    token = answer.headers["x-escultor-feedback-token"]
    id = httpx2.post(f"{a.url}/v1/feedback/t/{token}", json={"value": True}).json()["id"]
    assert b.ask("DELETE", f"/v1/feedback/{id}").status_code == 404
    assert a.ask("DELETE", f"/v1/feedback/{id}").status_code == 200


def test_nobody_erases_anothers_people(side, a, b):
    mine = a.answer()
    subject = side.rows()[-1].subject
    assert b.ask("DELETE", f"/v1/subjects/{subject}").status_code == 404
    assert mine in {row.id for row in side.rows()}
    assert a.ask("DELETE", f"/v1/subjects/{subject}").status_code == 200
    assert mine not in {row.id for row in side.rows()}


def test_answers_are_continued_by_their_own_tenant_alone(a, b):
    asked = {"model": "escultor", "input": "Olá?"}
    first = a.ask("POST", "/v1/responses", asked).json()["id"]
    again = {**asked, "previous_response_id": first}
    assert a.ask("POST", "/v1/responses", again).status_code == 200
    assert b.ask("POST", "/v1/responses", again).status_code == 404
    lineage = {"x-escultor-parent": first, "x-escultor-relation": "regenerate"}
    assert b.ask("POST", "/v1/chat/completions", CHAT, **lineage).status_code == 404
    assert a.ask("POST", "/v1/chat/completions", CHAT, **lineage).status_code == 200


def test_what_others_said_about_an_answer_before_it_was_imported_does_not_count(side, a, b):
    calls = [
        {"id": f"served-{name}", "time": 1e9, "messages": CHAT["messages"], "answer": "x"}
        | {"version": "v", "user": "maria"}
        for name in "xy"
    ]
    pair = [call["id"] for call in calls]
    choice = {
        "kind": "comparison",
        "comparison": {"candidates": pair, "shown_order": pair, "winner": pair[0]},
    }
    for tenant in (a, b):
        assert tenant.rate(pair[0], tenant is b, **MARIA).status_code == 202
    assert a.ask("POST", "/v1/feedback", choice).status_code == 202
    assert b.ask("POST", "/v1/interactions", calls).json()["accepted"] == 2
    assert [event["value"] for event in b.feedback(pair[0])["live"]] == [True]
    in_force = live(event for _, event in side.log.read(Feedback)).values()
    assert [event.value for event in in_force if set(pair) & set(answers_of(event))] == [True]
    assert a.rate(pair[0]).status_code == 400


def test_feedback_that_an_import_overtakes_does_not_count(side, a, b, monkeypatch):
    call = {"id": "served-z", "time": 1e9, "messages": CHAT["messages"], "answer": "x"}
    intake = side.gateway.intake
    write = intake._write

    async def after_the_import(parsed):
        sent = b.ask, "POST", "/v1/interactions", call | {"version": "v", "user": "maria"}
        assert (await asyncio.to_thread(*sent)).json()["accepted"] == 1
        return await write(parsed)

    with monkeypatch.context() as overtaken:
        overtaken.setattr(intake, "_write", after_the_import)
        assert a.rate("served-z").status_code == 202
    in_force = live(event for _, event in side.log.read(Feedback)).values()
    assert not [event for event in in_force if answers_of(event) == ("served-z",)]


def test_keys_of_one_tenant_share_all(side, a):
    other = Tenant(side, "another key", [Scope.FEEDBACK, Scope.READ], tenant="a")
    mine = a.answer(**{"x-escultor-message": "m-7"})
    assert other.rate("m-7", id="vote-9").status_code == 202
    assert a.feedback(mine)["live"][0]["id"] == "vote-9"


def test_a_key_for_every_tenant_acts_on_all(side, a):
    operator = Tenant(side, "operator", tenant=EVERY_TENANT)
    mine = a.answer()
    assert operator.rate(mine).status_code == 202
    assert operator.feedback(mine)["known"]
    assert operator.ask("DELETE", f"/v1/subjects/{side.rows()[-1].subject}").status_code == 200


def test_keys_from_before_there_were_tenants_work_as_they_did(tmp_path):
    with serving(tmp_path) as side:
        asks = Tenant(side, "asks", [Scope.INFER], old=True)
        rates = Tenant(side, "rates", [Scope.FEEDBACK, Scope.READ], old=True)
        admin, new = Tenant(side, "admin", [Scope.ADMIN], old=True), Tenant(side, "new")
        mine = asks.answer()
        assert side.rows()[-1].subject == side.gateway.subjects.subject("maria")
        assert rates.rate(mine, id="x", **MARIA).status_code == 202
        assert side.log.get(Feedback, "x").subject == side.rows()[-1].subject
        assert new.rate(mine).status_code == 400
        theirs = new.answer()
        assert rates.rate(theirs).status_code == 400
        assert rates.ask("DELETE", "/v1/feedback/x").status_code == 200
        erased = admin.ask("DELETE", f"/v1/subjects/{side.rows()[0].subject}").json()
        assert erased["counts"]["interaction"] == 1


@pytest.mark.parametrize("kind", ["rater", "llm_judge", "code", "simulated"])
def test_speaking_as_a_rater_is_a_scope(side, kind):
    user, rater = Tenant(side, "u", ALL[:2]), Tenant(side, "r", [Scope.RATER], tenant="u")
    mine, source = user.answer(), {"source": {"kind": kind, "id": "judge"}}
    refused = user.rate(mine, **source)
    assert refused.status_code == 400
    assert "rater" in refused.json()["error"]["message"]
    assert rater.rate(mine, **source).status_code == 202
    assert user.rate(mine).status_code == 202


def test_no_route_tells_one_tenant_what_another_said(side, a, b):
    word = "Xylophonia"
    asked = {**CHAT, "messages": [{"role": "user", "content": f"{word}?"}], "user": word}
    given = {"x-escultor-message": "m-1"}
    theirs = a.ask("POST", "/v1/chat/completions", asked, **given).json()["id"]
    said = {"kind": "comment", "id": "fb-1", "target": theirs, "text": f"I am {word}", "source": {"id": word}}
    assert a.ask("POST", "/v1/feedback", said).status_code == 202
    assert word in str(a.feedback(theirs))
    subject = side.gateway.subjects.subject(word, "a")
    own = b.answer(**{"x-escultor-message": "m-1"})
    assert b.rate("m-1").status_code == 202  # lands on its own answer of this name
    assert [each["target"] for each in b.feedback("m-1")["data"]] == [own]
    assert [each["id"] for each in a.feedback("m-1")["data"]] == ["fb-1"]
    row = {"id": theirs, "messages": [{"role": "user", "content": "?"}], "answer": "", "model_version": "m"}
    replies = [
        *(b.ask("GET", f"/v1/feedback?target={each}") for each in (theirs, "m-1", "fb-1", f"t:{theirs}")),
        *(b.ask("GET", path) for path in ("/metrics", "/v1/models", f"/v1/models/{theirs}", "/health")),
        *(b.ask("DELETE", f"/v1/feedback/{each}") for each in ("fb-1", f"{theirs}", "revoke-fb-1")),
        b.ask("DELETE", f"/v1/subjects/{subject}"),
        b.rate(theirs),
        b.ask("POST", "/v1/feedback", {**said, "text": "changed"}),
        b.ask("POST", "/v1/interactions", {"interactions": [row]}),
        b.ask("POST", "/v1/responses", {"model": "escultor", "input": "?", "previous_response_id": theirs}),
        b.ask("POST", "/v1/chat/completions", CHAT, **{"x-escultor-parent": theirs}),
    ]
    assert all(word not in reply.text and word not in str(reply.headers) for reply in replies)
    assert all(reply.status_code < 500 for reply in replies)
    assert [each["id"] for each in a.feedback(theirs)["data"]] == ["fb-1"]
    assert word in str(a.feedback(theirs))
