"""Signed texts that may travel through browsers and e-mail:

    base64url(payload) "." base64url(HMAC-SHA256(key, payload)[:16])

The payload is JSON. It is signed, not secret; a token that was changed is refused.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence
from typing import Any

from escultor.errors import TokenError

MAC_BYTES = 16  # 128 bits: a guess is right once in 3e38
MAX_TOKEN = 2048  # characters; anything longer is refused unread
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


def sign(key: bytes, fields: Sequence[Any]) -> str:
    """The token of these values; equal values have equal tokens."""
    payload = json.dumps(fields, separators=(",", ":")).encode()
    return f"{_encode(payload)}.{_encode(_mac(key, payload))}"


def read_signed(key: bytes, token: str, what: str, remedy: str) -> list[Any]:
    """The values of a token. Raises TokenError for one that was not signed with this key; `what` names it.
    Compared in constant time: the duration does not depend on which character is wrong."""
    if len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
        raise TokenError(f"this is no {what}", f"{len(token)} characters", None, remedy)
    payload, mac = (_decode(part) for part in token.split("."))
    if payload is None or mac is None:
        raise TokenError(f"this is no {what}", None, None, remedy)
    if not hmac.compare_digest(mac, _mac(key, payload)):
        raise TokenError(f"the {what} is not one of this store's", None, None, remedy)
    return json.loads(payload)


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, payload, "sha256")[:MAC_BYTES]


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _decode(part: str) -> bytes | None:
    try:
        data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except NotBase64:
        return None
    return data if _encode(data) == part else None  # its last character has spare bits: one spelling each
