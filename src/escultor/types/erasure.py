"""Erasure of personal data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Erasure:
    """The trace of an erasure: whose records, who requested it, when, how many. Writer: the store. Only
    hashes of the erased ids are kept, so that the records cannot be appended again and what was trained on
    them can be found."""

    id: str
    time: float
    subject: str  # salted hash of the person; empty where retention had expired at `time`
    by: str  # who requested it, or `retention`
    counts: dict[str, int]  # removed records, by kind
