"""Content-addressed blobs in a folder: each is named by the hash of its content.

bytes/<2 digits>/<hash>             bytes
trees/<hash>/files/…                a folder's files, read-only
trees/<hash>/manifest.json          their names, hashes and sizes; written last
partial/                            writes in progress; leftovers of dead processes are removed after a day
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from escultor.errors import InputError, StoreError
from escultor.ids import HASH_LENGTH, hash_bytes, hash_file, hash_value
from escultor.store import files

MANIFEST = "manifest.json"
FILES = "files"  # the folder of a tree's files
_HASH = re.compile(f"[0-9a-f]{{{HASH_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree."""

    name: str  # relative, with forward slashes
    hash: str
    size: int


def tree_hash(folder: Path) -> str:
    """The hash that `put_tree` gives a folder; nothing is stored. Raises DataError for a folder that cannot
    be stored, StoreError when it cannot be read."""
    with files.wrap_os_errors("read the folder", folder):
        return _identity(Entry(name, hash_file(path), 0) for name, path in files.list_files(folder))


def sibling_tree(folder: Path, tree: str) -> Path | None:
    """The folder of another tree in the store that holds `folder`; None where `folder` is in no store, or the
    store does not hold that complete tree."""
    if folder.name != FILES or len(folder.parents) < 3:
        return None
    try:
        return Blobs(folder.parents[2]).tree(tree)
    except (StoreError, InputError):
        return None


