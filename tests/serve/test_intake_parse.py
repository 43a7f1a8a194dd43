"""Parsing of feedback events: every form, every refusal, and no input that breaks the parser."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.config import FeedbackIntake
from escultor.errors import InputError
from escultor.serve.auth import TokenGrant
from escultor.serve.intake.parse import DAY_S, RESERVED, FeedbackAuthor, parse, without_text
from escultor.store.feedback import event_name, event_target
from escultor.types import (
    Choice,
    Correction,
    Feedback,
    Implicit,
    ImplicitEvent,
    Rating,
    Remark,
    Revocation,
    SourceKind,
)

NOW = 1_800_000_000.0
SETTINGS = FeedbackIntake()
KEY = FeedbackAuthor("the-key", lambda name: f"hash({name})")
BROWSER = FeedbackAuthor("nobody", str, TokenGrant("a", "the-person", ("thumb", "remark", "copy"), NOW + 60))
ABOUT = ("fb", NOW, "a", "hash(u)")


def parsed(body, author=KEY, now=NOW):
    return parse(body, author, SETTINGS, now)


def long(kind, **more):
    return {"kind": kind, "id": "fb", "target": "a", "source": {"id": "u"}, **more}


CHOICE = {"candidates": ["a", "b"], "winner": "a", "shown_order": ["b", "a"]}
EDIT = {"role": "assistant", "content": "better"}
FORMS = [
    (long("boolean", value=True), Rating(*ABOUT, "thumb", True)),
    (long("boolean", name="safe", value=False), Rating(*ABOUT, "safe", False)),
    (long("float", name="helpful", value=0.5), Rating(*ABOUT, "helpful", 0.5)),
    (long("float", value=3), Rating(*ABOUT, "score", 3.0)),
    (long("comment", text="hm"), Remark(*ABOUT, "hm")),
    (long("demonstration", output=EDIT), Correction(*ABOUT, "better")),
    (long("implicit", name="copy"), Implicit(*ABOUT, ImplicitEvent.COPY)),
    (long("revoke", name="thumb"), Revocation(*ABOUT, "thumb")),
    (
        {"kind": "comparison", "id": "fb", "comparison": CHOICE, "source": {"id": "u"}},
        Choice("fb", NOW, "hash(u)", "preference", ("b", "a"), "a"),
    ),
]


@pytest.mark.parametrize(("body", "event"), FORMS, ids=lambda value: getattr(value, "get", str)("kind"))
def test_every_form_becomes_its_record(body, event):
    found = parsed(body)
    assert found.event == event
    assert (found.dated, found.not_kept) == (False, ())


@pytest.mark.parametrize(
    ("value", "more", "kind", "name"),
    [
        (True, {}, Rating, "thumb"),
        (0.25, {}, Rating, "score"),
        (5, {}, Rating, "score"),
        (False, {"name": "safe"}, Rating, "safe"),
        (None, {}, Revocation, "thumb"),
        (None, {"name": "score"}, Revocation, "score"),
    ],
)
def test_the_short_form_is_a_thumb_a_score_or_a_withdrawal(value, more, kind, name):
    event = parsed({"id": "chatcmpl-1", "value": value, **more}).event
    assert (type(event), event_name(event), event_target(event)) == (kind, name, "chatcmpl-1")
    assert event.subject == "the-key"
    assert event.id.startswith("fb-")
    if isinstance(event, Rating):
        assert (event.value, type(event.value)) == (value, bool if isinstance(value, bool) else float)


def test_parts_that_are_not_kept_are_reported():
    body = long("demonstration", name="edit", output=EDIT) | {"source": {"kind": "llm_judge", "version": "2"}}
    found = parsed(body)
    assert found.not_kept == ("source.version", "name")
    assert found.event.source is SourceKind.LLM_JUDGE
    shown = {"kind": "comparison", "target": {"type": "conversation", "id": "c"}, "comparison": CHOICE}
    assert parsed(shown).not_kept == ("target",)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (7, "an event is an object with a `kind`, one of: boolean, float"),
        ({}, "`id`: Field required"),
        (long("categorical", label="x"), "an event is an object with a `kind`"),
        (long("boolean", value=2), 'a thumb has two values; got: 2.0; allowed: up: true, 1 or "up"'),
        ({"id": "a", "value": "fine"}, "a thumb has two values; got: 'fine'"),
        ({"id": "a", "value": None, "comment": "why"}, "a withdrawal has no comment"),
        (long("boolean", value=True, text="why"), "`text` is not a part of this kind of event"),
        (long("boolean", value=True, user="u"), 'the person is named by "source": {"id": …}'),
        ({"id": "a", "value": True, "source": {"id": "u"}}, "the person is named by `user`"),
        (long("float", value=math.nan), "`value`: Input should be a finite number"),
        (long("float", name="thumb", value=0.7), "a thumb has two values"),
        ({"id": "a", "value": 0.5, "name": "thumb"}, "a thumb has two values"),
        (long("boolean", name="correction", value=True), "a name with a meaning of its own"),
        (long("boolean", name="Thumb!", value=True), "`name`: String should match pattern"),
        (long("comment", text=" \n"), "`text`: String should match pattern"),
        (long("comment", text="x" * 70_000), "`text` is too long; got: 70000 characters; allowed: 65536"),
        (long("comment", text="\ud800"), "`text`"),
        (long("demonstration", output={"role": "user", "content": "x"}), "`output.role`"),
        (long("implicit", name="clicked"), "`name`: Input should be 'copy', 'insert_accept'"),
        (
            long("implicit", name="dwell_ms", value=5200),
            "`dwell_ms` is not accepted.*allowed: copy, insert_accept",
        ),
        (long("implicit", name="dwell_ms"), "`dwell_ms` is not accepted"),
        (long("implicit", name="copy", value=1.0), "`copy` has no value; got: 1.0"),
        (long("implicit", name="edit", value=0.2), "`edit` has no value"),
        (long("boolean", value=True) | {"target": {"type": "conversation", "id": "c"}}, "about one answer"),
        (long("boolean", value=True) | {"target": "two words"}, "`target"),
        (long("comparison", comparison=CHOICE | {"winner": "c"}), "the winner is none of the candidates"),
        (long("comparison", comparison=CHOICE | {"shown_order": ["a", "c"]}), "does not show the candidates"),
        (long("comparison", comparison=CHOICE | {"candidates": ["a", "a"]}), "a candidate is given twice"),
        (long("boolean", value=True, ts="yesterday"), "`ts` is no time"),
        (long("boolean", value=True, ts="2027-01-15T08:00:00"), "`ts` is no time"),
        (long("boolean", value=True, ts=NOW + 301), "`ts` is out of range; got: \\+301 s from now"),
        (long("boolean", value=True, ts=NOW - 32 * 86400), "`ts` is out of range"),
    ],
)
def test_invalid_events_are_refused_with_the_reason(body, problem):
    with pytest.raises(InputError, match=problem):
        parsed(body)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_no_rating_has_a_reserved_name(name):
    with pytest.raises(InputError):
        parsed(long("boolean", name=name, value=True))


def test_a_clock_slightly_ahead_counts_as_now_so_that_no_event_outranks_a_later_one():
    assert (parsed(long("revoke", name="thumb", ts=NOW + 200)).event.time) == NOW
    assert not parsed(long("revoke", name="thumb", ts=NOW + 200)).dated
    earlier = parsed(long("revoke", name="thumb", ts=datetime.fromtimestamp(NOW - 60, UTC).isoformat()))
    assert (earlier.event.time, earlier.dated) == (NOW - 60, True)


# --- browsers ---------------------------------------------------------------------------------


def test_an_event_by_token_is_of_the_subject_of_the_token():
    event = parsed({"id": "a", "value": True}, BROWSER).event
    assert (event.subject, event.source) == ("the-person", SourceKind.END_USER)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"id": "b", "value": True}, "the token is for another answer; got: b; allowed: a"),
        ({"id": "a", "value": 0.5}, "the token is not for this; got: score"),
        ({"id": "a", "value": True, "user": "x"}, "a browser's token names the author"),
        ({"kind": "boolean", "target": "a", "value": True, "source": {"kind": "rater"}}, "names the author"),
        ({"kind": "comparison", "comparison": CHOICE}, "the token is for another answer"),
        ({"kind": "demonstration", "target": "a", "output": EDIT}, "not for this; got: correction"),
        ({"kind": "revoke", "target": "a", "name": "preference"}, "not for this; got: preference"),
    ],
)
def test_a_token_allows_one_person_one_answer_and_some_names(body, problem):
    with pytest.raises(InputError, match=problem):
        parsed(body, BROWSER)


def test_the_ids_browsers_send_are_their_own():
    mine = parsed({"kind": "comment", "id": "fb", "target": "a", "text": "x"}, BROWSER).event.id
    other = FeedbackAuthor("", str, TokenGrant("a", "another", ("remark",), NOW + 60))
    assert mine != "fb"
    assert mine == parsed({"kind": "comment", "id": "fb", "target": "a", "text": "x"}, BROWSER).event.id
    assert mine != parsed({"kind": "comment", "id": "fb", "target": "a", "text": "x"}, other).event.id


# --- anything at all --------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
KEYS = ["id", "value", "kind", "target", "name", "ts", "source", "text", "output", "comparison", "x"]
WORDS = ["a", "thumb", "boolean", "comment", "revoke", "implicit"]
VALUES = json_values | st.sampled_from([*WORDS, CHOICE, EDIT])


@pytest.mark.parametrize("up", [True, 1, 1.0, "up", "Thumbs_Up "])
@pytest.mark.parametrize("down", [False, 0, -1, "down", "dislike"])
def test_every_scale_of_two_values_is_a_thumb(up, down):
    for value in (up, down):
        for body in ({"id": "a", "value": value}, long("boolean", value=value)):
            event = parsed(body).event
            assert isinstance(event, Rating)
            assert (event.name, event.value) == ("thumb", value is up)
    assert event_name(parsed({"id": "a", "value": 0.7}).event) == "score"
    stars = parsed({"id": "a", "value": 1, "name": "stars"}).event
    assert isinstance(stars, Rating)
    assert stars.value == 1.0


def test_a_rating_with_a_comment_is_a_rating_and_a_remark():
    found = parsed({"id": "a", "value": "down", "comment": "too long"})
    rating, remark = found.events
    assert (rating.value, remark.text, remark.id) == (False, "too long", f"{rating.id}.remark")
    assert (remark.target, remark.subject, remark.time) == (rating.target, rating.subject, rating.time)
    assert without_text(found).not_kept == ("comment",)


def test_who_may_import_brings_events_of_any_age():
    author = replace(KEY, may_import=True)
    assert parsed(long("boolean", value=True, ts=NOW - 900 * 86400), author).event.time == NOW - 900 * 86400


@settings(max_examples=300, deadline=None)
@given(json_values | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), st.booleans())
def test_any_json_becomes_an_event_in_bounds_or_is_refused_with_a_message(body, browser):
    author = BROWSER if browser else KEY
    try:
        event = parsed(body, author).event
    except InputError as error:
        problem = str(error)
    else:
        problem = None
    if problem is not None:
        assert 0 < len(problem) < 2000
        return
    assert isinstance(event, Feedback)
    assert NOW - SETTINGS.max_age_days * 86400 <= event.time <= NOW
    if browser:
        assert (event.subject, event_target(event)) == ("the-person", "a")
        assert event_name(event) in BROWSER.grant.names


def test_a_browser_has_judged_nothing_before_it_had_the_answer():
    """Else a newcomer could say that a first word was a month old."""
    body = {"kind": "boolean", "target": "a", "value": True, "ts": NOW - 20 * DAY_S}
    until = NOW + (SETTINGS.token_days - 1) * DAY_S  # the answer is a day old
    grant = TokenGrant("a", "the-person", ("thumb",), until)
    assert parsed(body, FeedbackAuthor("", str, grant)).event.time == NOW - DAY_S
    assert parsed(body).event.time == NOW - 20 * DAY_S  # an application's key is believed
