"""Feedback, imports and erasure over HTTP: who may, what comes back, and what a browser may do."""

import json
from pathlib import Path

import httpx2
import pytest
from gateway_side import serving

from escultor.serve import auth
from escultor.types import Feedback, Interaction, Rating, Scope

LINES = (Path(__file__).parents[1] / "data" / "formats" / "interactions.jsonl").read_bytes()
ASK = {"model": "escultor", "messages": [{"role": "user", "content": "hi"}], "user": "ann"}


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    with (
        serving(tmp_path_factory.mktemp("gateway")) as running,
        httpx2.Client(base_url=running.url) as client,
    ):
        running.client = client
        yield running


def answered(side):
    """An answer, and the token that came with it."""
    answer = side.client.post("/v1/chat/completions", json=ASK)
    return answer.json()["id"], answer.headers["x-escultor-feedback-token"]


def test_one_event_and_a_batch(side):
    id, _ = answered(side)
    one = side.client.post("/v1/feedback", json={"id": id, "value": True, "user": "ann"})
    assert (one.status_code, one.json()["status"]) == (202, "accepted")
    events = [{"kind": "boolean", "id": "b1", "target": id, "value": False}, {"kind": "shout"}]
    for body in (events, {"events": events}):
        batch = side.client.post("/v1/feedback", json=body)
        assert batch.status_code == 202
        assert [(r["id"], r["status"]) for r in batch.json()["results"]] == [
            ("b1", "accepted"),
            (None, "refused"),
        ]
        assert (batch.json()["accepted"], batch.json()["refused"]) == (1, 1)
    page = side.client.get("/v1/feedback", params={"target": id}).json()
    assert page["known"]
    assert [(e["kind"], e["name"], e["value"]) for e in page["data"]] == [
        ("rating", "thumb", True), ("rating", "thumb", False),
    ]  # fmt: skip
    assert page["live_count"] == 2
    (row,) = [row for row in side.rows() if row.id == id]
    assert page["data"][0]["subject"] == row.subject  # the same person asked and judged


def test_errors_have_openais_shape_and_the_status_says_which(side):
    def say(**more):
        return side.client.post("/v1/feedback", json={"kind": "boolean", "id": "e1", "target": "x", **more})

    assert say(value=True).status_code == 202
    conflict = say(value=False)
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "id_conflict")
    assert say(value="yes").status_code == 400
    assert say(value="yes").json()["error"]["type"] == "invalid_request_error"
    assert side.client.post("/v1/feedback", json=[]).status_code == 400
    assert (
        side.client.post("/v1/feedback", content=b"{}", headers={"content-type": "text/plain"}).status_code
        == 415
    )
    assert side.client.get("/v1/feedback").status_code == 422
    assert side.client.get("/v1/feedback", params={"target": "x", "after": "9" * 30}).status_code == 422


def test_withdrawing_over_http(side):
    side.client.post("/v1/feedback", json={"kind": "boolean", "id": "w1", "target": "w", "value": True})
    gone = side.client.delete("/v1/feedback/w1")
    assert (gone.status_code, gone.json()["kind"], gone.json()["name"]) == (200, "revocation", "thumb")
    assert side.client.get("/v1/feedback", params={"target": "w"}).json()["live"] == []
    assert side.client.delete("/v1/feedback/unheard-of").status_code == 404


def test_paging(side):
    events = [
        {"kind": "comment", "target": "many", "text": f"{k}", "source": {"id": f"u{k}"}} for k in range(7)
    ]
    side.client.post("/v1/feedback", json=events)
    seen, after = [], 0
    while after is not None:
        page = side.client.get("/v1/feedback", params={"target": "many", "limit": 3, "after": after}).json()
        seen += [event["text"] for event in page["data"]]
        after = page["next"]
        assert page["has_more"] == (after is not None)
    assert seen == [str(k) for k in range(7)]


# --- browsers ---------------------------------------------------------------------------------


