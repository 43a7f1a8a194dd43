"""Erasure of personal data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Erasure:
    """What remains of what was erased: whose it was, who asked, when, how much. Writer: the store.

    The ids of the entries that are gone are kept as hashes only, so that they cannot come back and what
    was trained on them can be found.
    """

    id: str
    time: float
    subject: str  # salted hash of the person; empty where the retention of interactions was over at `time`
    by: str  # who requested it; `retention` where nobody did
    counts: dict[str, int]  # removed records, by kind
