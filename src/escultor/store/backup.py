"""Copies of a whole store: taken while others write, checked when they are put back.

    log.db         every table, as of one moment, in SQLite whatever the store's database is
    blobs/         the blobs; those that a backup holds already are not copied again
    *.key          the secrets with which people's names and tokens are recognised
    verdicts/      the pages of verdicts
    backup.json    the last file to be written: when, from where, how many entries

A backup holds what was erased after it was taken: what is restored from it has to be erased again. The next
backup into the same folder removes it there.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, text

from escultor.errors import InputError, StoreError
from escultor.store import Store, files, open_store
from escultor.store.blobs import FILES, MANIFEST, Blobs
from escultor.store.database import wrap_database_errors, writing
from escultor.store.garbage import remove_blob
from escultor.store.tables import metadata

MARKER = "backup.json"
LOCK = "backup.lock"  # of the one that writes
DRAFT = "log.db.partial"  # until the backup is whole; a folder with it holds one that was cut off
FORMAT = "escultor-backup/1"
CHUNK_ROWS = 2000
PAGES = "verdicts"


def back_up(store: Store, target: Path) -> dict[str, Any]:
    """Copy a store into a folder, new or with an earlier backup of it, which stays whole until the new one
    is. Returns what `backup.json` says. Raises InputError for a folder that holds anything else, StoreError
    when reading or writing fails."""
    names = {path.name for path in target.iterdir()} if target.exists() else set()
    if names and names.isdisjoint((MARKER, LOCK, DRAFT)):
        raise InputError("the folder holds something else", target, "a new folder, or one with a backup")
    if target.resolve().is_relative_to(store.root.resolve()):
        raise InputError(
            "a backup inside the store would keep what is erased", target, f"outside {store.root}"
        )
    with files.wrap_os_errors("write the backup", target):
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        with files.locked(target / LOCK):
            return _copy_store(store, target)


def _copy_store(store: Store, target: Path) -> dict[str, Any]:
    draft = target / DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    with open_store(f"sqlite:///{draft / 'log.db'}", blobs=target / "blobs") as copy:
        rows = _copy_rows(store, copy)
        # Blobs are there before the entries that name them: a copy made after the rows misses none.
        counts = _copy_blobs(store.blobs, target / "blobs")
        last = copy.log.last_seq()
        _fold_wal(copy)
    for key in store.root.glob("*.key"):
        _replace(key, target / key.name)
    if (store.root / PAGES).is_dir():
        shutil.copytree(store.root / PAGES, target / PAGES, dirs_exist_ok=True)
    for page in [path for path in (target / PAGES).rglob("*") if path.is_file()]:
        if not (store.root / page.relative_to(target)).exists():
            page.unlink()  # the store has erased it since
    (draft / "log.db").replace(target / "log.db")
    found = {"format": FORMAT, "time": time.time(), "last_entry": last, "rows": rows, **counts}
    with files.atomic_write(target / MARKER) as path:
        path.write_text(json.dumps(found, indent=1))
    shutil.rmtree(draft, ignore_errors=True)
    for hash in {*list_blobs(Blobs(target / "blobs"))} - {*list_blobs(store.blobs)}:
        remove_blob(Blobs(target / "blobs"), hash)  # the store has erased it since
    return found


def restore(backup: Path, url: str) -> dict[str, Any]:
    """Make a store at `url`, which must not exist or be empty, from a backup, of which every blob is hashed
    again. Returns what the backup says of itself. Raises InputError for a folder that is no backup or a store
    that is not empty, StoreError for a damaged backup (nothing is in the store then)."""
    try:
        known = json.loads((backup / MARKER).read_text())
        is_backup = known["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("there is no backup in this folder", backup, f"a folder with {MARKER}") from error
    if not is_backup:
        raise InputError("the backup is of another version", known["format"], FORMAT, "upgrade escultor")
    held = Blobs(backup / "blobs")
    for hash in list_blobs(held):
        held.verify(hash)
    with open_store(url) as store, _reading_copy(backup) as copy:
        if store.log.last_seq():
            raise InputError("the store is not empty", url, "a store that does not exist yet")
        _copy_blobs(held, store.blobs.root)
        with files.wrap_os_errors("restore", store.root):
            for key in backup.glob("*.key"):
                _replace(key, store.root / key.name)
            if (backup / PAGES).is_dir():
                shutil.copytree(backup / PAGES, store.root / PAGES, dirs_exist_ok=True)
        _copy_rows(copy, store)
    return known


def list_blobs(blobs: Blobs) -> Iterator[str]:
    """The hashes of all complete blobs."""
    for path in sorted(blobs.root.glob("bytes/*/*")):
        yield path.name
    for path in sorted(blobs.root.glob(f"trees/*/{MANIFEST}")):
        yield path.parent.name


def _copy_rows(source: Store, target: Store) -> int:
    """Copy every table, as of one moment, in one transaction of the target; how many rows."""
    rows = 0
    engine = source.log._engine
    with wrap_database_errors(engine, "read"), engine.connect() as reader:
        snapshot = (
            reader.execution_options(isolation_level="REPEATABLE READ") if _is_server(reader) else reader
        )
        with writing(target.log._engine) as writer:
            for table in metadata.sorted_tables:
                result = snapshot.execution_options(yield_per=CHUNK_ROWS).execute(select(table))
                with closing(result):
                    for chunk in result.mappings().partitions(CHUNK_ROWS):
                        writer.execute(insert(table), [dict(row) for row in chunk])
                        rows += len(chunk)
            _continue_numbers(writer)
    return rows


def _continue_numbers(connection: Connection) -> None:
    """Let the next entry get a number above those that were copied."""
    if _is_server(connection):
        query = "SELECT setval(pg_get_serial_sequence('log', 'seq'), (SELECT max(seq) FROM log))"
        if connection.execute(text("SELECT max(seq) FROM log")).scalar() is not None:
            connection.execute(text(query))


def _is_server(connection: Connection) -> bool:
    return connection.engine.dialect.name != "sqlite"


def _fold_wal(store: Store) -> None:
    """Bring everything into the one file `log.db`."""
    with (
        wrap_database_errors(store.log._engine, "write to"),
        closing(store.log._engine.raw_connection()) as raw,
    ):
        raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _reading_copy(backup: Path) -> Iterator[Store]:
    """A private copy of the backup's log: opening it may upgrade it, and the backup stays as it is."""
    with files.wrap_os_errors("read the backup", backup), files.temporary_path(backup / "partial") as folder:
        folder.mkdir(mode=0o700)
        shutil.copyfile(backup / "log.db", folder / "log.db")
        with open_store(f"sqlite:///{folder / 'log.db'}") as copy:
            yield copy


def _copy_blobs(source: Blobs, target: Path) -> dict[str, int]:
    """Copy the blobs that the target lacks; counts of all, and of those copied."""
    found = copied = 0
    destination = Blobs(target)
    for path in sorted(source.root.glob("bytes/*/*")):
        found += 1
        if not (target / "bytes" / path.name[:2] / path.name).is_file():
            _expect(destination.put_file(path), path.name, path)
            copied += 1
    for manifest in sorted(source.root.glob(f"trees/*/{MANIFEST}")):
        found += 1
        hash = manifest.parent.name
        if not (target / "trees" / hash / MANIFEST).is_file():
            _expect(destination.put_tree(manifest.parent / FILES), hash, manifest.parent)
            copied += 1
    return {"blobs": found, "blobs_copied": copied}


def _expect(got: str, hash: str, path: Path) -> None:
    if got != hash:
        remedy = "restore this blob from an earlier backup, or remove it and create it again"
        raise StoreError(f"a blob is damaged: {path}", got, hash, remedy)


def _replace(source: Path, target: Path) -> None:
    """Copy a private file."""
    with files.atomic_write(target) as draft:
        draft.touch(mode=0o600)
        shutil.copyfile(source, draft)
