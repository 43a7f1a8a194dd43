"""Answers are in the log before delivery, with metadata and cost; access, rates, retention, switches."""

import asyncio
import socket
from dataclasses import replace

import httpx2
import pytest
from gateway_side import Fake, deployment, gateway_of, running, serving

from escultor.errors import EngineFault, InputError, Overloaded, StoreError, TooLong, UpstreamFault
from escultor.serve.auth import create
from escultor.types import Consent, Deployment, Feedback, Interaction, KeyRevoked, Lineage, Relation, Scope

HELLO = {"model": "escultor", "messages": [{"role": "user", "content": "Olá?"}]}
STREAM = {**HELLO, "stream": True}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("gateway"), prices={"v1": (1.0, 2.0)}) as running:
        yield running


def post(side, body, path=CHAT, **more):
    return httpx2.post(side.url + path, json=body, timeout=120, **more)


def row_of(side, answer) -> Interaction:
    found = side.log.get(Interaction, answer.json()["id"])
    assert found is not None
    return found


def test_an_answer_has_its_row_before_it_arrives(side):
    answer = post(side, {**HELLO, "seed": 3, "temperature": 1.5, "top_p": 0.5, "max_tokens": 2})
    row, said = row_of(side, answer), answer.json()["choices"][0]
    assert (said["message"]["content"], said["finish_reason"]) == (row.answer, row.finish_reason)
    assert (row.answer, row.finish_reason) == ("Olá ", "length")
    assert (row.sampling.seed, row.sampling.temperature, row.sampling.top_p) == (3, 1.5, 0.5)
    assert row.cost_usd == pytest.approx(7 / 1000 * 1.0 + 2 / 1000 * 2.0)
    assert (row.version, row.arm, row.propensity) == ("v1", "champion", 1.0)
    headers = answer.headers
    assert (headers["x-escultor-version"], headers["x-escultor-arm"]) == ("v1", "champion")
    assert side.gateway.tokens.read(headers["x-escultor-feedback-token"], 0.0).target == row.id


def test_several_choices_are_rows_of_their_own_with_tokens_of_their_own(side):
    choices = post(side, {**HELLO, "n": 3, "temperature": 1}).json()["choices"]
    rows = [side.log.get(Interaction, choice["escultor"]["id"]) for choice in choices]
    assert len({row.sampling.seed for row in rows}) == 3
    assert len({row.prompt_hash for row in rows}) == 1
    tokens = [choice["escultor"]["feedback_token"] for choice in choices]
    assert [side.gateway.tokens.read(t, 0.0).target for t in tokens] == [row.id for row in rows]


def test_a_user_is_stored_as_a_salted_hash_and_so_is_a_request_without_one(side):
    named = row_of(side, post(side, {**HELLO, "user": "maria@example.org"}))
    header = row_of(side, post(side, HELLO, headers={"x-escultor-subject": "maria@example.org"}))
    nobody = row_of(side, post(side, HELLO))
    assert named.subject == header.subject == side.gateway.subjects.subject("maria@example.org")
    assert nobody.subject not in (named.subject, "")
    log = (side.gateway.store.root / "log.db").read_bytes()
    log += (side.gateway.store.root / "log.db-wal").read_bytes()
    assert named.subject.encode() in log
    assert b"maria" not in log


def test_metadata_comes_by_header_or_body_and_unknown_keys_are_reported(side):
    terms = {
        "escultor_parent": "chatcmpl-1",
        "escultor_relation": "regenerate",
        "escultor_consent": "eval_only",
        "escultor_retain_days": "30",
        "escultor_skill": "faq",
    }
    answer = post(side, {**HELLO, "metadata": {**terms, "team": "blue"}})
    row = row_of(side, answer)
    assert row.lineage == Lineage("chatcmpl-1", Relation.REGENERATE)
    assert (row.consent, row.skill) == (Consent.EVAL_ONLY, "faq")
    assert 29 * 86400 < row.retain_until - row.time < 31 * 86400
    assert answer.headers["x-escultor-ignored"] == "metadata.team"
    assert row_of(side, post(side, {**HELLO, "store": False})).consent == Consent.NONE
    headers = {"x-escultor-consent": "none", "x-escultor-parent": "p"}
    other = row_of(side, post(side, HELLO, headers=headers))
    assert (other.consent, other.lineage.relation) == (Consent.NONE, Relation.CONTINUE)


