"""The first fields of every dataset version's card, however the version was made."""

from __future__ import annotations

from typing import Any

FORMAT = "card/1"


def card_head(hash: str, *, name: str, kind: str, rows: int, held_out: int = 0) -> dict[str, Any]:
    """Format, name, content hash, kind of rows, their count and that of held-out rows."""
    return {
        "format": FORMAT,
        "name": name,
        "hash": hash,
        "kind": kind,
        "rows": rows,
        "held_out": held_out,
    }
