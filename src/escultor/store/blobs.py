"""Content-addressed blobs in a folder: the name of a thing is the hash of what it holds.

bytes/<2 digits>/<hash>             bytes
trees/<hash>/files/…                a folder's files, read-only
trees/<hash>/manifest.json          their names, hashes and sizes; written last
partial/                            writes under way; those of dead processes are swept when old
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from escultor.errors import InputError, StoreError
from escultor.ids import HASH_LENGTH, hash_bytes, hash_file, hash_value
from escultor.store import files

MANIFEST = "manifest.json"
FILES = "files"  # of a tree
_HASH = re.compile(f"[0-9a-f]{{{HASH_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree."""

    name: str  # relative, with forward slashes
    hash: str
    size: int


def tree_hash(folder: Path) -> str:
    """The hash that `put_tree` would give a folder; nothing is stored.

    Raises DataError for a folder that cannot be stored, StoreError when it cannot be read.
    """
    with files.explained("read the folder", folder):
        return _identity(Entry(name, hash_file(path), 0) for name, path in files.listed(folder))


def sibling_tree(folder: Path, tree: str) -> Path | None:
    """The folder of another tree in the store of which `folder` holds one; None where it is in no store, or
    the store does not hold that tree whole."""
    if folder.name != FILES or len(folder.parents) < 3:
        return None
    try:
        return Blobs(folder.parents[2]).tree(tree)
    except (StoreError, InputError):
        return None


class Blobs:
    """Puts bytes and folders under their hash and hands them back. Nothing is ever overwritten."""

    def __init__(self, root: Path):
        self.root = root

    def put_bytes(self, data: bytes) -> str:
        """Store bytes; they are on disk when this returns their hash.

        Raises StoreError when they cannot be written; nothing half-written is left.
        """
        hash = hash_bytes(data)
        path = self._bytes(hash)
        with files.explained("store bytes in", self.root):
            if not path.is_file():
                with files.temporary(self._partial) as draft:
                    files.write_file(draft, data)
                    self._place(draft, path)
        return hash

    def put_chunks(self, pieces: Iterable[bytes]) -> str:
        """Store pieces one behind the other as `put_bytes` would their sum, one in memory at a time."""
        with files.explained("store bytes in", self.root), files.temporary(self._partial) as draft:
            hash = files.write_pieces(draft, pieces)
            if not self._bytes(hash).is_file():
                self._place(draft, self._bytes(hash))
        return hash

    def put_file(self, source: Path) -> str:
        """Store the bytes of a file as `put_bytes` would, in memory never more than a piece of them."""
        with files.explained("store a file in", self.root), files.temporary(self._partial) as draft:
            hash, _ = files.copy_file(source, draft)
            if not self._bytes(hash).is_file():
                self._place(draft, self._bytes(hash))
        return hash

    def file(self, hash: str) -> Path:
        """The file that holds bytes, for reading only. Content is not re-hashed: `verify`.

        Raises StoreError when they are absent.
        """
        if not self._bytes(hash).is_file():
            raise self._absent("bytes", hash)
        return self._bytes(hash)

    def get_bytes(self, hash: str) -> bytes:
        """The bytes under a hash. Raises StoreError when they are absent or damaged."""
        path = self._bytes(hash)
        with files.explained("read", path):
            if not path.is_file():
                raise self._absent("bytes", hash)
            data = path.read_bytes()
        if hash_bytes(data) != hash:
            raise _damaged(path, hash_bytes(data))
        return data

    def put_tree(self, folder: Path) -> str:
        """Store a copy of every file below a folder; it is on disk when this returns its hash.

        Links to files become files; empty folders are left out. Raises DataError for a folder that
        cannot be stored, StoreError when it cannot be written; nothing half-written is left.
        """
        with files.explained("store a folder in", self.root), files.temporary(self._partial) as draft:
            found = tuple(self._copy(folder, draft / FILES))
            hash = _identity(found)
            manifest = {"files": [asdict(entry) for entry in found]}
            files.write_file(draft / MANIFEST, json.dumps(manifest, indent=1).encode())
            files.sync_folder(draft)
            self._place(draft, self._tree(hash))
        self.tree(hash)  # what was there before may have been damaged since
        return hash

    def tree(self, hash: str) -> Path:
        """The local folder with the files of a tree: for reading only.

        Raises StoreError when the tree is absent or not whole. Content is not re-hashed: `verify`.
        """
        for entry in self._manifest(hash):
            path = self._files(hash) / entry.name
            if not path.is_file() or path.stat().st_size != entry.size:
                got = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
                raise _damaged(path, got, f"{entry.size} bytes")
        return self._files(hash)

    def verify(self, hash: str) -> None:
        """Read everything under a hash again. Raises StoreError that names each damaged file."""
        if self._bytes(hash).is_file():
            self.get_bytes(hash)
            return
        entries = {entry.name: entry for entry in self._manifest(hash)}
        with files.explained("read", self._files(hash)):
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
        return self.root / "bytes" / _proper(hash)[:2] / hash

    def _tree(self, hash: str) -> Path:
        return self.root / "trees" / _proper(hash)

    def _files(self, hash: str) -> Path:
        return self._tree(hash) / FILES

    def _copy(self, folder: Path, target: Path) -> Iterable[Entry]:
        """Copy and sync files and the folders they lie in."""
        listed = files.listed(folder)
        folders = {target}
        for name, source in listed:
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            folders |= {parent for parent in path.parents if parent.is_relative_to(target)}
            hash, size = files.copy_file(source, path)
            yield Entry(name, hash, size)
        for each in folders:
            files.sync_folder(each)

    def _place(self, draft: Path, path: Path) -> None:
        """Rename into place, and put the new name on disk. A folder that is there already stays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        for folder in (path.parent, path.parent.parent, self.root):
            files.sync_folder(folder)

    def _manifest(self, hash: str) -> list[Entry]:
        path = self._tree(hash) / MANIFEST
        if not self._tree(hash).is_dir():
            raise self._absent("a tree", hash)
        try:
            data: Any = json.loads(path.read_bytes())
            found = [Entry(**entry) for entry in data["files"]]
        except FileNotFoundError as error:
            raise _damaged(self._tree(hash), f"no {MANIFEST}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, error) from error
        if _identity(found) != hash:
            raise _damaged(path, _identity(found), hash)
        return found

    def _absent(self, what: str, hash: str) -> StoreError:
        remedy = "copy it from the store that holds it, or make it again"
        return StoreError(f"the store holds no such {what.split()[-1]} in {self.root}", hash, None, remedy)


def _identity(entries: Iterable[Entry]) -> str:
    """The hash of a tree: of the sorted names and the hashes of their files."""
    return hash_value(sorted((entry.name, entry.hash) for entry in entries))


def _proper(hash: str) -> str:
    # A hash becomes part of a path; anything else could point outside the store.
    if not _HASH.fullmatch(hash):
        raise InputError("not the hash of a blob", repr(hash), f"{HASH_LENGTH} lower-case hex digits")
    return hash


def _damaged(path: Path, got: object, allowed: object = None) -> StoreError:
    remedy = "remove it from the store and put the original again, or restore a copy of the store"
    return StoreError(f"damaged or half-written: {path}", got, allowed, remedy)
