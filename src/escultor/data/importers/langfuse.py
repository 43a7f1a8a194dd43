"""Langfuse's scores, traces and observations, of its public API (v1 to v3) and its exports.

A score has id, name, value, stringValue, dataType NUMERIC | BOOLEAN | CATEGORICAL | TEXT | CORRECTION,
source API | EVAL | ANNOTATION, comment, authorUserId, timestamp, updatedAt; what it is about is `subject`
{kind, id} in v3, else observationId or traceId. Who said it: its author; for a score sent by an
application, the user of the trace (`trace.userId` of the API, `userId` of the exports), or the one who
asked, if the trace was imported. A trace or observation with input and output is an interaction under its
own id, with its scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from escultor.data.importers import traces
from escultor.data.importers.scores import Statement, is_number
from escultor.data.importers.session import ImportedRecord, ImportSession, answer_id, objects, part
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.ids import hash_value
from escultor.strict_json import JsonObject
from escultor.types import Feedback, Interaction, SourceKind, Usage

_SOURCES = {"API": SourceKind.END_USER, "EVAL": SourceKind.LLM_JUDGE, "ANNOTATION": SourceKind.RATER}
_IO = ("input", "output")
_TRUTH = {1: True, 0: False, "true": True, "false": False, "1": True, "0": False}
NO_SUBJECT = "a score that does not say what it is about: request it with fields=subject,details,annotation"


def parse(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """The records of one score, trace or observation. Raises Fault for a broken one, Skip for one that no
    record can represent."""
    if is_score(row):
        yield from _score(row, session)
    elif "traceId" in row or "startTime" in row:
        yield from _observation(row, session)
    else:
        yield from _trace(row, session)


def is_score(row: JsonObject) -> bool:
    """Whether a row is a score."""
    return "name" in row and bool(
        row.keys() & {"dataType", "stringValue"} or {"value", "traceId"} <= row.keys()
    )


def is_trace(row: JsonObject) -> bool:
    """Whether a row is a trace or an observation."""
    ids = {"id", "input", "output"} <= row.keys()
    return ids and bool(row.keys() & {"sessionId", "userId", "traceId", "startTime", "environment"})


def _score(row: JsonObject, session: ImportSession, asker: str | None = None) -> Iterator[Feedback]:
    id, name = row.get("id"), row.get("name")
    if not isinstance(id, str) or not id or not isinstance(name, str) or not name:
        raise Fault("a score has no id or name", short([id, name]), "text")
    target, group = _target(row)
    source = _SOURCES.get(str(row.get("source")).upper(), SourceKind.END_USER)
    stamp = row.get("updatedAt") or row.get("timestamp")
    unique = f"langfuse-{id}-{hash_value([stamp, row.get('value')])[:8]}"
    said = Statement(unique, session.time_of(stamp), answer_id(target), "", source)
    said = said._replace(subject=_author(row, session, said, asker, group))
    kind, value, text = str(row.get("dataType") or "").upper(), row.get("value"), row.get("stringValue")
    if kind == "CORRECTION":
        made = said.correction(_first_text(text, value))
    elif kind == "TEXT":
        made = said.remark(_first_text(text, value), row.get("comment"))
    elif kind == "CATEGORICAL":
        made = session.survey.score(said, name, _first_text(text, value), row.get("comment"))
    elif kind == "BOOLEAN":
        label = text if value is None else value
        key = label.lower() if isinstance(label, str) else label
        if isinstance(key, list | dict) or (truth := _TRUTH.get(key)) is None:
            raise Fault("`value` is not a boolean", short(label), "true, false, 1 or 0")
        made = session.survey.score(said, name, truth, row.get("comment"))
    else:
        is_text = isinstance(value, str) and not is_number(value)
        if kind == "NUMERIC" and (is_text or isinstance(value, bool)):
            raise Fault("`value` is not a number", short(value), "a finite number")
        made = session.survey.score(said, name, text if value is None else value, row.get("comment"))
    if not made:
        raise Skip("a score that says nothing")
    yield from made


def _first_text(*values: Any) -> str:
    return next((value for value in values if isinstance(value, str) and value.strip()), "")


def _target(row: JsonObject) -> tuple[str, str]:
    """What a score is about, and the group within which an unknown author is one person."""
    about = part(row, "subject")
    kind, id = about.get("kind"), about.get("id")
    trace = row.get("traceId") or about.get("traceId") or (id if kind == "trace" else None)
    target = row.get("observationId") or (id if kind == "observation" else None) or trace
    if target is None and (about or row.get("sessionId") or row.get("datasetRunId")):
        raise Skip(
            f"a score of a {kind or ('session' if row.get('sessionId') else 'dataset run')}, not of an answer"
        )
    if target is None:
        raise Skip(NO_SUBJECT)
    if not isinstance(target, str) or not isinstance(trace or target, str):
        raise Fault("`traceId` is of the wrong type", short(target), "text")
    return target, f"session:{row['sessionId']}" if row.get("sessionId") else f"trace:{trace or target}"


def _author(row: JsonObject, session: ImportSession, said: Statement, asker: str | None, group: str) -> str:
    """The subject of who gave a score: judges and code by their names, people by theirs."""
    author = row.get("authorUserId") or row.get("authorUserName")
    if said.source is SourceKind.LLM_JUDGE:
        return session.subject_of(f"langfuse:judge:{row['name']}"[:256])
    trace = row.get("trace")
    user = author or row.get("userId") or (trace.get("userId") if isinstance(trace, dict) else None)
    if not user and asker is None:
        asker = session.subject_of_answer(said.target)
    return session.subject(user, f"langfuse:{group}") if user or asker is None else asker


def _trace(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    id = row.get("id")
    if not isinstance(id, str) or not id:
        raise Fault("`id` is of the wrong type", short(id), "text")
    group = f"session:{row['sessionId']}" if row.get("sessionId") else f"trace:{id}"
    asker = session.subject(row.get("userId"), f"langfuse:{group}")
    time = session.time_of(row.get("timestamp"), row.get("createdAt"))
    observations = objects(row.get("observations"))
    scores = objects(row.get("scores"))
    same = [o.get("id") for o in observations if all(o.get(side) == row.get(side) for side in _IO)]
    scores = [
        {**each, "observationId": None} if each.get("observationId") in same else each for each in scores
    ]
    scored = [score.get("observationId") for score in scores]
    yield from traces.record(
        session,
        id,
        traces.recorded(row.get("input")),
        traces.recorded(row.get("output")),
        time=time,
        subject=asker,
        version=next((o.get("model") for o in observations if o.get("model")), row.get("version")),
        latency_ms=traces.figure(row.get("latency")) * 1e3,
    )
    for each in observations:
        if each.get("id") in scored:
            yield from session.each(_observation(each, session, asker))
    for score in scores:
        yield from session.each(_score({"traceId": id, **score}, session, asker))
    yield from _columns(row, session, Statement(f"langfuse-{id}", time, answer_id(id), asker))


def _columns(row: JsonObject, session: ImportSession, said: Statement) -> Iterator[Feedback]:
    """The scores of a trace in the UI's export: a column each, with a list of values; comments likewise."""
    known = {"tags", "observations", "scores", "comments", "input", "output", "metadata"}
    for name, values in row.items():
        if name not in known and isinstance(values, list):
            for i, value in enumerate(values):
                each = said._replace(id=f"{said.id}-{hash_value([name, i, value])[:8]}")
                yield from session.each(session.score(each, name, value))
    for comment in objects(row.get("comments")):
        text, author = comment.get("content"), comment.get("authorUserId")
        subject = session.subject_of(author) if isinstance(author, str) and author else said.subject
        unique = f"{said.id}-{hash_value([text, subject])[:8]}"
        yield from said._replace(id=unique, subject=subject).remark(text)


def _observation(row: JsonObject, session: ImportSession, asker: str | None = None) -> Iterator[Interaction]:
    if str(row.get("type", "GENERATION")).upper() != "GENERATION":
        raise Skip("an observation that is no generation")
    id = row.get("id")
    if not isinstance(id, str) or not id:
        raise Fault("`id` is of the wrong type", short(id), "text")
    trace, usage = row.get("traceId") or id, part(row, "usageDetails") or part(row, "usage")
    known = (
        session.subject_of_answer(answer_id(str(trace))) if asker is None and not row.get("userId") else asker
    )
    start = session.time_of(row.get("startTime"), row.get("createdAt"))
    end = session.time_of(row["endTime"]) if row.get("endTime") else start
    yield from traces.record(
        session,
        id,
        traces.recorded(row.get("input")),
        traces.recorded(row.get("output")),
        time=start,
        subject=known or session.subject(row.get("userId"), f"langfuse:trace:{trace}"),
        version=row.get("model") or row.get("providedModelName"),
        usage=Usage(int(traces.figure(usage.get("input"))), int(traces.figure(usage.get("output")))),
        latency_ms=max(0.0, end - start) * 1e3,
        failed=row.get("level") == "ERROR",
    )
