"""Signed links: made for one person, sent to that person alone, used once, and for some days."""

import json
import re
import sys
from pathlib import Path

import httpx2
import pytest

from escultor.config import Config
from escultor.cycle.approval_requests import ask_approvers
from escultor.errors import ConfigError, InputError
from escultor.monitor.notify import webhook_body
from escultor.serve.approval_links import LINK_S, approval_link, open_link
from escultor.serve.auth import create, revoke
from escultor.store.cycles import recorded_cycle
from escultor.types import CycleEvent, KeyCreated, Scope

sys.path.append(str(Path(__file__).parents[1] / "serve"))

from gateway_side import serving

NOW = 1_790_000_000.0


def key(store, name="Ana", *scopes) -> KeyCreated:
    _, record = create(name, scopes or (Scope.APPROVE,))
    store.log.append(record)
    return record


def waiting(store, id="cycle-1"):
    made = {"candidate": "new", "verdict": "verdict-1"}
    store.log.append(
        CycleEvent(f"{id}-0", NOW, id, "animal", "running", reason="begun", champion="old"),
        CycleEvent(f"{id}-1", NOW, id, "animal", "waiting", reason="<b>by & by</b>", **made),
    )
    return recorded_cycle(store, id)


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def store(side):
    return side.gateway.store


def config(**cycle) -> Config:
    return Config.model_validate({"cycle": {"public_url": "http://g/", **cycle}})


def link_of(side, cycle, person, now=None):
    import time

    return approval_link(side.gateway.store.root, side.url, cycle.id, person.id, now or time.time())


def test_the_page_decides_for_the_person_of_the_link_once(side, store):
    cycle, ana = waiting(store), key(store)
    link = link_of(side, cycle, ana)
    for _ in range(2):  # programs that look into mail open links as well
        page = httpx2.get(link)
        assert page.status_code == 200
        assert "You are Ana" in page.text
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
    assert recorded_cycle(store, cycle.id).state == "waiting"
    for form in ({}, {"decision": "approve"}, {"decision": "maybe", "reason": "x"}, {"reason": "x" * 501}):
        assert httpx2.post(link, data=form).status_code == 422
    assert httpx2.post(link, data={"reason": "x" * 9000}).status_code == 413
    assert recorded_cycle(store, cycle.id).state == "waiting"
    done = httpx2.post(link, data={"decision": "approve", "reason": "it is good"})
    assert (done.status_code, "is approved" in done.text) == (200, True)
    last = recorded_cycle(store, cycle.id).last
    assert (last.state, last.reason) == ("approved", "it is good")
    assert last.by == f"Ana (key {ana.id}, by a signed link)"
    again = httpx2.post(link, data={"decision": "reject", "reason": "no"})
    assert (again.status_code, "does not wait" in again.text) == (401, True)
    assert recorded_cycle(store, cycle.id).state == "approved"


def test_a_link_that_is_changed_old_or_of_a_person_who_may_no_more_opens_nothing(side, store):
    cycle, ana, eve = waiting(store, "cycle-2"), key(store), key(store, "Eve", Scope.READ)
    link, form = link_of(side, cycle, ana), {"decision": "approve", "reason": "x"}
    payload, mac = link.rsplit("/", 1)[1].split(".")
    others = [f"{side.url}/approvals/{payload}.{'A' * len(mac)}", f"{link}A", f"{side.url}/approvals/x"]
    others += [link_of(side, cycle, ana, NOW - LINK_S), link_of(side, cycle, eve)]
    feedback = f"{side.url}/approvals/{side.gateway.tokens._key.hex()}"
    for bad in (*others, feedback):
        assert httpx2.get(bad).status_code == 401, bad
        assert httpx2.post(bad, data=form).status_code == 401, bad
    from escultor.serve.auth import Keyring
    from escultor.types import KeyEvent

    store.log.append(revoke(Keyring(event for _, event in store.log.read(KeyEvent)), ana.id))
    assert httpx2.post(link, data=form).status_code == 401
    assert recorded_cycle(store, cycle.id).state == "waiting"


def test_each_approver_is_sent_a_link_of_their_own_until_it_has_arrived(store):
    sent, ana = [], key(store)
    key(store, "Bob")
    asked = config(approvers={"Ana": "https://a/x", "Bob": "https://b/y", "Carl": "https://c"})
    cycle = waiting(store, "cycle-3")

    def send(receiver, alerts):
        if receiver.startswith("https://b") and len(sent) < 2:
            sent.append(("lost", ""))
            raise OSError("away")
        sent.append((receiver, json.dumps(webhook_body(alerts))))

    lines = ask_approvers(store, asked, cycle, NOW, send)
    assert lines[0] == "Bob could not be asked to approve: https://b/…: away"
    assert "Carl is asked to approve, and has no key" in lines[1]
    assert len(ask_approvers(store, asked, cycle, NOW + 60, send)) == 1
    assert ask_approvers(store, asked, cycle, NOW + 120, send)[0].startswith("Carl")
    assert [receiver for receiver, _ in sent] == ["https://a/x", "lost", "https://b/y"]
    token = re.search(r"http://g/approvals/([\w.-]+)", sent[0][1])[1]
    opened = open_link(store, token, NOW + 1)
    assert (opened.person.name, opened.cycle.id) in {("Ana", "cycle-3")}
    assert ana.name == "Ana"


def test_approvers_need_the_address_of_the_gateway():
    with pytest.raises((ConfigError, InputError, ValueError), match="public_url"):
        config(public_url=None, approvers={"Ana": "https://a"})
