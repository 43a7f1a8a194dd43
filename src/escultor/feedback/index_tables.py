"""The tables of the derived index: their rows, the SQLite file, and the fold of new log entries into them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from pathlib import Path

from escultor.errors import StoreError
from escultor.feedback.evidence import ChoiceEvent, FeedbackEvent, RatedAnswer
from escultor.feedback.raw_log import LogBatch

SCHEMA = "7"
JOURNAL = "wal"  # requested; a file system without shared memory falls back to another
LOCK_TIMEOUT_S = 60.0  # waited for another process that reads the same log
ANSWERS_PER_READ = 4000


_TABLES = """
create table if not exists meta (key text primary key, value text not null) without rowid;
create table if not exists answers (
  id text primary key, prompt text, subject text, tenant text, skill text, arm text, propensity real,
  parent text, consent text, retain_until real, text_hash text, length integer, echoed real, finish text);
create table if not exists live (
  target text, subject text, name text, time real, withdrawn integer, id text, seq integer, up integer,
  source text, primary key (target, subject, name)) without rowid;
create table if not exists choices (
  target text, subject text, name text, time real, withdrawn integer, id text, seq integer, source text,
  first text, shown text, winner text, primary key (target, subject, name)) without rowid;
create index if not exists choices_first on choices (first);
create table if not exists children (parent text, child text, primary key (parent, child)) without rowid;
create table if not exists wanted (id text primary key) without rowid;
create table if not exists rates (
  subject text, hour integer, n integer, primary key (subject, hour)) without rowid;
create table if not exists subjects (subject text primary key, first real) without rowid;
create table if not exists dirty (prompt text primary key) without rowid;
create table if not exists drafts (
  prompt text, rule text, kind text, answer text, chosen text, rejected text, desirable integer,
  flip_rate real, weight real, event_ids text, subject_ids text, seq integer, time real, simulated integer);
create table if not exists unused (prompt text, reason text, n integer);
create table if not exists edits (
  id text primary key, text_hash text, length integer, length_before integer, distance real) without rowid;
create table if not exists read_counts (reason text primary key, n integer) without rowid;
"""
# Created after the first read: sorting once costs less than keeping a million rows in order.
_INDEXES = {
    "answers_prompt": "answers (prompt)",
    "answers_subject": "answers (subject)",
    "live_subject": "live (subject, withdrawn)",
    "choices_subject": "choices (subject, withdrawn)",
    "choices_winner": "choices (winner)",
    "drafts_prompt": "drafts (prompt)",
    "unused_prompt": "unused (prompt)",
}


def create_indexes(file: sqlite3.Connection) -> None:
    for name, columns in _INDEXES.items():
        file.execute(f"create index if not exists {name} on {columns}")


def clear(file: sqlite3.Connection) -> None:
    """Delete all rows, and the indexes that a first read is faster without."""
    for (table,) in file.execute("select name from sqlite_schema where type = 'table'").fetchall():
        file.execute(f"delete from {table}")
    for name in _INDEXES:
        file.execute(f"drop index if exists {name}")


def can_read_while_writing(file: sqlite3.Connection) -> bool:
    """Whether other processes can read while this one writes; false without a write-ahead log."""
    return file.execute("pragma journal_mode").fetchone()[0] == "wal"


def open_reader(path: Path) -> sqlite3.Connection:
    """A read-only connection, which sees what was committed."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    file = sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT_S, isolation_level=None)
    file.execute("pragma cache_size = -64000")
    return file


def open_file(path: Path | None) -> sqlite3.Connection:
    """The file at `path` (None: in memory), replaced where it is damaged: all of it can be read again."""
    for attempt in (0, 1):
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            file = sqlite3.connect(path or ":memory:", timeout=LOCK_TIMEOUT_S, isolation_level=None)
            file.execute(f"pragma journal_mode = {JOURNAL}")
            file.execute("pragma synchronous = off")  # a power failure may destroy it: it is rebuilt
            file.execute("pragma secure_delete = on")  # erased data leaves no trace
            file.execute("pragma cache_size = -200000")
            file.executescript(_TABLES)
            return file
        except sqlite3.DatabaseError as error:
            if path is None or attempt or "lock" in str(error):
                raise StoreError(f"{path} cannot be opened", error, remedy="delete it") from error
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{path} cannot be made", error, remedy="check the folder's rights") from error
    raise AssertionError("unreachable")


