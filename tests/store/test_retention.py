"""Interactions leave the log when their retention is over, with their feedback, and do not come back."""

from dataclasses import replace

import pytest
from store_nouns import rating, said

from escultor.errors import Erased
from escultor.store import erasing, open_store
from escultor.types import Choice, Erasure, Feedback, Interaction, PendingInteraction

NOW = 1000.0


def retained(id, until, **more):
    return replace(said(id), retain_until=until, **more)


def ids(store, kind):
    return [row.id for _, row in store.log.read(kind)]


@pytest.fixture
def told(store):
    """One interaction whose retention is over, one whose is not, one without; feedback on all."""
    store.log.append(
        retained("over", 999.0, answer='"retain_until":1'), retained("later", 2000.5), said("kept")
    )
    store.log.append(*(rating(f"r-{id}", id) for id in ("over", "later", "kept")))
    store.log.append(Choice("pick", 3.0, "bob", "preference", ("kept", "over"), "kept"))
    store.log.append(replace(said("quoting"), answer='"retain_until":1'))
    return store


def test_what_is_over_goes_with_its_feedback_and_the_rest_stays(told):
    (erasure,), _ = told.log.purge(NOW)
    assert ids(told, Interaction) == ["later", "kept", "quoting"]
    assert ids(told, Feedback) == ["r-later", "r-kept"]
    assert (erasure.subject, erasure.by, erasure.time) == ("", "retention", NOW)
    assert erasure.counts == {"interaction": 1, "feedback": 2}
    assert [e for _, e in told.log.read(Erasure)] == [erasure]
    assert told.log.erased(Interaction, ["over", "kept"]) == {"over"}


@pytest.mark.parametrize("again", [retained("over", 999.0), rating("new", "over"), retained("over", None)])
def test_what_was_purged_is_refused(told, again):
    told.log.purge(NOW)
    with pytest.raises(Erased):
        told.log.append(again)


def test_a_purge_repeated_finds_nothing_and_a_later_one_starts_behind_what_is_settled(told):
    _, resume = told.log.purge(NOW)
    assert resume == 1  # before the one that is kept till 2000.5
    assert told.log.purge(NOW, resume) == ([], resume)
    (erasure,), resume = told.log.purge(2000.5, resume)
    assert erasure.counts["interaction"] == 1
    assert resume >= 8
    assert told.log.purge(1e12, resume)[0] == []


def test_a_pending_record_goes_too_and_its_row_cannot_follow(store):
    row = retained("cut", 999.0, finish_reason="interrupted")
    store.log.append(PendingInteraction("host/1/gw", 2.0, row))
    store.log.purge(NOW)
    assert list(store.log.read(PendingInteraction)) == []
    with pytest.raises(Erased):
        store.log.append(row)


def test_many_leave_in_bounded_batches(store, monkeypatch):
    monkeypatch.setattr(erasing, "CHUNK", 3)
    rows = [retained(f"a{k}", float(k)) for k in range(10)]
    store.log.append(*(PendingInteraction("host/1/gw", 2.0, row) for row in rows), *rows)
    erasures, _ = store.log.purge(NOW)
    assert len(erasures) == 7
    assert sum(e.counts["interaction"] for e in erasures) == 10
    assert store.log.count(Interaction) == store.log.count(PendingInteraction) == 0


def test_the_text_is_gone_from_the_files_of_sqlite(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.log.append(retained("over", 999.0, answer="a secret " * 500))
        store.log.purge(NOW)
        assert not any(b"a secret" in path.read_bytes() for path in tmp_path.glob("log.db*"))
