"""Who asks and who judges, as a salted hash: the only form in which a person enters the log."""

from __future__ import annotations

import hmac
import unicodedata
from pathlib import Path

from escultor.errors import InputError
from escultor.ids import HASH_LENGTH
from escultor.store.secrets import secret

MAX_NAME = 256  # characters of what a caller calls its user


class SubjectHasher:
    """Turns the names that callers give their users into subjects. One salt per store, so that answers
    and what is said about them meet under one subject, and another store's say nothing here."""

    def __init__(self, salt: bytes):
        self._salt = salt

    @classmethod
    def of(cls, root: Path) -> SubjectHasher:
        """The subjects of the store in a folder. Raises StoreError when its salt cannot be kept."""
        return cls(secret(root, "subjects"))

    def subject(self, name: str) -> str:
        """The subject of a user's name: 32 hex digits of HMAC-SHA256 under the store's salt. Names that
        Unicode holds to be the same (one accent written in two ways) are one; case and blanks count.

        Raises InputError for a name that is empty, too long or no Unicode.
        """
        if not name or len(name) > MAX_NAME:
            raise InputError("a user's name cannot be used", f"{len(name)} characters", f"1 to {MAX_NAME}")
        try:
            data = unicodedata.normalize("NFC", name).encode()
        except UnicodeEncodeError as error:
            raise InputError("a user's name is no text", ascii(name), "Unicode") from error
        return hmac.digest(self._salt, data, "sha256").hex()[:HASH_LENGTH]
