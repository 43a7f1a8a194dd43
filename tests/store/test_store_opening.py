import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import event, insert, inspect, text
from store_records import make_interaction, rating

from escultor.errors import ConfigError, Erased, StoreError
from escultor.store import open_store, schema, tables
from escultor.store.codec import encode
from escultor.store.database import writing
from escultor.store.feedback import choice_target
from escultor.store.kinds import KINDS
from escultor.types import (
    AlertAcknowledged,
    AlertDelivery,
    CallTally,
    Checkpoint,
    Choice,
    CycleEvent,
    CycleSchedule,
    DatasetName,
    DatasetVersion,
    Feedback,
    KeyRotated,
    Media,
    PendingInteraction,
    QuarantineOverride,
    RetiredDataset,
    ToolDefinitions,
)


def python(code: str, *arguments: str) -> None:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    subprocess.run(command, check=True, timeout=60)


def test_a_folder_holds_the_whole_store(tmp_path):
    with open_store(str(tmp_path / "deep" / "store")) as store:
        store.log.append(rating("a"))
        store.blobs.put_bytes(b"data")
        assert store.root == tmp_path / "deep" / "store"
    assert sorted(path.name for path in store.root.iterdir()) == ["blobs", "log.db"]


def test_a_sqlite_url_names_the_file_and_blobs_may_lie_elsewhere(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/own.db", blobs=tmp_path / "elsewhere") as store:
        store.log.append(rating("a"))
        assert (tmp_path / "own.db").is_file()
        assert store.root == tmp_path
        assert store.blobs.root == tmp_path / "elsewhere"


def test_what_was_written_is_there_when_opened_again(url):
    for _ in range(2):
        with open_store(url) as store:
            store.log.append(rating("a"))
            assert store.log.count(Feedback) == 1


def test_importing_is_cheap_and_opening_an_up_to_date_store_loads_no_alembic(tmp_path):
    open_store(str(tmp_path)).close()
    python(
        "import sys\n"
        "from escultor.store import open_store\n"
        "assert not {'sqlalchemy', 'pydantic', 'alembic'} & set(sys.modules)\n"
        "open_store(sys.argv[1]).close()\n"
        "assert 'alembic' not in sys.modules\n",
        str(tmp_path),
    )


def test_commits_are_synced_and_readers_do_not_block_the_writer(tmp_path):
    with open_store(str(tmp_path)) as store, store.log._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


def test_the_migrations_make_the_table_the_code_uses(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    folder = os.path.join(os.path.dirname(schema.__file__), "migrations")
    files = [script.revision for script in ScriptDirectory(folder).walk_revisions()]
    assert tuple(reversed(files)) == schema.REVISIONS
    with store.log._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_a_store_of_the_first_version_is_upgraded_and_its_choices_are_found(url, tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "HEAD", "0001")
    engine = open_store(url, blobs=tmp_path / "blobs").log._engine
    choices = [Choice(f"c{k}", 1.0, "s", "pick", (f"a{k}", "b", "b"), None) for k in range(1200)]
    columns = "kind, id, time, target, subject, body"
    rows = [("feedback", c.id, 1.0, None, "s", encode(c)) for c in choices]
    rows.append(("feedback", "r", 1.0, "b", "s", encode(rating("r", "b"))))
    with writing(engine) as connection:
        for row in rows:
            query = text(f"INSERT INTO log ({columns}) VALUES (:0, :1, :2, :3, :4, :5)")
            connection.execute(query, {str(k): value for k, value in enumerate(row)})
    engine.dispose()
    monkeypatch.undo()
    with open_store(url, blobs=tmp_path / "blobs") as store:
        about = [record.id for _, record in store.log.read(Feedback, target="a7")]
        assert about == [n.id for _, n in store.log.read(Feedback, target=choice_target(("b", "a7", "b")))]
        assert about == ["c7"]
        assert len(list(store.log.read(Feedback, target="b"))) == 1201


def open_store_of_0002(url, tmp_path, monkeypatch) -> list[dict]:
    """Fill a store with the rows that the version before wrote, one for each type of record."""
    lines = (Path(__file__).parent / "data" / "store_0002.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    monkeypatch.setattr(schema, "HEAD", "0002")
    engine = open_store(url, blobs=tmp_path / "blobs").log._engine
    with writing(engine) as connection:
        for each in rows:
            connection.execute(insert(tables.metadata.tables[each["table"]]).values(each["row"]))
    engine.dispose()
    monkeypatch.undo()
    return [each["row"] for each in rows if each["table"] == "log"]


def test_a_store_of_the_version_before_opens_and_every_record_is_read(url, tmp_path, monkeypatch):
    old = open_store_of_0002(url, tmp_path, monkeypatch)
    with open_store(url, blobs=tmp_path / "blobs") as store:
        found = [(kind, seq, record) for kind in KINDS for seq, record in store.log.read(kind.record_type)]
        later = {
            AlertAcknowledged,
            AlertDelivery,
            CallTally,
            CycleEvent,
            CycleSchedule,
            DatasetName,
            KeyRotated,
            Media,
            RetiredDataset,
            ToolDefinitions,
        }
        known = {v for kind in KINDS for v in kind.variants} - later
        assert {type(record) for _, _, record in found} == known
        assert sorted((seq, kind.id(record)) for kind, seq, record in found) == [
            (r["seq"], r["id"]) for r in old
        ]
        bodies = {row["seq"]: json.loads(row["body"]) for row in old}
        for kind, seq, record in found:
            body, before = json.loads(encode(record)), bodies[seq]
            if kind.record_type in (PendingInteraction, QuarantineOverride):
                assert before.pop("_") in ("Opening", "Release")
                assert body.pop("_") == type(record).__name__
            if kind.record_type is Checkpoint:
                assert body.pop("method") == before.pop("phase")
            if kind.record_type is DatasetVersion and before["kind"] == "judged":
                assert (before.pop("kind"), body.pop("kind")) == ("judged", "unpaired")
            assert repr(body) == repr(before)
        assert store.log.append(*(record for _, _, record in found)) == [seq for _, seq, _ in found]


def test_what_was_erased_by_the_version_before_stays_erased(url, tmp_path, monkeypatch):
    open_store_of_0002(url, tmp_path, monkeypatch)
    with open_store(url, blobs=tmp_path / "blobs") as store:
        interaction = make_interaction("b8", "gone")
        for again in (interaction, PendingInteraction("1", 2.0, interaction)):
            with pytest.raises(Erased):
                store.log.append(again)


def test_an_upgrade_rewrites_more_entries_than_it_holds_in_memory(url, tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "HEAD", "0002")
    engine = open_store(url, blobs=tmp_path / "blobs").log._engine
    with writing(engine) as connection:
        for k in range(1200):
            body = f'{{"_":"Release","id":"r{k}","time":1.0,"target":"held","reason":"{k}"}}'
            row = {"kind": "release", "id": f"r{k}", "time": 1.0, "target": "held", "body": body}
            connection.execute(insert(tables.log).values(row))
    engine.dispose()
    monkeypatch.undo()
    with open_store(url, blobs=tmp_path / "blobs") as store:
        found = [record for _, record in store.log.read(QuarantineOverride, target="held")]
    assert found == [QuarantineOverride(f"r{k}", 1.0, "held", str(k)) for k in range(1200)]


@pytest.mark.parametrize("column", ["target", "subject"])
def test_what_is_about_one_thing_is_found_by_index_not_by_reading_all(tmp_path, column):
    with open_store(str(tmp_path)) as store:
        store.log.append(*(rating(f"r{k}", f"t{k}", f"s{k}") for k in range(300)))
        asked = []
        event.listen(store.log._engine, "before_cursor_execute", lambda *a: asked.append(a[2:4]))
        assert len(list(store.log.read(Feedback, **{column: f"{column[0]}7"}))) == 1
        statement, values = next(a for a in asked if a[0].startswith("SELECT"))
        with store.log._engine.connect() as connection:
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all())
        assert f"ix_log_{column}_seq" in plan
        assert "SCAN log" not in plan
        assert "ix_log_kind_seq" not in plan


def test_a_store_of_a_newer_version_is_refused_with_the_remedy_and_left_as_it_was(tmp_path):
    open_store(str(tmp_path)).close()
    file = tmp_path / "log.db"
    with sqlite3.connect(file) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    before = file.read_bytes()
    with pytest.raises(StoreError) as caught:
        open_store(str(tmp_path))
    for part in (str(file), "9999", schema.HEAD, "pip install --upgrade escultor"):
        assert part in str(caught.value)
    assert file.read_bytes() == before


def test_an_upgrade_that_fails_leaves_nothing_behind(tmp_path):
    file = tmp_path / "log.db"
    with sqlite3.connect(file) as raw:
        raw.execute("CREATE TABLE log (somebody TEXT)")
    raw.close()
    with pytest.raises(StoreError, match="table log already exists"):
        open_store(str(tmp_path))
    with sqlite3.connect(file) as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("log",)]
    raw.close()


def test_tables_of_other_programs_in_the_same_database_are_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "log.db") as raw:
        raw.execute("CREATE TABLE other (somebody TEXT)")
    raw.close()
    with open_store(str(tmp_path)) as store:
        assert set(inspect(store.log._engine).get_table_names()) > {"other", "log", "alembic_version"}


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "log.db").write_text("a letter, not a database. " * 50)
    with pytest.raises(StoreError, match=r"log\.db; got: file is not a database; remedy: point the store"):
        open_store(str(tmp_path))
    assert (tmp_path / "log.db").read_text().startswith("a letter")


