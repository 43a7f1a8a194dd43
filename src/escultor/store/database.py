"""Connections to SQLite and PostgreSQL: durable commits, one writer at a time, explained errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from escultor.errors import StoreError

READ_ONLY = "ro"  # the mode in the url of a file that may not be written
BUSY_S = 30.0  # how long a writer waits for another one
_LOCK = 0x657363756C746F72  # "escultor": the advisory lock of PostgreSQL's writers
_WRITING = "escultor_writing"

# Part of a driver's message, and the remedy.
_REMEDIES = (
    ("not a database", "point the store's url at a folder or at a file that escultor made"),
    ("malformed", "the file is damaged; restore the store from a copy"),
    ("locked", f"another process held the store for {BUSY_S:.0f} s; end it, then try again"),
    ("is full", "free disk space, then try again; nothing of this write was kept"),
    ("disk i/o error", "check the disk and its free space, then try again; nothing of this write was kept"),
    ("readonly", "give this user the right to write there"),
    ("unable to open", "check that the folder exists and that this user may write in it"),
    ("connection", "check that the server runs and that host, user, password and database are right"),
)


def connect(url: URL) -> Engine:
    """An engine whose commits are durable when they return, and whose errors do not show what was written.
    Raises StoreError when the driver is not installed."""
    try:
        if url.get_backend_name() == "sqlite":
            engine = create_engine(url, connect_args={"timeout": BUSY_S}, hide_parameters=True)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            # A snapshot per statement: reads after the writers' lock was taken are up to date.
            engine = create_engine(
                url, isolation_level="READ COMMITTED", pool_pre_ping=True, hide_parameters=True
            )
    except ImportError as error:
        remedy = "install it: pip install 'escultor[postgres]'"
        raise StoreError("the driver for the store is not installed", error.name, None, remedy) from error
    return engine


def display_url(engine: Engine) -> str:
    """The store's url without its password."""
    return engine.url.render_as_string(hide_password=True)


@contextmanager
def wrap_database_errors(engine: Engine, action: str) -> Iterator[None]:
    """Turn the drivers' errors into StoreError, which says what failed, where, why and the remedy."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        got = " ".join(str(getattr(error, "orig", None) or error).split())
        remedy = next((remedy for part, remedy in _REMEDIES if part in got.lower()), None)
        raise StoreError(f"could not {action} the store {display_url(engine)}", got, None, remedy) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for one short read."""
    with wrap_database_errors(engine, "read"), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that holds the writers' lock, so that sequence order is commit order. Otherwise a reader
    that follows the log by sequence number would miss an entry whose number was assigned early and committed
    late."""
    with wrap_database_errors(engine, "write to"), engine.connect() as connection:
        connection = connection.execution_options(**{_WRITING: True})
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield connection


def scrub(engine: Engine, rebuild: bool = True) -> None:
    """Remove what was deleted from the database's files as well.

    SQLite overwrites deleted entries with zeros (`secure_delete`), but leaves parts of those that it had
    moved between pages: the file is rebuilt, which takes as long as copying it, unless `rebuild` is off. The
    write-ahead log, which holds older pages, is checkpointed and truncated. PostgreSQL is vacuumed, and its
    statistics are recomputed. Raises StoreError when a reader holds old pages longer than `BUSY_S`.
    """
    with wrap_database_errors(engine, "scrub"), engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text("VACUUM (ANALYZE) log, mention"))
            return
        raw = connection.connection.cursor()
        if rebuild:
            raw.execute("VACUUM")
        busy = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        raw.close()
    if busy:
        raise StoreError(
            f"erased content has left the store {display_url(engine)}, but its bytes are still in its files",
            f"a reader has kept old pages for {BUSY_S:.0f} s",
            None,
            "end long-running readers, then erase the subject again (after a purge: wait for the next one)",
        )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transaction handling would commit before DDL; `_begin_sqlite` takes its place.
    connection.isolation_level = None
    # FULL: a commit in WAL mode is synced before it returns. NORMAL could lose the last ones.
    connection.execute("PRAGMA synchronous=FULL").close()
    # Deleted content is overwritten with zeros; appending costs nothing more.
    connection.execute("PRAGMA secure_delete=ON").close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes its lock at once: upgrading a reader's lock could fail without waiting.
    kind = "BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITING) else "BEGIN"
    connection.exec_driver_sql(kind)