class Blobs:
    """Stores bytes and folders under their hash. Nothing is overwritten; what was erased is removed."""

    def __init__(self, root: Path):
        self.root = root

    def put_bytes(self, data: bytes) -> str:
        """Store bytes, durable when this returns their hash. Raises StoreError when writing fails."""
        hash = hash_bytes(data)
        with files.wrap_os_errors("store bytes in", self.root):
            if not self._bytes(hash).is_file():
                return self.put_chunks([data])
            self._touch(self._bytes(hash))
            return hash

    def put_chunks(self, chunks: Iterable[bytes]) -> str:
        """Store concatenated chunks as `put_bytes` does, with one chunk in memory at a time."""
        with files.wrap_os_errors("store bytes in", self.root), files.temporary_path(self._partial) as draft:
            hash, _ = files.write_file(draft, chunks)
            if not self._bytes(hash).is_file():
                self._rename(draft, self._bytes(hash))
            else:
                self._touch(self._bytes(hash))
        return hash

    def put_file(self, source: Path) -> str:
        """Store the content of a file as `put_bytes` does, in constant memory."""
        with files.wrap_os_errors("store a file in", self.root), source.open("rb") as file:
            return self.put_chunks(iter(lambda: file.read(files.CHUNK_BYTES), b""))

    def file(self, hash: str) -> Path:
        """The file that holds bytes, for reading only and not re-hashed. Raises StoreError when absent."""
        if not self._bytes(hash).is_file():
            raise self._absent("bytes", hash)
        return self._bytes(hash)

    def has_bytes(self, hash: str) -> bool:
        """Whether there are bytes of this hash."""
        return self._bytes(hash).is_file()

    def get_bytes(self, hash: str) -> bytes:
        """The bytes with this hash. Raises StoreError when they are absent or damaged."""
        path = self._bytes(hash)
        with files.wrap_os_errors("read", path):
            if not path.is_file():
                raise self._absent("bytes", hash)
            data = path.read_bytes()
        if hash_bytes(data) != hash:
            raise _damaged(path, hash_bytes(data))
        return data

    def each_bytes(self) -> list[str]:
        """The hashes of all bytes."""
        return sorted(path.name for path in (self.root / "bytes").glob("??/*") if _HASH.fullmatch(path.name))

    def remove_bytes(self, hash: str) -> None:
        """Remove bytes that hold what was erased; nothing is done where they are absent."""
        path = self._bytes(hash)
        with files.wrap_os_errors("remove", path):
            if path.exists():
                path.chmod(0o600)  # Windows removes nothing that is read-only
                path.unlink()
                files.sync(path.parent)

    def put_tree(self, folder: Path) -> str:
        """Store a copy of every file below a folder, durable when this returns its hash. Links to files
        become files; empty folders are left out. Raises DataError for a folder that cannot be stored,
        StoreError when it cannot be written."""
        with files.wrap_os_errors("store files in", self.root), files.temporary_path(self._partial) as draft:
            entries = tuple(self._copy(folder, draft / FILES))
            hash = _identity(entries)
            manifest = {"files": [asdict(entry) for entry in entries]}
            files.write_file(draft / MANIFEST, [json.dumps(manifest, indent=1).encode()])
            files.sync(draft)
            self._rename(draft, self._tree(hash))
        self.tree(hash)  # an existing copy may be damaged
        self._touch(self._tree(hash))
        return hash

    def tree(self, hash: str) -> Path:
        """The local folder with the files of a tree, for reading only; `verify` checks their content. Raises
        StoreError when the tree is absent, or a file is missing or has another size."""
        for entry in self._manifest(hash):
            path = self._files(hash) / entry.name
            if not path.is_file() or path.stat().st_size != entry.size:
                got = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
                raise _damaged(path, got, f"{entry.size} bytes")
        return self._files(hash)

    def verify(self, hash: str) -> None:
        """Hash the stored content again. Raises a StoreError that names each damaged file."""
        if self._bytes(hash).is_file():
            self.get_bytes(hash)
            return
        entries = {entry.name: entry for entry in self._manifest(hash)}
        with files.wrap_os_errors("read", self._files(hash)):
            top = self._files(hash)
            present = {path.relative_to(top).as_posix(): path for path in top.rglob("*") if path.is_file()}
            bad = [name for name in entries if name not in present]
            bad += [
                name
                for name, path in present.items()
                if name not in entries or hash_file(path) != entries[name].hash
            ]
        if bad:
            raise _damaged(self._files(hash), ", ".join(sorted(bad)), "the files of the manifest, unchanged")

    @property
    def _partial(self) -> Path:
        return self.root / "partial"

    def _bytes(self, hash: str) -> Path:
        return self.root / "bytes" / _checked_hash(hash)[:2] / hash

    def _tree(self, hash: str) -> Path:
        return self.root / "trees" / _checked_hash(hash)

    def _files(self, hash: str) -> Path:
        return self._tree(hash) / FILES

    def _copy(self, folder: Path, target: Path) -> Iterable[Entry]:
        """Copy and sync every file and the folders around it."""
        listed = files.list_files(folder)
        folders = {target}
        for name, source in listed:
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            folders |= {parent for parent in path.parents if parent.is_relative_to(target)}
            hash, size = files.copy_file(source, path)
            yield Entry(name, hash, size)
        for path in folders:
            files.sync(path)

    def _touch(self, path: Path) -> None:
        """Say that a blob is in use again: `garbage` leaves young ones alone."""
        with suppress(PermissionError):  # another user's store
            os.utime(path)

    def _rename(self, draft: Path, path: Path) -> None:
        """Rename into place and sync the new name. A folder that exists already stays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        for folder in (path.parent, path.parent.parent, self.root):
            files.sync(folder)

    def _manifest(self, hash: str) -> list[Entry]:
        path = self._tree(hash) / MANIFEST
        if not self._tree(hash).is_dir():
            raise self._absent("a tree", hash)
        try:
            data: Any = json.loads(path.read_bytes())
            entries = [Entry(**entry) for entry in data["files"]]
        except FileNotFoundError as error:
            raise _damaged(self._tree(hash), f"no {MANIFEST}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, error) from error
        if (actual := _identity(entries)) != hash:
            raise _damaged(path, actual, hash)
        return entries

    def _absent(self, what: str, hash: str) -> StoreError:
        remedy = "copy it from the store that holds it, or create it again"
        return StoreError(f"the store holds no such {what.split()[-1]} in {self.root}", hash, None, remedy)


def _identity(entries: Iterable[Entry]) -> str:
    """The hash of a tree: of its sorted (file name, file hash) pairs."""
    return hash_value(sorted((entry.name, entry.hash) for entry in entries))


def _checked_hash(hash: str) -> str:
    # A hash becomes part of a path: any other text could point outside the store.
    if not _HASH.fullmatch(hash):
        raise InputError("not the hash of a blob", repr(hash), f"{HASH_LENGTH} lower-case hex digits")
    return hash


def _damaged(path: Path, got: object, allowed: object = None) -> StoreError:
    remedy = "remove it from the store and store the original again, or restore a copy of the store"
    return StoreError(f"damaged or half-written: {path}", got, allowed, remedy)