def test_a_browser_judges_with_its_token_and_without_a_key(side):
    id, token = answered(side)
    path = f"/v1/feedback/t/{token}"
    asked = side.client.options(path, headers={"Origin": "https://chat.example"})
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "*"
    for body in ({"value": True}, {"kind": "implicit", "name": "copy"}, {"kind": "comment", "text": "ok"}):
        said = side.client.post(path, json=body, headers={"Origin": "https://chat.example"})
        assert (said.status_code, said.headers["access-control-allow-origin"]) == (202, "*")
    other = side.client.post(path, json={"id": "another", "value": True})
    assert (other.status_code, other.headers["access-control-allow-origin"]) == (400, "*")
    forged = side.client.post(f"/v1/feedback/t/{token[:-1]}", json={"value": True})
    assert (forged.status_code, forged.json()["error"]["code"]) == (401, "invalid_token")
    (row,) = [row for row in side.rows() if row.id == id]
    assert {event.subject for _, event in side.log.read(Feedback, target=id)} == {row.subject}


def test_the_script_is_served_as_a_script(side):
    script = side.client.get("/static/thumbs.js")
    assert script.status_code == 200
    assert script.headers["content-type"].startswith("text/javascript")
    assert "escultor" in script.text
    assert len(script.text.splitlines()) <= 60
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script.text


# --- imports and erasure ----------------------------------------------------------------------


@pytest.mark.parametrize("array", [False, True])
def test_imported_calls_are_kept_and_repeating_is_harmless(side, array):
    rows = [json.loads(line) for line in LINES.splitlines()]
    broken = [*rows, {"id": "x"}, rows[0] | {"answer": "another"}]
    if array:

        def send():
            return side.client.post("/v1/interactions", json=broken)
    else:
        data = b"".join(json.dumps(row).encode() + b"\n" for row in broken) + b"{\n"

        def send():
            return side.client.post(
                "/v1/interactions", content=data, headers={"content-type": "application/jsonl"}
            )

    for _ in range(2):
        told = send()
        assert told.status_code == 200
        assert told.json()["accepted"] == 2
        assert [p["line"] for p in told.json()["problems"]] == ([3, 4] if array else [3, 4, 5])
        assert "other content" in told.json()["problems"][1]["error"]
    assert side.log.get(Interaction, "call-2").answer == "Ebro."


def test_a_person_is_erased_over_http_and_their_later_data_is_refused(side):
    ask = ASK | {"user": "carol"}
    id = side.client.post("/v1/chat/completions", json=ask).json()["id"]
    side.client.post("/v1/feedback", json={"id": id, "value": True, "user": "bob"})
    subject = side.log.get(Interaction, id).subject
    erased = side.client.delete(f"/v1/subjects/{subject}")
    assert erased.status_code == 200
    counts = erased.json()["counts"]
    assert (counts["interaction"], counts["feedback of others"]) == (1, 1)
    assert (erased.json()["by"], erased.json()["datasets"]) == ("the machine itself", [])
    assert side.log.get(Interaction, id) is None
    assert side.client.post("/v1/feedback", json={"id": id, "value": True}).status_code == 410
    assert side.client.delete("/v1/subjects/carol").status_code == 422


def test_each_path_asks_for_its_scope(tmp_path):
    implies = {Scope.FEEDBACK: (Scope.RATER,)}
    with serving(tmp_path) as running, httpx2.Client(base_url=running.url) as client:
        keys = {}
        for scope in Scope:
            keys[scope], made = auth.create(str(scope), [scope])
            running.log.append(made)
        running.until(lambda: len(running.gateway.keys.keys) == len(keys))
        paths = [
            ("POST", "/v1/feedback", Scope.FEEDBACK, {"id": "a", "value": True}),
            ("DELETE", "/v1/feedback/x", Scope.FEEDBACK, None),
            ("GET", "/v1/feedback?target=a", Scope.READ, None),
            ("POST", "/v1/interactions", Scope.ADMIN, []),
            ("DELETE", f"/v1/subjects/{'0' * 32}", Scope.ADMIN, None),
        ]
        for method, path, needed, body in paths:
            assert client.request(method, path, json=body).status_code == 401
            for scope, key in keys.items():
                status = client.request(method, path, json=body, headers={"X-API-Key": key}).status_code
                assert (status == 403) == (scope not in (needed, Scope.ADMIN, *implies.get(needed, ()))), (
                    path,
                    scope,
                    status,
                )
        assert [type(event) for _, event in running.log.read(Feedback)] == [Rating] * 3
