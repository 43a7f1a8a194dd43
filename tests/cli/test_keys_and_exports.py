"""Keys are shown once and end when told; everything recorded comes out again."""

import json
from dataclasses import replace

import pytest

from escultor.serve.auth import Keyring
from escultor.store import open_store
from escultor.types import (
    Choice,
    Consent,
    Erasure,
    Feedback,
    Interaction,
    KeyEvent,
    Message,
    Rating,
    Role,
    Sampling,
    Usage,
)


def interaction(id):
    return Interaction(
        *(id, 1.0, "chat", "s", "v", "champion", 1.0, (Message(Role.USER, "olá\u2028"),), "answer", "stop"),
        *(Sampling(), Usage(1, 2), 3.0, None, 0.0, "hash"),
    )


@pytest.fixture
def store(tmp_path):
    with open_store(str(tmp_path / "escultor-store")) as opened:
        yield opened


def test_a_key_is_shown_once_listed_without_its_secret_and_ended(cli, store):
    made = cli("keys", "create", "the app", "--scope", "infer", "--scope", "read", "--json").data
    ring = Keyring(event for _, event in store.log.read(KeyEvent))
    assert ring.authenticate(made["key"], "infer").key == made["id"]
    listed = cli("keys", "list", "--json")
    assert made["key"] not in listed.out
    assert [key["name"] for key in listed.data["keys"]] == ["the app"]
    assert cli("keys", "revoke", made["id"], "--json").data == {"revoked": made["id"]}
    assert cli("keys", "list", "--json").data == {"keys": [], "guarded": True}
    assert cli("keys", "revoke", made["id"]).code == 2


def test_a_key_has_limits_and_gets_a_new_secret(cli, store):
    words = "--models gpt-* --tokens-per-day 1000 --usd-per-month 2.5 --expires 2999-01-31"
    options = words.split()
    made = cli("keys", "create", "the app", *options, "--json").data
    limits = {"models": ["gpt-*"], "tokens_per_day": 1000, "usd_per_month": 2.5, "expires": 32474736000.0}
    assert made["limits"] == limits
    assert cli("keys", "list", "--json").data["keys"][0]["limits"] == limits
    rotated = cli("keys", "rotate", made["id"], "--overlap-hours", "1", "--json").data
    ring = Keyring(event for _, event in store.log.read(KeyEvent))
    for key in (made["key"], rotated["key"]):
        assert ring.authenticate(key, "infer").limits.tokens_per_day == 1000
    ended = cli("keys", "rotate", made["id"], "--json").data
    ring = Keyring(event for _, event in store.log.read(KeyEvent))
    assert ring.holder(rotated["key"], "infer") is None
    assert ring.holder(ended["key"], "infer").id == made["id"]
    assert made["key"] not in cli("keys", "list").out


def test_a_key_files_its_requests_under_a_skill_that_is_known(cli, store):
    made = cli("keys", "create", "the app", "--skill", "synthesize", "--json").data
    assert made["skill"] == "synthesize"
    (listed,) = cli("keys", "list", "--json").data["keys"]
    assert listed["skill"] == "synthesize"
    refused = cli("keys", "create", "another", "--skill", "nothing")
    assert (refused.code, "no skill of this name" in refused.err) == (2, True)
    assert len(cli("keys", "list", "--json").data["keys"]) == 1


REFUSED = "create x --scope all", "create", "revoke nothing", "rotate nothing", "create x --expires soon"


@pytest.mark.parametrize("words", [("create", " "), *(each.split() for each in REFUSED)])
def test_keys_that_cannot_be(cli, store, words):
    assert cli("keys", *words).code == 2


def test_everything_recorded_comes_out_line_by_line_and_goes_on_from_a_number(cli, store, tmp_path):
    store.log.append(interaction("a"), interaction("b"))
    store.log.append(
        Rating("r", 1.0, "a", "s", "thumb", True), Choice("c", 1.0, "s", "best", ("a", "b"), None)
    )
    rows = [json.loads(line) for line in cli("interactions", "export").out.split("\n")[:-1]]
    assert [(row["seq"], row["type"], row["id"]) for row in rows] == [
        (1, "interaction", "a"),
        (2, "interaction", "b"),
    ]
    assert rows[0]["messages"] == [{"role": "user", "content": "olá\u2028"}]
    done = cli("feedback", "export", "--after", "3", "--out", "deep/out.jsonl", "--json").data
    assert done == {"rows": 1, "last_seq": 4, "out": "deep/out.jsonl"}
    (line,) = (tmp_path / "deep" / "out.jsonl").read_text().splitlines()
    assert json.loads(line)["shown_order"] == ["a", "b"]
    assert cli("interactions", "count", "--json").data == {"count": store.log.count(Interaction)}
    assert cli("feedback", "count").out.strip() == str(store.log.count(Feedback))
    assert cli("feedback", "export", "--json").code == 2


def test_an_export_for_a_use_holds_the_answers_whose_consent_allows_it(cli, store):
    store.log.append(*(replace(interaction(consent), consent=consent) for consent in Consent))

    def exported(*words):
        return [json.loads(line)["id"] for line in cli("interactions", "export", *words).out.split("\n")[:-1]]

    assert exported() == ["train", "eval_only", "none"]
    assert exported("--for", "training") == ["train"]
    assert exported("--for", "evaluation") == ["train", "eval_only"]


def test_answers_whose_retention_is_over_are_purged_with_their_feedback(cli, store):
    store.log.append(replace(interaction("old"), retain_until=2.0), interaction("kept"))
    store.log.append(Rating("r", 1.0, "old", "s", "thumb", True))
    purged = cli("interactions", "purge", "--json").data
    assert purged["counts"] == {"interaction": 1, "feedback": 1}
    assert purged["datasets"] == []
    assert [i.id for _, i in store.log.read(Interaction)] == ["kept"]
    assert [e.by for _, e in store.log.read(Erasure)] == ["retention"]
    assert cli("interactions", "purge", "--json").data["counts"] == {"interaction": 0, "feedback": 0}
