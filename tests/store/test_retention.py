"""Interactions leave the log when their retention is over, with their feedback, and do not come back."""

from dataclasses import replace

import pytest
from store_records import make_interaction, rating

from escultor.errors import Erased
from escultor.store import erasing, open_store
from escultor.types import Choice, Erasure, Feedback, Interaction, PendingInteraction

NOW = 1000.0


def retained(id, until, **more):
    return replace(make_interaction(id), retain_until=until, **more)


def ids(store, kind):
    return [row.id for _, row in store.log.read(kind)]


@pytest.fixture
def filled_store(store):
    """One interaction whose retention is over, one whose is not, one without; feedback on all."""
    store.log.append(
        retained("over", 999.0, answer='"retain_until":1'),
        retained("later", 2000.5),
        make_interaction("kept"),
    )
    store.log.append(*(rating(f"r-{id}", id) for id in ("over", "later", "kept")))
    store.log.append(Choice("pick", 3.0, "bob", "preference", ("kept", "over"), "kept"))
    store.log.append(replace(make_interaction("quoting"), answer='"retain_until":1'))
    return store


def test_expired_interactions_are_purged_with_their_feedback_and_others_stay(filled_store):
    (erasure,), _ = filled_store.log.purge(NOW)
    assert ids(filled_store, Interaction) == ["later", "kept", "quoting"]
    assert ids(filled_store, Feedback) == ["r-later", "r-kept"]
    assert (erasure.subject, erasure.by, erasure.time) == ("", "retention", NOW)
    assert erasure.counts == {"interaction": 1, "feedback": 2}
    assert [e for _, e in filled_store.log.read(Erasure)] == [erasure]
    assert filled_store.log.erased(Interaction, ["over", "kept"]) == {"over"}


@pytest.mark.parametrize("again", [retained("over", 999.0), rating("new", "over"), retained("over", None)])
def test_purged_records_are_refused(filled_store, again):
    filled_store.log.purge(NOW)
    with pytest.raises(Erased):
        filled_store.log.append(again)


def test_a_repeated_purge_finds_nothing_and_a_later_one_resumes(filled_store):
    _, resume = filled_store.log.purge(NOW)
    assert resume == 1  # before the one that is kept till 2000.5
    assert filled_store.log.purge(NOW, resume) == ([], resume)
    (erasure,), resume = filled_store.log.purge(2000.5, resume)
    assert erasure.counts["interaction"] == 1
    assert resume >= 8
    assert filled_store.log.purge(1e12, resume)[0] == []


def test_a_pending_record_goes_too_and_its_row_cannot_follow(store):
    row = retained("cut", 999.0, finish_reason="interrupted")
    store.log.append(PendingInteraction("host/1/gw", 2.0, row))
    store.log.purge(NOW)
    assert list(store.log.read(PendingInteraction)) == []
    with pytest.raises(Erased):
        store.log.append(row)


def test_a_purge_works_in_bounded_batches(store, monkeypatch):
    monkeypatch.setattr(erasing, "BATCH", 3)
    rows = [retained(f"a{k}", float(k)) for k in range(10)]
    store.log.append(*(PendingInteraction("host/1/gw", 2.0, row) for row in rows), *rows)
    erasures, _ = store.log.purge(NOW)
    assert len(erasures) == 7
    assert sum(e.counts["interaction"] for e in erasures) == 10
    assert store.log.count(Interaction) == store.log.count(PendingInteraction) == 0


def test_sqlite_files_hold_no_purged_text(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.log.append(retained("over", 999.0, answer="a secret " * 500))
        store.log.purge(NOW)
        assert not any(b"a secret" in path.read_bytes() for path in tmp_path.glob("log.db*"))
