"""Tokens that let a browser send feedback on one answer without an API key.

    token = base64url(payload) "." base64url(HMAC-SHA256(key, payload)[:16])

The payload is JSON, `[target, subject, [name, ...], until]`. It is signed, not secret: a browser may read it.
A token that was changed or has expired is refused.
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
MAX_TOKEN = 2048  # characters; anything longer is refused unread
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_REMEDY = "take the token that came with the answer"


@dataclass(frozen=True, slots=True)
class TokenGrant:
    """What a token allows: `subject` may send feedback of these names about `target` until `until`."""

    target: str  # the interaction
    subject: str  # salted hash
    names: tuple[str, ...]  # as `store.feedback.event_name` gives them: thumb, correction, remark, copy, …
    until: float  # seconds since the epoch


class FeedbackTokens:
    """Issues and checks tokens with the store's key."""

    def __init__(self, key: bytes):
        self._key = key

    @classmethod
    def for_store(cls, root: Path) -> FeedbackTokens:
        """The tokens of the store in a folder. Raises StoreError when its key cannot be read or written."""
        return cls(secret(root, "tokens"))

    def issue(self, grant: TokenGrant) -> str:
        """The token of a grant; equal grants have equal tokens."""
        fields = [grant.target, grant.subject, grant.names, grant.until]
        payload = json.dumps(fields, separators=(",", ":")).encode()
        return f"{_encode(payload)}.{_encode(self._mac(payload))}"

    def read(self, token: str, now: float) -> TokenGrant:
        """The grant of a token.

        Raises TokenError for one that this store did not issue or that has expired. Compared in constant
        time: the duration does not depend on which character is wrong.
        """
        if len(token) > MAX_TOKEN or not _SHAPE.fullmatch(token):
            raise TokenError("this is no feedback token", f"{len(token)} characters", None, _REMEDY)
        payload, mac = (_decode(part) for part in token.split("."))
        if not hmac.compare_digest(mac, self._mac(payload)):
            raise TokenError("the feedback token is not one of this store's", None, None, _REMEDY)
        target, subject, names, until = json.loads(payload)
        if now >= until:
            raise TokenError("the feedback token has expired", f"{now - until:.0f} s ago", None, _REMEDY)
        return TokenGrant(target, subject, tuple(names), until)

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, "sha256")[:MAC_BYTES]


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _decode(part: str) -> bytes:
    try:
        data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except NotBase64 as error:
        raise TokenError("this is no feedback token", None, None, _REMEDY) from error
    if _encode(data) != part:  # the last character has spare bits: one spelling per token
        raise TokenError("this is no feedback token", None, None, _REMEDY)
    return data