@pytest.mark.parametrize(
    ("name", "value"), [("consent", "maybe"), ("relation", "edit_prompt"), ("skill", "a b")]
)
def test_invalid_metadata_is_refused(side, name, value):
    answer = post(side, HELLO, headers={f"x-escultor-{name}": value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_completions_score_what_they_echo_and_are_for_evaluation_only(side):
    answer = post(
        side, {"model": "v1", "prompt": "a b c", "echo": True, "logprobs": 1, "max_tokens": 1}, COMPLETIONS
    )
    (choice,) = answer.json()["choices"]
    logprobs = choice["logprobs"]
    assert choice["text"] == "a b cOlá"
    assert logprobs["token_logprobs"] == [None, -0.5, -0.5, -0.5]
    assert [choice["text"][o:] for o in logprobs["text_offset"]] == ["a b cOlá", " b cOlá", " cOlá", "Olá"]
    assert logprobs["top_logprobs"][0] is None
    assert row_of(side, answer).consent == Consent.EVAL_ONLY


def test_a_prompt_may_be_scored_alone(side):
    alone = {"model": "v1", "prompt": "a b c", "max_tokens": 0}
    (choice,) = post(side, {**alone, "echo": True, "logprobs": 1}, COMPLETIONS).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("a b c", "length")
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5, -0.5]
    assert post(side, alone, COMPLETIONS).status_code == 400


def test_lists_and_token_ids_are_prompts_too(side):
    def texts(prompt, **more):
        answer = post(side, {"model": "v1", "prompt": prompt, "max_tokens": 1, **more}, COMPLETIONS)
        return [choice["index"] for choice in answer.json()["choices"]], answer.json()["usage"][
            "prompt_tokens"
        ]

    assert texts(["a", "b"], n=2) == ([0, 1, 2, 3], 14)
    assert texts([1, 2, 3]) == ([0], 7)
    assert texts([[1], [2]]) == ([0, 1], 14)
    assert side.engine.asks[-1].prompt == (2,)


PICTURE = [
    {"type": "text", "text": "What?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
]

REFUSED = [
    (
        {**HELLO, "messages": [{"role": "user", "content": PICTURE}]},
        400,
        "messages",
        "`messages.0.content`: this model reads text only; got a part of the type 'image_url'",
    ),
    ({**HELLO, "temprature": 1}, 400, "temprature", "`temperature`"),
    ({**HELLO, "presence_penalty": 0.5}, 400, "presence_penalty", "not implemented"),
    ({**HELLO, "tools": [{"type": "function"}]}, 400, "tools", "required"),
    ({**HELLO, "model": "gpt-4o"}, 404, "model", "escultor"),
    ({**HELLO, "n": 0}, 400, "n", "greater"),
    ({**HELLO, "top_logprobs": 3}, 400, None, "logprobs: true"),
    ({**HELLO, "stream_options": {}}, 400, None, "stream: true"),
    ({**HELLO, "max_tokens": 1, "max_completion_tokens": 2}, 400, None, "give one"),
    ({**HELLO, "user": "x" * 999}, 400, None, "1 to 256"),
    ({"model": "escultor"}, 400, "messages", "required"),
    ([], 400, None, "dictionary"),
]


@pytest.mark.parametrize(("body", "status", "param", "said"), REFUSED)
def test_invalid_requests_are_refused_in_openais_format(side, body, status, param, said):
    answer = post(side, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert said in error["message"]


NEUTRAL = {
    "presence_penalty": 0,
    "logit_bias": {},
    "tools": [],
    "n": 1,
    "frequency_penalty": 0.0,
    "stop": None,
}


def test_values_without_effect_are_accepted(side):
    assert post(side, {**HELLO, **NEUTRAL, "tool_choice": "none", "modalities": ["text"]}).status_code == 200


def test_what_client_libraries_add_to_an_answer_may_be_sent_back(side):
    added = {"provider_specific_fields": {"refusal": None}, "thinking_blocks": [], "reasoning_details": [{}]}
    said = {"role": "assistant", "content": "Olá", "reasoning": "greet", "parsed": None, **added}
    messages = [*HELLO["messages"], said, *HELLO["messages"]]
    assert post(side, {**HELLO, "messages": messages}).status_code == 200
    assert side.engine.asks[-1].prompt[1].reasoning == "greet"


BODIES = [
    (b"{", 400, "not JSON"),
    (b'{"model": "escultor", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, "not JSON"),
    (b'{"model": "escultor", "temperature": NaN, "messages": []}', 400, "not JSON"),
    (b"[" * 100_000, 400, "deeper"),
    (b'{"a": ' * 50_000, 400, "deeper"),
    (b"\xff\xfe", 400, "not JSON"),
    (b"x" * 9_000_000, 413, "larger"),
]


@pytest.mark.parametrize(("body", "status", "said"), BODIES)
def test_malicious_bodies_are_refused(side, body, status, said):
    answer = httpx2.post(side.url + CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_a_client_that_sends_on_after_a_refusal_still_reads_it(side):
    host, port = side.url.removeprefix("http://").split(":")
    header = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=120) as client:
        client.sendall(f"{header}Content-Length: 9000000\r\n\r\n".encode())
        answer = client.recv(1, socket.MSG_PEEK)  # the refusal is here before the body is sent
        for _ in range(9):
            client.sendall(b"x" * 1_000_000)
        while piece := client.recv(65536):
            answer += piece
    assert b"413" in answer
    assert b"larger than 8 MB" in answer


def test_brackets_within_strings_do_not_count_as_depth(side):
    assert post(side, {**HELLO, "user": "[" * 200}).status_code == 200


def test_an_error_does_not_repeat_a_long_path(side):
    answer = httpx2.get(f"{side.url}/{'a' * 30_000}")
    assert (answer.status_code, len(answer.content) < 1000) == (404, True)


def test_unknown_paths_methods_and_media_types_are_refused(side):
    paths = (
        httpx2.get(side.url + "/v1/nothing"),
        httpx2.get(side.url + CHAT),
        httpx2.post(side.url + CHAT, data={"a": "b"}),
    )
    assert [answer.status_code for answer in paths] == [404, 405, 415]
    assert paths[1].headers["allow"] == "OPTIONS, POST"
    assert all(set(answer.json()["error"]) == {"message", "type", "param", "code"} for answer in paths)


def test_no_request_is_sent_on_to_the_host_that_it_names(side):
    for path in (CHAT, "/health", "/v1/feedback/x"):
        answer = httpx2.post(f"{side.url}{path}/", json=HELLO, headers={"Host": "localhost:1"})
        assert (answer.status_code, "location" in answer.headers) == (404, False)


def test_every_response_has_an_id_and_the_security_headers(side):
    answer = post(side, HELLO, headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert post(side, HELLO, headers={"x-request-id": "no good"}).headers["x-request-id"].startswith("req-")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_another_hosts_page_is_not_served_without_keys(side):
    answer = post(side, HELLO, headers={"host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


# --- engines that fail ------------------------------------------------------------------------

FAULTS = [
    (InputError("no such token"), 400, "invalid_value", 0),
    (TooLong("the prompt does not fit"), 400, "context_length_exceeded", 0),
    (Overloaded("too much waits"), 503, "overloaded", 0),
    (UpstreamFault("the server behind hung"), 502, "upstream_failed", 1),
    (EngineFault("it broke"), 500, "engine_failed", 1),
    (ZeroDivisionError("secret words"), 500, "internal", 1),
]


@pytest.mark.parametrize(("fault", "status", "code", "rows"), FAULTS)
def test_an_engines_error_is_reported_and_its_failures_are_recorded(tmp_path, fault, status, code, rows):
    with serving(tmp_path, Fake(fail=fault)) as side:
        answer = post(side, HELLO)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert "secret" not in answer.text
        side.until(lambda: len(side.rows()) == rows)
        assert {row.finish_reason for row in side.rows()} <= {"error"}
        assert post(side, STREAM).status_code == status
        side.until(lambda: len(side.rows()) == 2 * rows)
        assert side.pending() == []  # nothing was begun


# --- stores that fail -------------------------------------------------------------------------


def break_store(side, monkeypatch):
    def full(groups):
        raise StoreError("could not write to the store /secret/place", "disk full")

    monkeypatch.setattr(side.log, "append_each", full)


def test_an_answer_that_cannot_be_recorded_is_not_delivered(tmp_path, monkeypatch):
    with serving(tmp_path) as side:
        break_store(side, monkeypatch)
        for body in (HELLO, STREAM):
            answer = post(side, body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_failed")
            assert "secret" not in answer.text
            assert "Olá" not in answer.text


def test_an_unrecorded_answer_is_delivered_and_counted_where_the_setting_allows_it(tmp_path, monkeypatch):
    with serving(tmp_path, on_store_failure="answer") as side:
        break_store(side, monkeypatch)
        assert post(side, HELLO).status_code == 200
        assert post(side, STREAM).text.endswith("data: [DONE]\n\n")
        health = httpx2.get(side.url + "/health").json()
        assert (health["status"], health["unlogged_answers"]) == ("degraded", 2)


def test_without_keep_text_no_text_is_stored(tmp_path):
    with serving(tmp_path, keep_text=False) as side:
        one, two = row_of(side, post(side, HELLO)), row_of(side, post(side, STREAM | {"stream": False}))
        assert (one.messages[0].content, one.answer) == ("[4 characters]", "[11 characters]")
        assert one.prompt_hash == two.prompt_hash
        assert one.consent == Consent.NONE
        assert one.usage.completion_tokens == 5


def test_without_keep_text_no_prompt_answer_feedback_or_import_leaves_text_on_disk(tmp_path):
    secret, path = "quagga", "/v1/feedback"
    asked = {**HELLO, "messages": [{"role": "user", "content": f"a {secret}?"}]}
    with serving(tmp_path, Fake(words=("a ", secret)), keep_text=False) as side:
        about = {"target": row_of(side, post(side, asked)).id}
        assert post(side, {**asked, "stream": True}).text.count(secret) == 1
        remark = {"kind": "comment", **about, "text": f"no {secret}"}
        better = {"kind": "demonstration", **about, "output": {"content": f"the {secret}"}}
        assert post(side, remark, path).json()["not_kept"] == ["text"]
        assert post(side, [better], path).json()["results"][0]["not_kept"] == ["output.content"]
        call = {"id": "call-1", "version": "m", "time": 1.0, "user": "ann", "answer": secret}
        told = post(side, {**call, "messages": asked["messages"]}, "/v1/interactions").json()
        assert told["accepted"] == 1, told
        files = [file for file in (tmp_path / "store").rglob("*") if file.is_file()]
        assert any(b"[8 characters]" in file.read_bytes() for file in files)
        assert not [file for file in files if secret.encode() in file.read_bytes()]


# --- keys and rates ---------------------------------------------------------------------------


def key_for(side, *scopes):
    key, made = create("a test", scopes)
    side.log.append(made)
    side.until(lambda: made.id in side.gateway.keys.keys)
    return key, made


def test_keys_allow_what_their_scopes_cover_until_they_are_revoked(tmp_path):
    with serving(tmp_path) as side:
        key, made = key_for(side, Scope.INFER)
        reader, _ = key_for(side, Scope.READ)
        bearer = {"authorization": f"Bearer {key}"}
        assert post(side, HELLO, headers=bearer).status_code == 200
        assert [row.tenant for _, row in side.log.read(Interaction)] == [made.id]
        assert post(side, HELLO, headers={"x-api-key": key, "host": "any.example"}).status_code == 200
        for headers, status in [
            ({}, 401),
            ({"authorization": f"Bearer {key[:-1]}x"}, 401),
            ({"authorization": "Bearer ção".encode()}, 401),
            ({"authorization": f"Bearer {reader}"}, 403),
        ]:
            answer = post(side, HELLO, headers=headers)
            assert answer.status_code == status
            assert key not in answer.text
        side.log.append(KeyRevoked("r", 2.0, made.id))
        side.until(lambda: made.id not in side.gateway.keys.keys)
        assert post(side, HELLO, headers=bearer).status_code == 401
        assert key.encode() not in (side.gateway.store.root / "log.db-wal").read_bytes()


def test_the_text_of_a_problem_is_shown_to_keys_that_may_read(tmp_path):
    with serving(tmp_path, holds=deployment("v1", "secret", 0.5)) as side:  # there is no such engine

        def told(key=""):
            return httpx2.get(side.url + "/health", headers={"x-api-key": key}).json()["problem"]

        assert "secret" in told()
        (reader, _), (asker, _) = key_for(side, Scope.READ), key_for(side, Scope.INFER)
        assert "secret" in told(reader)
        assert told() == told(asker) == "the server's log has the details"


def test_health_reports_an_engine_that_died(tmp_path):
    with serving(tmp_path) as side:
        health = lambda: httpx2.get(side.url + "/health").json()  # noqa: E731
        assert (health()["status"], health()["problem"]) == ("ok", None)
        side.engine.problem = "it has ended"
        reply = health()
        assert reply["status"] == "degraded"
        assert reply["problem"].startswith("the engine of v1 died: it has ended")


def test_rates_hold_per_key_and_per_subject(tmp_path):
    with serving(tmp_path, rate_per_subject=0.01, burst=2) as side:
        answers = [post(side, {**HELLO, "user": user}) for user in "aaabb"]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 200, 200]
        assert 90 <= int(answers[2].headers["retry-after"]) <= 100
        assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"


def test_requests_of_named_users_count_once_against_their_own_key(tmp_path):
    with serving(tmp_path, rate_per_key=0.01, burst=2) as side:
        (first, _), (second, _) = key_for(side, Scope.INFER), key_for(side, Scope.INFER)
        for key in (first, second):
            answers = [post(side, {**HELLO, "user": "ann"}, headers={"x-api-key": key}) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]


# --- retention --------------------------------------------------------------------------------


def test_a_gateway_purges_answers_whose_retention_is_over_and_feedback_on_them_is_refused(tmp_path):
    with serving(tmp_path) as side:
        kept = post(side, {**HELLO, "metadata": {"escultor_retain_days": "1"}}).json()["id"]
        gone = row_of(side, post(side, HELLO))
        expired = replace(gone, id="chatcmpl-old", retain_until=1.0)
        side.log.append(expired)
        store_root = side.gateway.store.root
    gateway, known = gateway_of(tmp_path)
    assert gateway.store.root == store_root
    with running(gateway, known) as side:
        side.until(lambda: [row.id for row in side.rows()] == [kept, gone.id])
        event = {"target": "chatcmpl-old", "kind": "comment", "text": "late"}
        assert post(side, event, "/v1/feedback").status_code == 410
    gateway.store.close()


def test_the_log_is_purged_in_pieces_that_find_what_a_whole_search_finds(tmp_path, monkeypatch):
    monkeypatch.setattr("escultor.serve.gateway.gateway.PURGE_ROWS", 2)
    with serving(tmp_path) as side:
        row = row_of(side, post(side, HELLO))
        ends = (None, 1.0, 1.0, None, 9e12, 1.0, None, 9e12)
        side.log.append(*(replace(row, id=f"chatcmpl-{n}", retain_until=end) for n, end in enumerate(ends)))
        resume = asyncio.run(side.gateway._purge_behind(0))
        left = {row.id for row in side.rows()} - {row.id}
        assert left == {f"chatcmpl-{n}" for n, end in enumerate(ends) if end != 1.0}
        first_kept = next(seq for seq, row in side.log.read(Interaction) if row.retain_until is not None)
        assert resume == first_kept - 1
        assert asyncio.run(side.gateway._purge_behind(resume)) == resume


# --- deployments ------------------------------------------------------------------------------


def test_a_new_deployment_answers_without_a_restart_and_shadows_are_kept_unseen(tmp_path):
    with serving(tmp_path, Fake("v1"), Fake("v2", ("two",))) as side:
        side.log.append(deployment("v1", "v2", id="dep-1"))
        side.until(lambda: side.gateway.deployments.active.deployment.id == "dep-1")
        answer = post(side, STREAM)
        assert answer.headers["x-escultor-version"] == "v1"
        assert "two" not in answer.text
        side.until(lambda: len(side.rows()) == 2)
        seen, shadow = side.rows()
        assert (shadow.version, shadow.arm, shadow.answer) == ("v2", "shadow", "two")
        assert (shadow.id, shadow.prompt_hash) == (f"{seen.id}-shadow", seen.prompt_hash)
        side.log.append(Deployment("dep-2", 2.0, {"v2": 1.0}, {"champion": "v2", "previous": "v1"}, "better"))
        side.until(lambda: post(side, HELLO).headers["x-escultor-version"] == "v2")


def test_nothing_that_people_say_or_do_lands_on_an_answer_in_shadow(tmp_path):
    with serving(tmp_path, Fake("v1"), Fake("v2", ("two",)), holds=deployment("v1", "v2")) as side:
        first = row_of(side, post(side, HELLO))
        metadata = {"message": "m-1", "parent": first.id, "relation": "regenerate"}
        headers = {f"x-escultor-{name}": value for name, value in metadata.items()}
        seen = row_of(side, post(side, HELLO, headers=headers))
        side.until(lambda: len(side.rows()) == 4)
        shadow = side.log.get(Interaction, f"{seen.id}-shadow")
        assert (seen.message, seen.lineage) == ("m-1", Lineage(first.id, Relation.REGENERATE))
        assert (shadow.arm, shadow.message, shadow.lineage) == ("shadow", "", None)
        thumb = {"kind": "boolean", "value": True}
        targets = ("m-1", shadow.id, f"chatcmpl-{'0' * 24}-shadow", "my-own-shadow")
        told = post(side, [thumb | {"target": target} for target in targets], "/v1/feedback").json()
        assert [result["status"] for result in told["results"]] == [
            "accepted", "refused", "refused", "accepted",
        ]  # fmt: skip
        assert "nobody saw this answer" in told["results"][1]["error"]
        assert [event.target for _, event in side.log.read(Feedback)] == [seen.id, "my-own-shadow"]


def test_shadows_never_delay_and_are_capped(tmp_path):
    held = Fake("v2")
    with serving(tmp_path, Fake("v1"), held, holds=deployment("v1", "v2"), shadow_in_flight=2) as side:
        held.gate = asyncio.Semaphore(0)
        assert [post(side, HELLO).status_code for _ in range(5)] == [200] * 5
        side.until(lambda: held.under_way == 2)
        assert side.gateway.shadows_left_out == 3
        side.release()
        side.until(lambda: sum(row.arm == "shadow" for row in side.rows()) == 2)


def test_the_split_is_logged_with_its_propensity(tmp_path):
    with serving(tmp_path, Fake("v1"), Fake("v2"), holds=deployment("v1", "v2", 0.4)) as side:
        rows = [row_of(side, post(side, {**HELLO, "user": f"u{n}"})) for n in range(30)]
        assert {(row.arm, row.propensity) for row in rows} == {("champion", 0.6), ("candidate", 0.4)}
        again = row_of(side, post(side, {**HELLO, "user": "u0"}))
        assert again.arm == rows[0].arm
