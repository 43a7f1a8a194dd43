"""Durable files (written under a temporary name, synced, then renamed into place), and locks on files."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from escultor.errors import DataError, LocationError, StoreError
from escultor.ids import HASH_LENGTH, hash_bytes, new_id

CHUNK_BYTES = 1 << 20  # held in memory while copying
_HOST = hash_bytes(platform.node().encode())[:8]  # of this machine or container, whose processes are known
STALE_S = 24 * 3600.0  # a temporary path this old belongs to a dead process

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REMEDIES = {
    **dict.fromkeys(_FULL, "free disk space or raise the quota, then try again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give this user the right to read and write"),
}


@contextmanager
def wrap_os_errors(action: str, path: Path) -> Iterator[None]:
    """Turn OSError into StoreError, which says what failed, where, why and the remedy."""
    try:
        yield
    except OSError as error:
        raise _store_error(f"could not {action} {path}", error) from error


def _store_error(what: str, error: OSError) -> StoreError:
    remedy = _REMEDIES.get(error.errno or 0, "check the disk, then try again")
    kind = LocationError if error.errno in _FULL else StoreError
    return kind(what, error, None, remedy)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A draft path to write; it is synced and replaces `path` if the block succeeds, else it is removed.
    Raises StoreError (LocationError where the disk is full)."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        try:
            yield draft
            sync(draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise _store_error(f"{path} could not be written", error) from error


@contextmanager
def temporary_path(folder: Path) -> Iterator[Path]:
    """A fresh path inside `folder`; whatever is left there at the end is removed. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    path = folder / owner_name()
    try:
        yield path
    finally:
        _remove(path)


def list_files(folder: Path) -> list[tuple[str, Path]]:
    """Relative name (forward slashes) and path of every file below a folder, sorted by name. Links to files
    are followed; empty folders are skipped. Raises DataError for anything else (a link to a folder, a broken
    link, a socket), for a name that is not Unicode, and for a folder without files."""
    if not folder.is_dir():
        raise DataError("there is no such folder", folder, "a folder with files", "check the path")
    entries: list[tuple[str, Path]] = []
    for path in folder.rglob("*"):
        if path.is_file():
            entries.append((path.relative_to(folder).as_posix(), path))
        elif path.is_symlink() or not path.is_dir():
            remedy = "replace it by the files it points to, or remove it"
            raise DataError("not a file that can be stored", path, "files, folders, links to files", remedy)
    if not entries:
        raise DataError("the folder holds no files", folder, "a folder with files", "check the path")
    if odd := [name for name, _ in entries if not _is_unicode(name)]:
        raise DataError("a file name is not Unicode", ascii(odd[0]), "names in UTF-8", "rename the file")
    return sorted(entries)


def write_file(path: Path, chunks: Iterable[bytes]) -> tuple[str, int]:
    """Write a read-only file, durable when this returns; returns hash and size in bytes."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o444)
    return digest.hexdigest()[:HASH_LENGTH], size


def copy_file(source: Path, target: Path) -> tuple[str, int]:
    """Copy into a read-only file as `write_file` does."""
    with source.open("rb") as reader:
        return write_file(target, iter(lambda: reader.read(CHUNK_BYTES), b""))


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable. Skipped on Windows, which can sync neither
    folders nor files that are not open for writing."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def sweep(folder: Path) -> None:
    """Remove the temporary paths that killed processes of this machine left behind; and after a day those of
    processes that nothing is known about, which may still be in use."""
    for path in folder.iterdir():
        try:
            old = time.time() - path.stat().st_mtime > STALE_S
        except FileNotFoundError:
            continue  # its owner has removed it
        if old or is_owner_dead(path.name):
            _remove(path)


def owner_name() -> str:
    """A new name that says which process of which machine it belongs to."""
    return new_id(f"pid{os.getpid()}.{_HOST}")


def is_owner_dead(name: str) -> bool:
    """Whether an `owner_name` belongs to a process of this machine that has ended."""
    pid, _, host = name.partition("-")[0].removeprefix("pid").partition(".")
    if host != _HOST or not pid.isdigit() or os.name == "nt":  # where signal 0 would end the process
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# --- locks between processes of one machine: the system's lock on a file, which ends with its process -----


def file_lock(path: Path) -> FileLock:
    """A lock that is not held yet, for `acquire` and `release` by any thread. Without the library's fallback
    for disks without locks: a marker file would outlive a killed process."""
    return FileLock(path, thread_local=False, fallback_to_soft=False)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file, made where it is missing; waits until it is free. Raises StoreError
    where the file cannot be written or its disk has no locks."""
    lock = file_lock(path)
    with wrap_os_errors("lock", path):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
