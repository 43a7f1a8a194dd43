"""Secrets of a store: random bytes in a file that only its owner may read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from escultor.errors import StoreError
from escultor.store import files

SIZE = 32  # bytes
_OTHERS = 0o077


def secret(root: Path, name: str) -> bytes:
    """The 32 bytes of `root/name.key`, generated at first use; concurrent processes get the same bytes.
    Machines that share a database must share this file, or they cannot recognise each other's subjects and
    tokens. Raises StoreError when the file cannot be created or read, has another size, or is not private."""
    path = root / f"{name}.key"
    with files.wrap_os_errors("keep a secret in", path):
        if not path.exists():
            _create(path)
        with path.open("rb") as file:
            mode, key = os.fstat(file.fileno()).st_mode, file.read(SIZE + 1)
    if mode & _OTHERS and os.name != "nt":  # Windows has no such modes
        remedy = f"chmod 600 {path}, and consider who may have read it"
        raise StoreError(f"others may read the secret {path}", f"mode {mode & 0o777:o}", "mode 600", remedy)
    if len(key) != SIZE:
        remedy = "restore it from a copy of the store; old tokens and subjects are not recognised without it"
        raise StoreError(f"the secret {path} is damaged", f"{len(key)} bytes", f"{SIZE} bytes", remedy)
    return key


def _create(path: Path) -> None:
    """Write random bytes to `path` atomically; the first process to link its complete file wins."""
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
        files.sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)
