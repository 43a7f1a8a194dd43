"""Tokens that let a browser judge one answer, without a key: who may say what about which, until when.

    token = base64url(payload) "." base64url(HMAC-SHA256(key, payload)[:16])

The payload is JSON, `[target, subject, [name, ...], until]`. It is signed and not secret: a browser may
read it. Changing a character, or outliving `until`, makes it worthless.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from dataclasses import dataclass
from pathlib import Path

from escultor.errors import TokenError
from escultor.store.secrets import secret

MAC_BYTES = 16  # 128 bits: a guess is right once in 3e38
MAX_TOKEN = 2048  # characters; anything longer is not looked at
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_REMEDY = "take the token that came with the answer"


@dataclass(frozen=True, slots=True)
class TokenGrant:
    """What a token allows: `subject` may say `names` about `target` until `until`."""

    target: str  # the interaction
    subject: str  # salted hash
    names: tuple[str, ...]  # as the fold calls them: thumb, correction, remark, copy, …
    until: float  # seconds since the epoch


class FeedbackTokens:
    """Makes and checks tokens with the store's key."""

    def __init__(self, key: bytes):
        self._key = key

    @classmethod
    def of(cls, root: Path) -> FeedbackTokens:
        """The tokens of the store in a folder. Raises StoreError when its key cannot be kept."""
        return cls(secret(root, "tokens"))

    def issue(self, grant: TokenGrant) -> str:
        """The token that stands for a grant: the same for the same."""
        whole = [grant.target, grant.subject, grant.names, grant.until]
        payload = json.dumps(whole, separators=(",", ":")).encode()
        return f"{_written(payload)}.{_written(self._mac(payload))}"

    def read(self, token: str, now: float) -> TokenGrant:
        """The grant a token stands for.

        Raises TokenError for one that this store did not issue or that is no longer good. Which
        character is wrong cannot be told from the time this takes.
        """
        if len(token) > MAX_TOKEN or not _SHAPE.fullmatch(token):
            raise TokenError("this is no feedback token", f"{len(token)} characters", None, _REMEDY)
        payload, mac = (_read(part) for part in token.split("."))
        if not hmac.compare_digest(mac, self._mac(payload)):
            raise TokenError("the feedback token is not one of this store's", None, None, _REMEDY)
        target, subject, names, until = json.loads(payload)
        if now >= until:
            raise TokenError("the feedback token has expired", f"{now - until:.0f} s ago", None, _REMEDY)
        return TokenGrant(target, subject, tuple(names), until)

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, "sha256")[:MAC_BYTES]


def _written(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _read(part: str) -> bytes:
    try:
        data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except NotBase64 as error:
        raise TokenError("this is no feedback token", None, None, _REMEDY) from error
    if _written(data) != part:  # spare bits of the last character: one token, one spelling
        raise TokenError("this is no feedback token", None, None, _REMEDY)
    return data