class Fold:
    """One read of new log entries into the tables, within one transaction.

    On the first read (`first`) every prompt is drafted anyway: a list of the targets that changed, a million
    rows long, would cost a tenth of the time.
    """

    def __init__(self, file: sqlite3.Connection, first: bool):
        self.file, self.first = file, first
        file.execute("create temp table if not exists touched (id text primary key) without rowid")

    def add_events(self, batch: LogBatch) -> None:
        """Fold feedback into what holds, and count it."""
        run = self.file.executemany
        run(_upsert("live", FeedbackEvent), sorted(batch.live, key=attrgetter("target")))
        run(_upsert("choices", ChoiceEvent), batch.choices)
        run("insert or ignore into children values (?,?)", batch.children)
        if not self.first:
            touched = batch.targets.union(parent for parent, _ in batch.children)
            run("insert or ignore into touched values (?)", [(target,) for target in sorted(touched)])
        rates = sorted((subject, hour, n) for (subject, hour), n in batch.rates.items())
        run("insert into rates values (?,?,?) on conflict do update set n = n + excluded.n", rates)
        run(
            "insert into subjects values (?,?) on conflict do update set first = min(first, excluded.first)",
            list(batch.first_seen.items()),
        )
        counts = list(batch.counts.items())
        run("insert into read_counts values (?,?) on conflict do update set n = n + excluded.n", counts)

    def add_answers(self, rows: Sequence[RatedAnswer]) -> None:
        self.file.executemany(f"insert or replace into answers values {marks(RatedAnswer)}", rows)
        if not self.first:
            self.file.executemany("insert or ignore into dirty values (?)", [(row.prompt,) for row in rows])

    def fetch(self, read: Callable[[list[list[str]]], Iterable[list[RatedAnswer]]]) -> None:
        """Read the answers that feedback is about, and those that they regenerate. `read` maps lists of ids
        to the rows of those that the log holds; the others are wanted until a later read."""
        ids = self._mentioned()
        missing: set[str] = set()
        while ids:
            missing.update(ids)
            parents: set[str | None] = set()
            batches = [ids[i : i + ANSWERS_PER_READ] for i in range(0, len(ids), ANSWERS_PER_READ)]
            for rows in read(batches):
                self.add_answers(rows)
                missing.difference_update(row.id for row in rows)
                parents.update(row.parent for row in rows)
            ids = self.unknown(parents - missing)
        self.set_wanted(missing)

    def unknown(self, ids: Iterable[str | None]) -> list[str]:
        """Those of these ids that are no answers in the index, in order."""
        rows = self.file.execute(
            "select value from json_each(?) where not exists (select 1 from answers where id = value)",
            (json.dumps(sorted(id for id in ids if id)),),
        )
        return [id for (id,) in rows]

    def set_wanted(self, ids: Iterable[str]) -> None:
        """Remember the answers that the log does not hold yet."""
        self.file.execute("delete from wanted")
        self.file.executemany("insert or ignore into wanted values (?)", [(id,) for id in ids])

    def mark_prompts(self) -> None:
        """Mark every prompt that something new is about as to be drafted again."""
        mark = "insert or ignore into dirty select a.prompt from answers a "
        self.file.execute(f"{mark} where a.id in (select id from touched)")
        self.file.execute(
            f"{mark} join choices c on c.first = a.id where c.target in (select id from touched)"
        )
        self.file.execute("delete from touched")

    def _mentioned(self) -> list[str]:
        """The answers that live feedback is about and the index does not hold, in order."""
        if self.first:
            query = (
                "select target from live where target not like 'choice-%' "
                "union select shown.value from choices c, json_each(c.shown) shown"
            )
        else:
            query = (
                "select id from wanted union select id from touched t where id not like 'choice-%' "
                "and not exists (select 1 from answers a where a.id = t.id) "
                "and (exists (select 1 from live l where l.target = t.id) "
                "or exists (select 1 from choices c where c.first = t.id)) "
                "union select shown.value from choices c, json_each(c.shown) shown "
                "where c.target in (select id from touched) "
                "and not exists (select 1 from answers a where a.id = shown.value)"
            )
        return [id for (id,) in self.file.execute(query)]


def marks(row: type[tuple[object, ...]]) -> str:
    """The placeholders of a row of this named tuple."""
    return f"({','.join('?' * len(row._fields))})"  # type: ignore[attr-defined]


def _upsert(table: str, row: type[FeedbackEvent | ChoiceEvent]) -> str:
    """The statement that replaces what holds under the same key if it has lower precedence. A withdrawn
    choice keeps the answers that it was made among: the withdrawal does not name them."""
    kept = {"first": "coalesce(excluded.first, first)"}
    update = ", ".join(f"{name} = {kept.get(name, f'excluded.{name}')}" for name in row._fields[3:])
    return (
        f"insert into {table} values {marks(row)} on conflict do update set {update} where "
        f"(excluded.time, excluded.withdrawn, excluded.id) > ({table}.time, {table}.withdrawn, {table}.id)"
    )
