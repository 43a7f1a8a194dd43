"""Files that survive a power cut: written under a temporary name, synced, and only then put in place."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from escultor.errors import DataError, LocationError, StoreError
from escultor.ids import HASH_LENGTH, new_id

PIECE = 1 << 20  # bytes held in memory while copying
STALE_S = 24 * 3600.0  # a temporary this old belongs to a process that died

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REMEDIES = {
    **dict.fromkeys(_FULL, "free disk space or raise the quota, then try again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give this user the right to read and write"),
}


@contextmanager
def explained(doing: str, place: Path) -> Iterator[None]:
    """Turn the system's errors into StoreError: what was being done, where, why, and the remedy."""
    try:
        yield
    except OSError as error:
        raise _refused(f"could not {doing} {place}", error) from error


def _refused(what: str, error: OSError) -> StoreError:
    remedy = _REMEDIES.get(error.errno or 0, "check the disk, then try again")
    kind = LocationError if error.errno in _FULL else StoreError
    return kind(what, error, None, remedy)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A draft beside `path`, to be written; it takes the place of `path`, synced, when all of it is there,
    and is removed otherwise. Raises StoreError (LocationError where the disk is full)."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        try:
            yield draft
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(f"{path} could not be written", error) from error


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """A fresh name inside `folder`; whatever is still under it in the end is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    path = folder / new_id(f"pid{os.getpid()}")
    try:
        yield path
    finally:
        _remove(path)


def listed(folder: Path) -> list[tuple[str, Path]]:
    """Relative name (forward slashes) and path of every file below a folder, sorted by name.

    A link to a file stands for the file; empty folders do not count. Raises DataError for what has no
    content of its own (a link to a folder, a broken link, a socket), for a name that is not Unicode,
    and for a folder without files.
    """
    if not folder.is_dir():
        raise DataError("there is no such folder", folder, "a folder with files", "check the path")
    found: list[tuple[str, Path]] = []
    for path in folder.rglob("*"):
        if path.is_file():
            found.append((path.relative_to(folder).as_posix(), path))
        elif path.is_symlink() or not path.is_dir():
            remedy = "put the files it stands for in its place, or remove it"
            raise DataError("not a file that can be stored", path, "files, folders, links to files", remedy)
    if not found:
        raise DataError("the folder holds no files", folder, "a folder with files", "check the path")
    if odd := [name for name, _ in found if not _is_unicode(name)]:
        raise DataError("a file name is not Unicode", ascii(odd[0]), "names in UTF-8", "rename the file")
    return sorted(found)


def write_file(path: Path, data: bytes) -> None:
    """Write a read-only file; it is on disk when this returns."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o444)


def write_pieces(path: Path, pieces: Iterable[bytes]) -> str:
    """Write a read-only file, on disk when this returns; the hash of what was written."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o444)
    return digest.hexdigest()[:HASH_LENGTH]


def copy_file(source: Path, target: Path) -> tuple[str, int]:
    """Copy into a read-only file, on disk when this returns; hash and size of what was written."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while piece := reader.read(PIECE):
            digest.update(piece)
            size += len(piece)
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o444)
    return digest.hexdigest()[:HASH_LENGTH], size


def sync_folder(folder: Path) -> None:
    """Put the names inside a folder on disk."""
    handle = os.open(folder, os.O_RDONLY)
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


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind; young temporaries may be somebody's work."""
    for path in folder.iterdir():
        try:
            old = time.time() - path.stat().st_mtime > STALE_S
        except FileNotFoundError:
            continue  # its owner was quicker
        if old:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
