"""The tables of the derived index: their rows and the SQLite file."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import NamedTuple

from escultor.errors import StoreError

SCHEMA = "8"
JOURNAL = "wal"  # requested; a file system without shared memory falls back to another
LOCK_TIMEOUT_S = 60.0  # waited for another process that reads the same log
# Errors of a file that is replaced; a full or failing disk destroys none.
_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


_TABLES = """
create table if not exists meta (key text primary key, value text not null) without rowid;
create table if not exists answers (
  id text primary key, prompt text, subject text, tenant text, skill text, arm text, propensity real,
  parent text, consent text, retain_until real, text_hash text, length integer, echoed real, claim text,
  finish text);
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


class FeedbackEvent(NamedTuple):
    """The last event of one person, under one name, about one answer: a thumb, an implicit event or a
    correction; a row of the index."""

    target: str
    subject: str
    name: str
    time: float
    withdrawn: int
    id: str
    seq: int
    up: int | None  # 1 approves of the answer, 0 disapproves, None: used by no labelling rule
    source: str


class ChoiceEvent(NamedTuple):
    """The last choice of one person, under one name, among the same answers; a row of the index."""

    target: str  # `choice_target` of the answers
    subject: str
    name: str
    time: float
    withdrawn: int
    id: str
    seq: int
    source: str
    first: str | None  # the answer shown first
    shown: str  # JSON list of the answers, in the order shown
    winner: str  # empty for a tie

    @property
    def answers(self) -> list[str]:
        return json.loads(self.shown)


class CorrectionEdit(NamedTuple):
    """A correction, compared with the answer that it corrects; a row of the index."""

    id: str
    text_hash: str
    length: int  # characters
    length_before: int
    distance: float  # `edits.edit_distance`


class RatedAnswer(NamedTuple):
    """An answer that feedback is about, without its text; a row of the index."""

    id: str
    prompt: str  # hash
    subject: str
    tenant: str
    skill: str
    arm: str
    propensity: float
    parent: str | None  # the answer that it regenerates
    consent: str
    retain_until: float | None
    text_hash: str
    length: int  # characters
    echoed: float  # share of the answer that is one stretch of its prompt
    claim: str | None  # a hash of that stretch, where it is long
    finish: str


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
            if path is None or attempt or error.sqlite_errorcode & 0xFF not in _DAMAGED:
                remedy = "free disk space, check its rights, or delete it: it is made from the log"
                raise StoreError(f"{path} cannot be opened", error, remedy=remedy) from error
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{path} cannot be made", error, remedy="check the folder's rights") from error
    raise AssertionError("unreachable")


def marks(row: type[tuple[object, ...]]) -> str:
    """The placeholders of a row of this named tuple."""
    return f"({','.join('?' * len(row._fields))})"  # type: ignore[attr-defined]
