"""Secrets of a store: random bytes in a file of its folder that its owner alone may read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from escultor.errors import StoreError
from escultor.store import files

SIZE = 32  # bytes
_OTHERS = 0o077


def secret(root: Path, name: str) -> bytes:
    """The 32 bytes kept as `root/name.key`, drawn when they are first asked for.

    Processes that ask at once get the same: the first to link its whole file there wins. Machines
    that share a database share this file too, or neither knows the other's subjects and tokens.
    Raises StoreError when the file cannot be made or read, is of another size, or may be read by others.
    """
    path = root / f"{name}.key"
    with files.explained("keep a secret in", path):
        if not path.exists():
            _draw(path)
        with path.open("rb") as file:
            mode, found = os.fstat(file.fileno()).st_mode, file.read(SIZE + 1)
    if mode & _OTHERS:
        remedy = f"chmod 600 {path}, and think about who may have read it"
        raise StoreError(f"others may read the secret {path}", f"mode {mode & 0o777:o}", "mode 600", remedy)
    if len(found) != SIZE:
        remedy = "restore it from a copy of the store; without it old tokens and subjects are not known again"
        raise StoreError(f"the secret {path} is damaged", f"{len(found)} bytes", f"{SIZE} bytes", remedy)
    return found


def _draw(path: Path) -> None:
    """Put fresh bytes in place whole, unless somebody else has just done so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SIZE))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        files.sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)
