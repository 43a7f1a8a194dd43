"""Feedback intake: durable when acknowledged, idempotent on id, one result for each event."""

import asyncio

import pytest

from escultor.config import FeedbackIntake
from escultor.errors import DataError, InputError, StoreError
from escultor.feedback.raw_log import IMPLICIT
from escultor.serve.intake.intake import Intake
from escultor.serve.intake.parse import FeedbackAuthor
from escultor.serve.writer import Writer
from escultor.store import open_store
from escultor.store.feedback import TELLING_EVENTS
from escultor.types import Choice, Feedback, Interaction, Message, Rating, Revocation, Role, Sampling, Usage

KEY = FeedbackAuthor("the-key", lambda name: f"hash({name})")


def answer(id: str, subject: str = "ann") -> Interaction:
    return Interaction(
        id, 1.0, "chat", subject, "v1", "champion", 1.0, (Message(Role.USER, "q"),), "an answer", "stop",
        Sampling(), Usage(1, 1), 9.0, None, 0.0, "h",
    )  # fmt: skip


class IntakeStore:
    """A store, a writer and an intake whose clock stands where it is put."""

    def __init__(self, store, **settings):
        self.store, self.writer, self.now = store, Writer(store.log), 1000.0
        self.intake = Intake(store, self.writer, FeedbackIntake(**settings), lambda: self.now)

    def add(self, *bodies, author=KEY):
        return asyncio.run(self.intake.add(self.intake.reader(author).read(bodies), author))

    def withdraw(self, id):
        return asyncio.run(self.intake.withdraw(id))

    def page(self, target, after=0, limit=100):
        return asyncio.run(self.intake.page(target, after, limit))

    def kept(self):
        return [event for _, event in self.store.log.read(Feedback)]


@pytest.fixture
def side(tmp_path):
    with open_store(str(tmp_path)) as store:
        made = IntakeStore(store)
        yield made
        made.writer.close()


def thumb(id, value=True, target="a", **more):
    return {"kind": "boolean", "id": id, "target": target, "value": value, **more}


def test_what_is_accepted_is_in_the_log_and_needs_no_answer_there(side):
    (taken,) = side.add({"id": "chatcmpl-unheard-of", "value": True})
    assert taken.status == "accepted"
    assert side.kept() == [Rating(str(taken.id), 1000.0, "chatcmpl-unheard-of", "the-key", "thumb", True)]
    page = side.page("chatcmpl-unheard-of")
    assert not page.known
    side.store.log.append(answer("chatcmpl-unheard-of"))
    assert side.page("chatcmpl-unheard-of").known


def test_each_event_of_a_batch_has_its_own_outcome(side):
    side.store.log.append(answer("gone", "ann"))
    side.store.log.erase("ann", by="ann")
    side.add(thumb("old"))
    outcomes = side.add(
        thumb("n1"), 7, thumb("old", value=False), thumb("x", target="gone"), thumb("old"), thumb("n2"),
        thumb("n1"), thumb("n1", value=False),
    )  # fmt: skip
    assert [o.status for o in outcomes] == [
        "accepted", "refused", "conflict", "erased", "accepted", "accepted", "accepted", "conflict",
    ]  # fmt: skip
    assert [event.id for event in side.kept()] == ["old", "n1", "n2"]
    shown = outcomes[2].model_dump(exclude_defaults=True)
    assert shown["id"] == "old"
    assert "names one content for ever" in shown["error"]
    assert outcomes[0].model_dump(exclude_defaults=True) == {
        "id": "n1",
        "status": "accepted",
        "read_as": "thumb up",
    }


def test_the_answer_says_what_an_event_was_taken_for_and_why_nothing_is_learnt_from_it(side):
    bodies = (
        {"id": "a", "value": 0, "comment": "too long"},
        {"id": "a", "value": 0.7},
        {"kind": "implicit", "target": "a", "name": "abandon"},
        {"kind": "implicit", "target": "a", "name": "copy"},
    )
    outcomes = side.add(*bodies)
    assert [o.read_as for o in outcomes] == ["thumb down", "score 0.7", None, None]
    assert [(o.not_trained_on or "").split(" ")[0] for o in outcomes] == ["a", "a", "`abandon`", ""]
    assert [type(event).__name__ for event in side.kept()] == [
        "Rating",
        "Remark",
        "Rating",
        "Implicit",
        "Implicit",
    ]
    assert len(side.kept()) == 5
    again = {**bodies[0], "kind": "boolean", "target": "a", "value": "down"}
    del again["id"]
    assert [o.status for o in side.add({**again, "id": "x"}, {**again, "id": "x"})] == ["accepted"] * 2


