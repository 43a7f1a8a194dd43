"""Opening a log: create its table, upgrade an older one, refuse one from a newer version."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from escultor.errors import ConfigError, LocationError, StoreError
from escultor.store.database import BUSY_S, connect, display_url, reading, wrap_database_errors, writing
from escultor.store.log import Log

# Every revision this version knows, oldest first; a test compares them with the files in `migrations`.
REVISIONS = ("0001", "0002", "0003", "0004", "0005")
HEAD = REVISIONS[-1]
_VERSIONS = "alembic_version"


def open_log(url: str | URL) -> Log:
    """Open the log at a database url, creating or upgrading its table where needed. Safe for concurrent
    processes. Raises StoreError when the database cannot be reached, the file is none, or a newer version of
    escultor wrote it (it is left unchanged); ConfigError when the url cannot be parsed."""
    try:
        engine = connect(make_url(url))
    except (ArgumentError, ValueError) as error:
        # The error's own message may hold the password.
        raise ConfigError(
            "the url of the store cannot be read",
            type(error).__name__,
            "postgresql://user:password@host:port/name, with special characters as %XX",
            "correct store.url",
        ) from None
    try:
        with reading(engine) as connection:
            revision = _revision(connection, engine)
        log = Log(engine)
        if engine.dialect.name == "sqlite" and not log.is_read_only:
            _write_ahead(engine)
        if revision != HEAD:
            with writing(engine) as connection:
                # Another process may have upgraded the store while this one waited for the lock.
                if _revision(connection, engine) != HEAD:
                    _upgrade(connection, engine)
    except BaseException:
        engine.dispose()
        raise
    return log


def _revision(connection: Connection, engine: Engine) -> str | None:
    """The store's schema revision; None for an empty database. Read without alembic, whose import is slow."""
    if not inspect(connection).has_table(_VERSIONS):
        return None
    revisions = connection.execute(text(f"SELECT version_num FROM {_VERSIONS}")).scalars().all()
    if not revisions:
        return None
    if len(revisions) > 1 or revisions[0] not in REVISIONS:
        raise LocationError(
            f"the store {display_url(engine)} was made by a newer version of escultor or another program",
            f"schema revision {', '.join(revisions)}",
            f"revisions up to {HEAD}",
            "upgrade escultor (pip install --upgrade escultor), or use another store; nothing was changed",
        )
    return revisions[0]


def _write_ahead(engine: Engine) -> None:
    """Switch the file to write-ahead logging, which lets readers and one writer work concurrently. Raises
    StoreError where the file system does not support it."""
    deadline = time.monotonic() + BUSY_S
    while True:
        # SQLite does not wait for a busy file when the mode changes, so this loop does; the mode cannot
        # change inside a transaction, so the driver's own connection is used.
        raw = None
        try:
            with wrap_database_errors(engine, "open"):
                raw = engine.raw_connection()
                cursor = raw.cursor()
                mode = cursor.execute("PRAGMA journal_mode=WAL").fetchone()[0]
                cursor.close()
            break
        except StoreError as error:
            if "locked" not in str(error.got) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        finally:
            if raw is not None:
                raw.close()
    if mode != "wal":
        what = f"the store {display_url(engine)} lies where SQLite cannot keep a write-ahead log"
        remedy = "move the store to a local disk, or use postgresql://"
        raise StoreError(what, f"journal mode {mode}", "a file on a local disk", remedy)


def _upgrade(connection: Connection, engine: Engine) -> None:
    """Run the missing migrations inside the connection's transaction: all of them, or none."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    place = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", place.replace("%", "%%"))
    try:
        command.upgrade(config, HEAD)
    except CommandError as error:
        raise StoreError(f"could not upgrade the store {display_url(engine)}", error) from error
