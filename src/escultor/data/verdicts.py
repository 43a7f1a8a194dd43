"""Verdicts on an answer, under the many names of their key, and keys that would change what a row means."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from escultor.data.row_messages import Fault, Skip, label_of
from escultor.strict_json import JsonObject

# Keys that are a verdict whatever stands under them, those that are one where a word, true or false stands
# there, or 0 and 1, and those whose numbers may be on any scale.
ALWAYS = ("kto_tag", "desirable", "is_desirable", "liked", "is_liked", "is_good", "is_chosen", "thumb")
BINARY = ("accepted", "is_accepted", "approved", "is_approved", "thumbs_up", "is_correct", "correct")
WORDS = ("rating", "feedback", "user_feedback", "vote", "thumbs", "preference", "verdict", "quality")
_NAMES = frozenset((*ALWAYS, *BINARY, *WORDS))
_OPPOSITE = re.compile(r"reject|dispref|undesir|loser|(?:^|_)(?:bad|worse|worst|negative)(?:_|$)", re.I)


def verdict_key(row: JsonObject) -> str | None:
    """The key of a row's verdict on its answer; None where it has none."""
    if _NAMES.isdisjoint(row):  # as nearly always
        return None
    return next((key for key in (*ALWAYS, *BINARY, *WORDS) if _is_verdict(key, row.get(key))), None)


def _is_verdict(key: str, value: Any) -> bool:
    if value is None or key in ALWAYS or isinstance(value, bool):
        return value is not None
    try:
        label_of(value)
    except Fault:
        return False
    is_word = isinstance(value, str) and not value.strip().lstrip("-").isdigit()
    return is_word or key in BINARY or value in (-1, "-1")


def judged(convert: Callable[[JsonObject], Any]) -> Callable[[JsonObject], JsonObject]:
    """The function for rows that `convert` reads and that have a verdict besides. Where votes are -1 and 1,
    0 is none."""

    def with_label(row: JsonObject) -> JsonObject:
        key = verdict_key(row) or next((key for key in (*BINARY, *WORDS) if row.get(key) is not None), None)
        if key is None or (key in WORDS and row[key] in (0, "0")):
            raise Skip("without a verdict on its answer")
        return convert({k: v for k, v in row.items() if k != key}) | {"label": label_of(row[key])}

    return with_label


def opposite_keys(row: JsonObject, known: frozenset[str]) -> list[str]:
    """The keys that hold a worse answer, by their names, and are not among those that a format reads."""
    return [k for k, v in row.items() if v not in (None, "", []) and k not in known and _OPPOSITE.search(k)]
