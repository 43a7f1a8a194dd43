"""The tables of the derived index, and its file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from escultor.errors import StoreError

SCHEMA = "6"
TABLES = (
    *("meta", "answers", "live", "picks", "children", "wanted", "rates", "subjects", "dirty", "drafts"),
    *("tally", "seen", "edits"),
)
JOURNAL = "wal"  # asked for; a disk that cannot be mapped by several processes has another
LOCKED_S = 60.0  # waited for another process that reads the same log
_SCRIPT = """
create table if not exists meta (key text primary key, value text not null) without rowid;
create table if not exists answers (
  id text primary key, prompt text, subject text, tenant text, skill text, arm text, propensity real,
  parent text, consent text, retain_until real, text text, length integer, repeated real, finish text);
create table if not exists live (
  target text, subject text, name text, time real, gone integer, id text, seq integer, up integer,
  source text, primary key (target, subject, name)) without rowid;
create table if not exists picks (
  target text, subject text, name text, time real, gone integer, id text, seq integer, source text,
  first text, shown text, winner text, primary key (target, subject, name)) without rowid;
create index if not exists picks_first on picks (first);
create table if not exists children (parent text, child text, primary key (parent, child)) without rowid;
create table if not exists wanted (id text primary key) without rowid;
create table if not exists rates (
  subject text, hour integer, n integer, primary key (subject, hour)) without rowid;
create table if not exists subjects (subject text primary key, first real) without rowid;
create table if not exists dirty (prompt text primary key) without rowid;
create table if not exists drafts (
  prompt text, route text, kind text, about text, chosen text, rejected text, desirable integer,
  flip real, weight real, words text, subjects text, seq integer, time real, simulated integer);
create table if not exists tally (prompt text, reason text, n integer);
create table if not exists edits (
  id text primary key, text text, length integer, before integer, distance real) without rowid;
create table if not exists seen (reason text primary key, n integer) without rowid;
"""

# Made when the first read is through: to sort once costs less than to keep a million rows in order.
INDEXES = {
    "answers_prompt": "answers (prompt)",
    "answers_subject": "answers (subject)",
    "live_subject": "live (subject, gone)",
    "picks_subject": "picks (subject, gone)",
    "picks_winner": "picks (winner)",
    "drafts_prompt": "drafts (prompt)",
    "tally_prompt": "tally (prompt)",
}


def index(file: sqlite3.Connection) -> None:
    """Make the indexes that are not there."""
    for name, columns in INDEXES.items():
        file.execute(f"create index if not exists {name} on {columns}")


def empty(file: sqlite3.Connection) -> None:
    """Forget everything."""
    for table in TABLES:
        file.execute(f"delete from {table}")
    for name in INDEXES:
        file.execute(f"drop index if exists {name}")


def is_shared(file: sqlite3.Connection) -> bool:
    """Whether others can read while this one writes: not where the file system has no shared memory, so that
    there is no write-ahead log."""
    return file.execute("pragma journal_mode").fetchone()[0] == "wal"


def reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads what was committed."""
    file = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=LOCKED_S)
    file.isolation_level = None
    file.execute("pragma cache_size = -64000")
    return file


def opened(path: Path | None) -> sqlite3.Connection:
    """The file, or a fresh one where it is no database any more: nothing in it is not in the log."""
    for attempt in (0, 1):
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            file = sqlite3.connect(path or ":memory:", timeout=LOCKED_S, isolation_level=None)
            file.execute(f"pragma journal_mode = {JOURNAL}")
            file.execute("pragma synchronous = off")  # of a power failure it may die: it is made again
            file.execute("pragma secure_delete = on")  # what was erased leaves no trace
            file.execute("pragma cache_size = -200000")
            file.executescript(_SCRIPT)
            return file
        except sqlite3.DatabaseError as error:
            if path is None or attempt or "lock" in str(error):
                raise StoreError(f"{path} cannot be opened", error, remedy="delete it") from error
            for end in ("", "-wal", "-shm"):
                Path(f"{path}{end}").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{path} cannot be made", error, remedy="check the folder's rights") from error
    raise AssertionError("unreachable")
