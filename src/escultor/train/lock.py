"""One run at a time in a folder: the system's lock on a file in it, which dies with its process."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from escultor.errors import EscultorError, InputError
from escultor.store.files import explained
from escultor.train.distributed import World
from escultor.train.filenames import LOCK


@contextmanager
def held(folder: Path, world: World) -> Iterator[None]:
    """Hold `folder`, made where it is not there, for one run; all of its processes call this alike, the first
    takes the lock. A lock file that a killed process left behind holds nothing.

    Raises InputError in all of them where another run holds it, with who that is, and StoreError where the
    folder cannot be written or its disk knows no locks. Folders made for nothing are removed again.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    refused: EscultorError | None = None
    handle = -1
    if world.first:
        try:
            handle = _taken(folder)
        except EscultorError as error:
            refused = error
    refused = world.gather(refused)[0]
    try:
        if refused is not None:
            raise refused
        yield
    finally:
        if handle >= 0:
            (folder / LOCK).unlink(missing_ok=True)  # first, so that whoever has it open sees that it is gone
            os.close(handle)
        if world.first:
            _remove_empty(made)


def _taken(folder: Path) -> int:
    """The open file under the lock, in which stands who holds it."""
    path = folder / LOCK
    while True:
        with explained("hold", folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:
                continue  # a run that was refused has just removed the folder that it had made
            except FileExistsError:  # the same, between two looks of mkdir; a file in its place stays one
                if folder.exists() and not folder.is_dir():
                    raise
                continue
        try:
            with explained("lock", path):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise _in_use(folder, handle) from None
            if _is_still(path, handle):
                os.ftruncate(handle, 0)
                os.pwrite(handle, _own_name().encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # of a run that has just ended and removed its file: there is a new one to take


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _own_name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _in_use(folder: Path, handle: int) -> InputError:
    return InputError(
        f"another run is at work in {folder}",
        os.pread(handle, 200, 0).decode(errors="replace") or "a process that has just begun",
        "one run at a time",
        "wait until it is done (the same command then takes what it made), or give another --out",
    )


def _remove_empty(folders: list[Path]) -> None:
    for path in folders:
        try:
            path.rmdir()
        except OSError:  # something lies in it, or it is gone
            return