def test_the_events_that_are_said_to_teach_are_those_that_the_rules_read():
    assert set(IMPLICIT) == TELLING_EVENTS


def test_repeating_later_changes_nothing_unless_the_client_said_another_time(side):
    side.add(thumb("undated"), thumb("dated", ts=900.0))
    side.now = 2000.0
    again = side.add(thumb("undated"), thumb("dated", ts=900.0), thumb("dated", ts=901.0))
    assert [o.status for o in again] == ["accepted", "accepted", "conflict"]
    assert [(event.id, event.time) for event in side.kept()] == [("undated", 1000.0), ("dated", 900.0)]


def test_too_many_events_are_refused_and_none_is_kept(tmp_path):
    with open_store(str(tmp_path)) as store:
        side = IntakeStore(store, batch=3)
        with pytest.raises(InputError, match="too many events in one request; got: 4; allowed: 3"):
            side.add(*[{"id": "a", "value": True}] * 4)
        assert side.kept() == []
        side.writer.close()


def test_where_the_store_fails_nothing_is_acknowledged(side, monkeypatch):
    def full(groups):
        raise StoreError("the disk is full")

    monkeypatch.setattr(side.store.log, "append_each", full)
    with pytest.raises(StoreError, match="the disk is full"):
        side.add(thumb("a"))


# --- reading ----------------------------------------------------------------------------------


def test_what_was_said_is_shown_page_by_page_with_what_holds_now(side):
    for k in range(5):
        side.now += 1
        side.add(thumb(f"r{k}", value=k % 2 == 0, source={"id": "ann"}))
    side.add(thumb("other", target="b"))
    first = side.page("a", limit=3)
    assert [event.id for _, event in first.events] == ["r0", "r1", "r2"]
    assert first.more
    rest = side.page("a", after=first.events[-1][0], limit=3)
    assert [event.id for _, event in rest.events] == ["r3", "r4"]
    assert not rest.more
    assert [event.id for event in first.live] == [event.id for event in rest.live] == ["r4"]


def test_a_choice_is_shown_with_each_of_its_answers(side):
    comparison = {"candidates": ["a", "b"], "winner": None, "shown_order": ["b", "a"]}
    side.add({"kind": "comparison", "comparison": comparison})
    (event,) = [event for _, event in side.page("b").events]
    assert isinstance(event, Choice)
    assert side.page("a").live == (event,)


# --- withdrawing ------------------------------------------------------------------------------


def test_withdrawing_is_a_revocation_and_doing_it_again_changes_nothing(side):
    side.add(thumb("r"))
    side.now += 50
    first, again = side.withdraw("r"), side.withdraw("r")
    assert first == again == Revocation("revoke-r", 1000.0, "a", "the-key", "thumb")
    assert len(side.kept()) == 2
    assert side.page("a").live == ()


def test_withdrawing_an_old_word_leaves_a_later_one(side):
    side.add(thumb("old"))
    side.now += 1
    side.add(thumb("new", value=False))
    side.withdraw("old")
    assert [event.id for event in side.page("a").live] == ["new"]
    side.withdraw("new")
    assert side.page("a").live == ()
    side.now += 1
    side.add(thumb("newest"))
    assert [event.id for event in side.page("a").live] == ["newest"]


def test_a_choice_can_be_withdrawn_and_a_withdrawal_cannot(side):
    comparison = {"candidates": ["a", "b"], "winner": "b", "shown_order": ["b", "a"]}
    side.add({"kind": "comparison", "id": "pick", "comparison": comparison})
    side.withdraw("pick")
    assert side.page("b").live == ()
    with pytest.raises(DataError, match="cannot be withdrawn"):
        side.withdraw("revoke-pick")
    assert side.withdraw("unheard-of") is None
