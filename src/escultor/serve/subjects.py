"""Subjects: the salted hashes under which people appear in the log, and the only form in which they do."""

from __future__ import annotations

import hmac
import unicodedata
from pathlib import Path

from escultor.errors import InputError
from escultor.ids import HASH_LENGTH
from escultor.store.secrets import secret

MAX_NAME = 256  # characters of a user's name


class SubjectHasher:
    """Hashes users' names with the store's salt: a person's answers and feedback share one subject within a
    store, and subjects of different stores cannot be matched."""

    def __init__(self, salt: bytes):
        self._salt = salt

    @classmethod
    def for_store(cls, root: Path) -> SubjectHasher:
        """The hasher of the store in a folder. Raises StoreError when its salt cannot be kept."""
        return cls(secret(root, "subjects"))

    def subject(self, name: str, tenant: str = "") -> str:
        """The subject of a user's name: 32 hex digits of HMAC-SHA256 under the store's salt, or under the
        tenant's own: the same name is another person for another tenant. Names that Unicode defines as equal
        (an accent written in two ways) are one; case and blanks count. Raises InputError for a name that is
        empty, too long or not Unicode."""
        if not name or len(name) > MAX_NAME:
            raise InputError("a user's name cannot be used", f"{len(name)} characters", f"1 to {MAX_NAME}")
        try:
            data = unicodedata.normalize("NFC", name).encode()
        except UnicodeEncodeError as error:
            raise InputError("a user's name is not text", ascii(name), "Unicode") from error
        salt = hmac.digest(self._salt, f"tenant {tenant}".encode(), "sha256") if tenant else self._salt
        return hmac.digest(salt, data, "sha256").hex()[:HASH_LENGTH]
