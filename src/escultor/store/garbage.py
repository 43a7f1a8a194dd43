"""Remove blobs that nothing names any more: leftovers of runs that were killed, and of what was erased.

A blob is kept if its hash occurs anywhere in the log, or in a kept blob of text (a card, a manifest, rows).
Looking for the hash itself, and not for the fields that may hold one, cannot forget a kind of record.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select

from escultor.store import Store, files
from escultor.store.blobs import MANIFEST, Blobs
from escultor.store.database import reading
from escultor.store.tables import log

# Hexadecimal digits in pieces of any length: a hash within a longer run is found by its windows.
_DIGITS = re.compile(rb"[0-9a-f]{32,}")
_LENGTH = 32
KEPT_S = 24 * 3600.0  # what was put later may be about to be named
CHUNK_ROWS = 2000
OVERLAP = 1 << 12


class Garbage(NamedTuple):
    """What was (or would be) removed, and what stays."""

    removed: int
    removed_bytes: int
    kept: int
    too_young: int


def collect(store: Store, *, dry_run: bool = False, now: float | None = None) -> Garbage:
    """Remove every blob that neither the log nor a kept blob names and that is older than a day. Raises
    StoreError when the store cannot be read or written."""
    moment = time.time() if now is None else now
    blobs = store.blobs
    bytes_of = {path.name: path for path in blobs.root.glob("bytes/*/*")}
    trees = {path.name: path for path in blobs.root.glob("trees/*")}
    known = bytes_of.keys() | trees.keys()
    kept = _named_in_log(store, known)
    queue = list(kept)
    while queue:
        hash = queue.pop()
        more = _named_in_blob(blobs, hash, known) - kept
        kept |= more
        queue += more
    removed = size = young = 0
    with files.wrap_os_errors("remove blobs of", blobs.root):
        for hash in sorted(known - kept):
            for path in (p for p in (bytes_of.get(hash), trees.get(hash)) if p is not None):
                if path.stat().st_mtime > moment - KEPT_S:
                    young += 1
                    continue
                removed += 1
                size += sum(f.stat().st_size for f in _files(path))
                if not dry_run:
                    remove_blob(blobs, hash)
    return Garbage(removed, size, len(kept), young)


def _named_in_log(store: Store, known: Set[str]) -> set[str]:
    found: set[str] = set()
    last = 0
    query = select(log.c.seq, log.c.id, log.c.target, log.c.body).order_by(log.c.seq).limit(CHUNK_ROWS)
    while True:
        with reading(store.log._engine) as connection:
            rows = connection.execute(query.where(log.c.seq > last)).all()
        if not rows:
            return found
        last = rows[-1].seq
        for row in rows:
            for text in (row.id, row.target, row.body):
                found |= _hashes((text or "").encode(), known)


def _named_in_blob(blobs: Blobs, hash: str, known: Set[str]) -> set[str]:
    """The hashes in a blob of bytes, or in the manifest and the small texts of a tree."""
    found: set[str] = set()
    tree = blobs.root / "trees" / hash
    names = [blobs.root / "bytes" / hash[:2] / hash, tree / MANIFEST, *sorted(tree.rglob("*.json"))]
    for path in names:
        if path.is_file():
            with path.open("rb") as file:
                tail = b""
                while chunk := file.read(files.CHUNK_BYTES):
                    found |= _hashes(tail + chunk, known)
                    tail = chunk[-OVERLAP:]
    return found


def _hashes(data: bytes, wanted: Set[str]) -> set[str]:
    found = set()
    for match in _DIGITS.finditer(data):
        digits = match.group().decode()
        found |= {digits[k : k + _LENGTH] for k in range(len(digits) - _LENGTH + 1)} & wanted
    return found


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]


def remove_blob(blobs: Blobs, hash: str) -> None:
    """Remove a blob's bytes and its tree, where there are any. Raises OSError when that fails."""
    (blobs.root / "bytes" / hash[:2] / hash).unlink(missing_ok=True)
    tree = blobs.root / "trees" / hash
    if tree.is_dir():
        (tree / MANIFEST).unlink(missing_ok=True)  # first: what is left of it is no tree
        shutil.rmtree(tree)
