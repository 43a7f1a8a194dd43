"""One run at a time in a folder: the system's lock on a file in it, which ends with its process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from escultor.errors import EscultorError, InputError
from escultor.store.files import file_lock, wrap_os_errors
from escultor.train.distributed import World
from escultor.train.filenames import LOCK, LOCK_OWNER

WAIT_S, POLL_S = 0.1, 0.01  # tried again: a lock file that was just removed looks as if it were held


@contextmanager
def held(folder: Path, world: World) -> Iterator[None]:
    """Hold `folder`, made where it does not exist, for one run. All processes of the run call this alike; the
    first one takes the lock. A lock file that a killed process left behind holds nothing.

    Raises InputError in all of them where another run holds the folder, naming its process, and StoreError
    where the folder cannot be written or its disk has no locks. Folders made in vain are removed again.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    refused: EscultorError | None = None
    lock = file_lock(folder / LOCK)
    if world.is_first:
        try:
            _acquire(lock, folder)
        except EscultorError as error:
            refused = error
    refused = world.gather(refused)[0]
    try:
        if refused is not None:
            raise refused
        yield
    finally:
        if lock.is_locked:
            (folder / LOCK_OWNER).unlink(missing_ok=True)
            with suppress(PermissionError):  # Windows: an open file stays, and its release removes it
                (folder / LOCK).unlink(missing_ok=True)
            lock.release()
        if world.is_first:
            _remove_empty(created)


def _acquire(lock: FileLock, folder: Path) -> None:
    """Take the lock and write beside it which process holds it."""
    with wrap_os_errors("lock", folder / LOCK):
        while not lock.is_locked:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=WAIT_S, poll_interval=POLL_S)
            except Timeout:
                raise _in_use(folder) from None
            except FileNotFoundError:
                continue  # a run that was refused has just removed the folder that it had made
            except FileExistsError:  # the same, inside mkdir; but a file where the folder should be stays
                if folder.exists() and not folder.is_dir():
                    raise
        started = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        owner = f"process {os.getpid()} on {socket.gethostname()} since {started}"
        (folder / LOCK_OWNER).write_text(owner, encoding="utf-8")


def _in_use(folder: Path) -> InputError:
    try:
        owner = (folder / LOCK_OWNER).read_text(encoding="utf-8", errors="replace")
    except OSError:
        owner = ""
    what = f"another run is at work in {folder}"
    remedy = "wait until it is done (the same command then takes what it made), or give another --out"
    return InputError(what, owner or "a process that has just begun", "one run at a time", remedy)


def _remove_empty(folders: list[Path]) -> None:
    for path in folders:
        try:
            path.rmdir()
        except OSError:  # something lies in it, or it is gone
            return
