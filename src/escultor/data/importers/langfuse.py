"""Langfuse's scores, as its public API (GET /api/public/v2/scores) and its exports have them, as feedback.

A score is an object with id, traceId, observationId, sessionId, name, value, stringValue, dataType NUMERIC |
BOOLEAN | CATEGORICAL | CORRECTION, source API | EVAL | ANNOTATION, comment, authorUserId, timestamp and
updatedAt (ISO 8601). A page of the API, {"data": [...], "meta": {...}}, is read as the scores in it.

The target of a score is its observation, or else its trace, by that id: import the interactions under the
same ids (`--format interactions`), before or after. A value becomes a rating under the score's name, a
correction a correction, a comment a remark.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from escultor.data.importers.json_values import text_field
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.ids import hash_value
from escultor.store.feedback import THUMB
from escultor.strict_json import JsonObject
from escultor.types import Correction, Feedback, Rating, Remark, SourceKind

_SOURCES = {"API": SourceKind.END_USER, "EVAL": SourceKind.LLM_JUDGE, "ANNOTATION": SourceKind.RATER}
_TRUTH = {1: True, 0: False, "True": True, "False": False}


def scores_of(row: JsonObject) -> list[JsonObject]:
    """The scores of a page of the API; for a single score, that score."""
    if isinstance(row.get("data"), list) and "traceId" not in row:
        return [score for score in row["data"] if isinstance(score, dict)]
    return [row]


def parse_score(row: JsonObject, subject_of: Callable[[str], str], thumb: str | None) -> list[Feedback]:
    """The feedback of one score; a boolean named `thumb` is a thumb. Raises Fault for a broken score, Skip
    for one that no kind of feedback can represent."""
    id, name = text_field(row, "id"), text_field(row, "name")
    target = row.get("observationId") or row.get("traceId")
    if not target:
        raise Skip("a score of a session or of a run")
    if not isinstance(target, str):
        raise Fault("`traceId` is of the wrong type", short(target), "text")
    source = _SOURCES.get(str(row.get("source")), SourceKind.END_USER)
    # All unknown authors are one subject: together they count once for each answer.
    subject = subject_of(row.get("authorUserId") or f"langfuse:{source}")
    stamp = row.get("updatedAt") or row.get("timestamp")
    unique = f"langfuse-{id}-{hash_value([stamp, row.get('value')])[:8]}"
    common = (_epoch(stamp), target, subject)
    feedback: list[Feedback] = []
    kind, value = row.get("dataType", "NUMERIC"), row.get("value")
    if kind == "CORRECTION":
        text = row.get("stringValue") or value
        if not isinstance(text, str) or not text.strip():
            raise Skip("a correction without text")
        feedback.append(Correction(unique, *common, text, source=source))
    elif kind == "BOOLEAN":
        label = row.get("stringValue") if value is None else value
        if isinstance(label, list | dict) or (truth := _TRUTH.get(label)) is None:
            raise Fault("`value` is not a boolean", short(label), "1, 0, True or False")
        feedback.append(Rating(unique, *common, THUMB if name == thumb else name, truth, source=source))
    elif kind == "NUMERIC":
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise Fault("`value` is not a number", short(value), "a finite number")
        if name == thumb:
            raise Fault("a thumb is a boolean", "dataType NUMERIC", "BOOLEAN", "leave --thumb out")
        feedback.append(Rating(unique, *common, name, float(value), source=source))
    if isinstance(row.get("comment"), str) and row["comment"].strip():
        feedback.append(Remark(f"{unique}-comment", *common, row["comment"], source=source))
    if not feedback:
        raise Skip(f"a score of type {short(kind)} without comment")
    return feedback


def _epoch(stamp: Any) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (TypeError, ValueError):
        raise Fault("`timestamp` is not a time", short(stamp), "ISO 8601") from None
