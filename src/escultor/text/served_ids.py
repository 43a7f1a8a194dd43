"""The token ids of an answer as they were served, as text that names the vocabulary they belong to."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import numpy as np

_DTYPE = np.dtype("<u4")


def write_ids(vocabulary: str, ids: Sequence[int]) -> str:
    """The text of ids: the hash of their vocabulary, a colon, base64 of four bytes an id."""
    return f"{vocabulary}:{base64.b64encode(np.asarray(ids, dtype=_DTYPE).tobytes()).decode()}"


def read_ids(text: str, vocabulary: str) -> list[int]:
    """The ids of a text; none where it is of another vocabulary, or no such text."""
    name, _, data = text.partition(":")
    if not data or name != vocabulary:
        return []
    try:
        return np.frombuffer(base64.b64decode(data, validate=True), _DTYPE).tolist()
    except (binascii.Error, ValueError):
        return []