def test_a_file_where_the_folder_should_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be created"):
        open_store(str(tmp_path / "file"))


@pytest.mark.parametrize(
    "url",
    ["", "  ", "mysql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "postgresql://u:secret@h:x/d"],
)
def test_a_url_of_another_kind_is_refused_without_telling_the_password(url):
    with pytest.raises(ConfigError, match=r"remedy: correct store\.url") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_cannot_be_reached_is_named_without_the_password():
    with pytest.raises(StoreError, match="check that the server runs") as caught:
        open_store("postgresql://somebody:secret@127.0.0.1:1/none")
    assert "127.0.0.1:1/none" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_store_is_for_its_user_alone_also_one_that_was_made_before(tmp_path):
    (tmp_path / "store").mkdir(mode=0o755)
    for name in ("new", "store"):
        with open_store(str(tmp_path / name)) as store:
            store.log.append(rating("a"))
            store.blobs.put_bytes(b"data")
            modes = {path.name: path.stat().st_mode & 0o077 for path in store.root.glob("log.db*")}
            assert modes == dict.fromkeys(modes, 0)
            assert store.root.stat().st_mode & 0o007 == 0


def test_an_empty_file_in_place_of_a_log_is_no_new_store(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.log.append(rating("a"))
        store.blobs.put_bytes(b"data")
    (tmp_path / "log.db").write_bytes(b"")
    with pytest.raises(StoreError, match=r"is empty.*restore it"):
        open_store(str(tmp_path))
    (tmp_path / "log.db").unlink()
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    (tmp_path / "log.db").write_bytes(b"")  # as another process leaves it for a moment
    open_store(str(tmp_path)).close()


def test_a_store_that_may_not_be_written_can_be_read(tmp_path, monkeypatch):
    with open_store(str(tmp_path)) as store:
        store.log.append(rating("a"))
        hash = store.blobs.put_bytes(b"data")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as on a disk that is mounted so
    with open_store(str(tmp_path)) as store:
        assert store.is_read_only
        assert [event.id for _, event in store.log.read(Feedback)] == ["a"]
        assert store.blobs.get_bytes(hash) == b"data"
        with pytest.raises(StoreError, match=r"readonly.*right to write"):
            store.log.append(rating("b"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blobs", "log.db"]
