"""Langfuse's scores, as its public API (GET /api/public/v2/scores) and its exports give them: objects.

id, traceId, observationId, sessionId, name, value, stringValue, dataType NUMERIC | BOOLEAN | CATEGORICAL |
CORRECTION, source API | EVAL | ANNOTATION, comment, authorUserId, timestamp and updatedAt (ISO 8601). A page
of the API, {"data": [...], "meta": {...}}, stands for the scores in it.

A score is about its observation, or else its trace, under that id: import the calls under the same ids
(`--format interactions`), before or after. Values become ratings under the score's name, corrections
corrections, comments remarks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.ids import hash_value
from escultor.store.feedback import THUMB
from escultor.strict_json import JsonObject
from escultor.types import Correction, Feedback, Rating, Remark, SourceKind

_SOURCES = {"API": SourceKind.END_USER, "EVAL": SourceKind.LLM_JUDGE, "ANNOTATION": SourceKind.RATER}
_TRUTH = {1: True, 0: False, "True": True, "False": False}


def scores_of(row: JsonObject) -> list[JsonObject]:
    """The scores of a page of the API; of a score, itself."""
    if isinstance(row.get("data"), list) and "traceId" not in row:
        return [score for score in row["data"] if isinstance(score, dict)]
    return [row]


def langfuse(row: JsonObject, subject_of: Callable[[str], str], thumb: str | None) -> list[Feedback]:
    """What one score says; booleans named `thumb` are thumbs. Raises Fault for one that is broken, Skip
    for one that no noun has a place for."""
    id, name = _text(row, "id"), _text(row, "name")
    target = row.get("observationId") or row.get("traceId")
    if not target:
        raise Skip("a score of a session or of a run")
    if not isinstance(target, str):
        raise Fault("`traceId` is of the wrong type", short(target), "text")
    source = _SOURCES.get(str(row.get("source")), SourceKind.END_USER)
    # Nobody in particular is one person here: a vote of unknown people counts once for each answer.
    subject = subject_of(row.get("authorUserId") or f"langfuse:{source}")
    stamp = row.get("updatedAt") or row.get("timestamp")
    unique = f"langfuse-{id}-{hash_value([stamp, row.get('value')])[:8]}"
    about = (_epoch(stamp), target, subject)
    made: list[Feedback] = []
    kind, value = row.get("dataType", "NUMERIC"), row.get("value")
    if kind == "CORRECTION":
        text = row.get("stringValue") or value
        if not isinstance(text, str) or not text.strip():
            raise Skip("a correction without text")
        made.append(Correction(unique, *about, text, source=source))
    elif kind == "BOOLEAN":
        given = row.get("stringValue") if value is None else value
        if isinstance(given, list | dict) or (truth := _TRUTH.get(given)) is None:
            raise Fault("`value` is no boolean", short(given), "1, 0, True or False")
        made.append(Rating(unique, *about, THUMB if name == thumb else name, truth, source=source))
    elif kind == "NUMERIC":
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise Fault("`value` is no number", short(value), "a finite number")
        if name == thumb:
            raise Fault("a thumb is a boolean", "dataType NUMERIC", "BOOLEAN", "leave --thumb out")
        made.append(Rating(unique, *about, name, float(value), source=source))
    if isinstance(row.get("comment"), str) and row["comment"].strip():
        made.append(Remark(f"{unique}-comment", *about, row["comment"], source=source))
    if not made:
        raise Skip(f"a score of type {short(kind)} without comment")
    return made


def _epoch(stamp: Any) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (TypeError, ValueError):
        raise Fault("`timestamp` is no time", short(stamp), "ISO 8601") from None


def _text(row: JsonObject, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise Fault(f"`{key}` is of the wrong type", short(value), "text")
    return value
