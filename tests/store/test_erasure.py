"""Erasure: what a person asked for is gone from every reader and from the file, and does not come back."""

import sqlite3
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_records import make_interaction, rating

from escultor.errors import Erased, StoreError
from escultor.store import database, open_store
from escultor.types import Choice, Correction, Erasure, Feedback, Interaction, Remark

SECRETS = [f"my secret {k} " * size for k, size in enumerate((1, 3, 40, 300, 3000))]


def ids(store):
    return {n.id for _, n in store.log.read(Interaction)} | {n.id for _, n in store.log.read(Feedback)}


@pytest.fixture
def filled_store(store):
    """Ann asked twice, Bob once; both judged; Bob chose between an answer of hers and one of his."""
    store.log.append(
        make_interaction("a1", "ann"), make_interaction("a2", "ann"), make_interaction("b1", "bob")
    )
    store.log.append(
        rating("r1", "a1", "ann"),
        rating("r2", "b1", "ann"),
        Correction("c1", 2.0, "a1", "bob", "as Ann said: her secret"),
        rating("r3", "b1", "bob"),
        Choice("pick", 3.0, "bob", "preference", ("b1", "a2"), "b1"),
        Choice("own", 3.0, "bob", "preference", ("b1", "b2"), "b1"),
    )
    return store


def test_a_persons_interactions_and_feedback_and_what_refers_to_them_are_erased(filled_store):
    erasure = filled_store.log.erase("ann", by="the person")
    assert ids(filled_store) == {"b1", "r3", "own"}
    assert erasure.counts == {"interaction": 2, "feedback": 2, "feedback of others": 2}
    assert next(filled_store.log.read(Erasure, target="ann"))[1] == erasure
    assert list(filled_store.log.read(Feedback, target="a2")) == []
    assert [n.id for _, n in filled_store.log.read(Feedback, target="b1")] == ["r3", "own"]


@pytest.mark.parametrize(
    "again",
    [
        make_interaction("a1", "ann"),
        make_interaction("a1", "somebody else"),
        rating("r1", "a1", "ann"),
        rating("new", "a1", "bob"),
        Remark("new", 9.0, "a2", "bob", "what was it?"),
        Choice("new", 9.0, "bob", "preference", ("b1", "a2"), None),
    ],
    ids=lambda record: f"{type(record).__name__}-{record.id}",
)
def test_erased_records_and_feedback_on_them_are_refused_with_the_whole_call(filled_store, again):
    filled_store.log.erase("ann", by="the person")
    with pytest.raises(Erased, match=f"got: (interaction|feedback) '{again.id}'"):
        filled_store.log.append(rating("innocent", "b1", "bob"), again)
    assert "innocent" not in ids(filled_store)
    filled_store.log.append(rating("a1", "b1", "bob"))  # an id of another kind is another thing


def test_erased_ids_can_be_queried_though_only_their_hashes_are_stored(filled_store):
    erasure = filled_store.log.erase("ann", by="the person")
    assert filled_store.log.erased(Interaction, ["a1", "b1", "a2", "unheard"]) == {"a1", "a2"}
    assert filled_store.log.erased(Feedback, ["a1", "c1"]) == {"c1"}
    assert len(filled_store.log.erased_digests([erasure.id])) == 6


def test_erasing_an_unknown_subject_only_records_the_request(filled_store):
    before = ids(filled_store)
    assert filled_store.log.erase("nobody", by="a clerk").counts == {
        "interaction": 0, "feedback": 0, "feedback of others": 0,
    }  # fmt: skip
    assert ids(filled_store) == before


def test_records_after_an_erasure_are_accepted_and_can_be_erased(filled_store):
    filled_store.log.erase("ann", by="the person")
    filled_store.log.append(make_interaction("a3", "ann"))
    assert filled_store.log.erase("ann", by="the person").counts["interaction"] == 1
    assert filled_store.log.count(Erasure) == 2


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(SECRETS)), min_size=1, max_size=25),
    st.sampled_from("xyz"),
)
def test_sqlite_files_hold_no_erased_text_of_any_size(tmp_path_factory, lines, who):
    folder = tmp_path_factory.mktemp("store")
    with open_store(str(folder)) as store:
        for k, (subject, text) in enumerate(lines):
            store.log.append(
                replace(make_interaction(f"{subject}{k}", subject), answer=f"<{subject}> {text}")
            )
        for subject in "xyz":
            assert _in_files(folder, f"<{subject}>") == any(s == subject for s, _ in lines)
        store.log.erase(who, by="the person")
        for subject in "xyz":
            kept = subject != who and any(s == subject for s, _ in lines)
            assert _in_files(folder, f"<{subject}>") == kept


def _in_files(folder, text):
    return any(text.encode() in path.read_bytes() for path in folder.glob("log.db*"))


def test_a_reader_that_keeps_old_pages_is_reported_and_erasure_can_be_repeated(tmp_path, monkeypatch):
    with open_store(str(tmp_path)) as store:
        store.log.append(replace(make_interaction("a", "ann"), answer="a secret"))
        reader = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM log").fetchall()
        monkeypatch.setattr(database, "BUSY_S", 0.1)
        with store.log._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=100")
        with pytest.raises(StoreError, match=r"still in its files.*erase the subject again"):
            store.log.erase("ann", by="the person")
        assert store.log.count(Interaction) == 0
        reader.execute("COMMIT")
        reader.close()
        store.log.erase("ann", by="the person")
        assert not _in_files(tmp_path, "a secret")


def test_postgresql_keeps_erased_text_neither_in_rows_nor_in_statistics(postgres_url, tmp_path):
    with open_store(postgres_url, blobs=tmp_path) as store, store.log._engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        store.log.append(*(replace(make_interaction(f"a{k}", "ann"), answer="a secret") for k in range(50)))
        connection.exec_driver_sql("ANALYZE log")
        query = "SELECT count(*) FROM pg_stats WHERE schemaname = current_schema() AND {} LIKE '%%a secret%%'"
        shown = [
            query.format(f"CAST({column} AS text)") for column in ("histogram_bounds", "most_common_vals")
        ]
        assert sum(connection.exec_driver_sql(q).scalar_one() for q in shown)
        store.log.erase("ann", by="the person")
        assert not sum(connection.exec_driver_sql(q).scalar_one() for q in shown)
        dead = "SELECT count(*) FROM log WHERE body LIKE '%%a secret%%'"
        assert connection.exec_driver_sql(dead).scalar() == 0
