"""Locks between processes of one machine: the system's lock on a file, which ends with its process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from escultor.store.files import wrap_os_errors


def file_lock(path: Path) -> FileLock:
    """A lock that is not held yet, for `acquire` and `release` by any thread.

    Without the library's fallback for disks that know no locks: a marker file would outlive a killed process.
    """
    return FileLock(path, thread_local=False, fallback_to_soft=False)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file, made where it does not exist; waits for whoever holds it.

    Raises StoreError where the file cannot be written or its disk knows no locks.
    """
    lock = file_lock(path)
    with wrap_os_errors("lock", path):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
