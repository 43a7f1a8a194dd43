"""Where texts of a person occur in files that hold no provenance: verdict pages, cached answers, predictions,
exports and what else was written into the store's folder.

A text is known by hashes of windows of its letters and digits, so that quotation marks, JSON's and HTML's
escapes, line ends and cut ends make no difference, and so that what an interrupted erasure has yet to look
for can be kept without keeping the text. Only what a person wrote is searched for, and ids: what a model
or a tool said occurs elsewhere by itself, and so does what a suite asks that was not drawn from the log. A
text of fewer than `SHORT` letters and digits is not searched for: it names nobody.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from escultor.store import Store, files
from escultor.types import Correction, Feedback, Interaction, PendingInteraction, Remark, Role, Suite

LONG, SHORT = 24, 12  # letters and digits in a window, and in one of a text that is shorter than that
_CHUNK, _OVERLAP = 1 << 20, 1 << 13  # bytes read at a time, and read again: the longest escaped window
_BASE = np.uint64(0x9E3779B97F4A7C15)
# A run of backslashes is looked at from its beginning alone: from each of them it would take quadratic time.
_CODE = re.compile(r"(?<!\\)\\+u([0-9a-fA-F]{4})")
_ESCAPE = re.compile(r"(?<!\\)\\+[bfnrtv]")
_OTHER = re.compile(r"[\W_]+")
_TREES = ("blobs", "erasing")  # looked through by other means, or not at all
_NO_TEXT = (".db", ".db-wal", ".db-shm", ".key", ".lock", ".npy", ".npz", ".safetensors", ".gguf", ".pt")


def note_texts(store: Store, subject: str) -> None:
    """Keep the windows of what is recorded of a person, until `remove_traces` has looked for them. Raises
    StoreError."""
    found = np.unique(np.concatenate([np.empty(0, np.uint64), *map(_samples, _texts(store, subject))]))
    if len(found):
        with files.atomic_write(_folder(store) / f"{subject}.npy") as draft, draft.open("wb") as file:
            np.save(file, found, allow_pickle=False)


def noted(store: Store) -> list[Path]:
    """The notes of erasures whose traces were not removed yet."""
    return sorted(_folder(store).glob("*.npy"))


def remove_traces(store: Store, notes: Iterable[Path], live: set[str]) -> list[str]:
    """Remove the files in the store's folder, and the blobs that are not `live`, in which a noted text
    occurs. Returns the names of the files. Raises StoreError."""
    kept = [np.load(path, allow_pickle=False) for path in notes]
    if not kept:
        return []
    wanted, removed = np.unique(np.concatenate(kept)), list[str]()
    for _, suite in store.log.read(Suite):
        wanted = np.setdiff1d(wanted, _found(store.blobs.file(suite.blob), wanted))
    for blob in store.blobs.each_bytes():
        if blob not in live and len(_found(store.blobs.file(blob), wanted)):
            store.blobs.remove_bytes(blob)
    for path in _own_files(store.root):
        with files.wrap_os_errors("look through", path):
            if len(_found(path, wanted)):
                removed.append(path.relative_to(store.root).as_posix())
                path.unlink(missing_ok=True)
    return removed


def _folder(store: Store) -> Path:
    return store.root / "erasing"


def _own_files(root: Path) -> Iterator[Path]:
    for top in sorted(root.iterdir()):
        for path in sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else [top]:
            named = top.name not in _TREES and not path.name.endswith(_NO_TEXT)
            if named and path.is_file() and not path.is_symlink():
                yield path


# --- the texts of a person --------------------------------------------------------------------------------


def _texts(store: Store, subject: str) -> Iterator[str]:
    pending = (p.interaction for _, p in store.log.read(PendingInteraction, subject=subject))
    own = (row for _, row in store.log.read(Interaction, subject=subject))
    for rows in (own, pending):
        for row in rows:
            yield from _texts_of(row)
            for _, event in store.log.read(Feedback, target=row.id):
                yield from _said(event)
    for _, event in store.log.read(Feedback, subject=subject):
        yield from _said(event)


def _texts_of(row: Interaction) -> Iterator[str]:
    yield from (row.id, row.message)
    yield from (each.content for each in row.messages if each.role is Role.USER)


def _said(event: Feedback) -> Iterator[str]:
    yield event.id
    if isinstance(event, Correction | Remark):
        yield event.text


# --- windows ----------------------------------------------------------------------------------------------


def _letters(text: str) -> np.ndarray:
    """The letters and digits of a text as code points, escapes undone."""
    text = _CODE.sub(lambda found: chr(int(found[1], 16)), text)
    for _ in range(3):  # a text that holds an entity is escaped once more where it is written
        text = html.unescape(text)
    text = _OTHER.sub("", _ESCAPE.sub(" ", text).casefold())
    return np.frombuffer(text.encode("utf-32-le", "ignore"), np.uint32).astype(np.uint64)


def _windows(letters: np.ndarray, size: int) -> np.ndarray:
    """The hash of each window of `size` letters."""
    count = max(0, len(letters) - size + 1)
    hashes = np.full(count, size, np.uint64)
    for k in range(size):
        hashes *= _BASE
        hashes += letters[k : k + count]
    return hashes


def _samples(text: str) -> np.ndarray:
    """Windows of a text that follow each other, and the last one."""
    letters = _letters(text)
    size = LONG if len(letters) >= LONG else SHORT
    hashes = _windows(letters, size)
    return np.concatenate([hashes[::size], hashes[-1:]])


def _found(path: Path, wanted: np.ndarray) -> np.ndarray:
    """The wanted windows that occur in a file."""
    found = [np.empty(0, np.uint64)]
    with path.open("rb") as file:
        tail = b""
        while chunk := file.read(_CHUNK):
            letters = _letters((tail + chunk).decode("utf-8", "ignore"))
            found += [np.intersect1d(_windows(letters, size), wanted) for size in (LONG, SHORT)]
            tail = chunk[-_OVERLAP:]
    return np.unique(np.concatenate(found))
