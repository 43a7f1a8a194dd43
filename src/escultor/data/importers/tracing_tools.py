"""LangSmith's runs and feedback, Phoenix's spans and annotations, MLflow's traces with assessments,
Helicone's requests, and the chat completions that OpenAI stores, as interactions and feedback.

An interaction has the id of its run, span, trace or request, which is what the tool's feedback names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from escultor.data.importers import traces
from escultor.data.importers.scores import Statement
from escultor.data.importers.session import ImportedRecord, ImportSession, answer_id, objects, part
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.ids import hash_value
from escultor.strict_json import JsonObject
from escultor.types import Feedback, SourceKind, Usage

_SOURCES = {
    **dict.fromkeys(("human", "app", "api", "presigned"), SourceKind.END_USER),
    **dict.fromkeys(("llm", "llm_judge", "ai_judge", "model", "auto_eval"), SourceKind.LLM_JUDGE),
    **dict.fromkeys(("code", "decision"), SourceKind.CODE),
    "agent": SourceKind.LLM_JUDGE,
}
_PEOPLE = (SourceKind.END_USER, SourceKind.RATER)


def _source(name: Any) -> SourceKind:
    return _SOURCES.get(str(name).lower(), SourceKind.END_USER)


def _text(row: JsonObject, *keys: str) -> str:
    """The first of these keys that holds text. Raises Fault if none does."""
    value = next((row[key] for key in keys if isinstance(row.get(key), str) and row[key]), None)
    if value is None:
        raise Fault(f"`{keys[0]}` is missing", short(sorted(row)), "text")
    return value


def _who(session: ImportSession, source: SourceKind, name: Any, target: str, group: str | None) -> str:
    """The subject of who gave a score. A judge or code has the name given; so has a person, unless there is a
    group, within which an unknown person is one: the one who asked, where that is known."""
    if source not in _PEOPLE:
        return session.subject_of(f"judge:{name}"[:256])
    known = session.subject_of_answer(target) if group else None
    return known or session.subject(None if group else name, group or "unknown:person")


# --- LangSmith ----------------------------------------------------------------------------------


def langsmith(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """A run (id, run_type, inputs, outputs, extra.metadata) or feedback (run_id, key, score, value,
    comment, correction, feedback_source)."""
    if "key" in row:
        yield from _langsmith_feedback(row, session)
        return
    metadata = part(part(row, "extra"), "metadata")
    start = session.time_of(row.get("start_time"))
    end = session.time_of(row["end_time"]) if row.get("end_time") else start
    user = metadata.get("user_id") or metadata.get("user") or metadata.get("userId")
    group = metadata.get("session_id") or metadata.get("thread_id") or row.get("trace_id") or row.get("id")
    if row.get("run_type") not in (None, "llm", "chain", "prompt"):
        raise Skip(f"a run of type {short(row.get('run_type'))}")
    if row.get("run_type") != "llm" and row.get("parent_run_id"):
        raise Skip("a step within a run")
    yield from traces.record(
        session,
        _text(row, "id"),
        row.get("inputs"),
        row.get("outputs"),
        time=start,
        subject=session.subject(user, f"langsmith:thread:{group}"),
        version=metadata.get("ls_model_name") or metadata.get("model_name"),
        usage=Usage(
            int(traces.figure(row.get("prompt_tokens"))), int(traces.figure(row.get("completion_tokens")))
        ),
        latency_ms=max(0.0, end - start) * 1e3,
        failed=bool(row.get("error")),
    )
    for each in objects(row.get("feedback")):
        yield from session.each(_langsmith_feedback({"run_id": row["id"], **each}, session))


def _langsmith_feedback(row: JsonObject, session: ImportSession) -> Iterator[Feedback]:
    target = row.get("run_id") or row.get("trace_id")
    if not target:
        raise Skip("feedback on a session, not on an answer")
    about, key = part(row, "feedback_source"), _text(row, "key")
    source, target = _source(about.get("type")), answer_id(str(target))
    stamp = row.get("modified_at") or row.get("created_at")
    unique = f"langsmith-{row.get('id') or hash_value([target, key, row.get('created_at')])}"
    unique += f"-{hash_value([stamp, row.get('score'), row.get('value')])[:8]}"
    user = about.get("user_id") or part(about, "metadata").get("user_id")
    subject = _who(session, source, user or key, target, group=None if user else f"langsmith:run:{target}")
    said = Statement(answer_id(unique), session.time_of(stamp), target, subject, source)
    correction = row.get("correction")
    if isinstance(correction, dict):
        texts = [each for each in correction.values() if isinstance(each, str)]
        correction = texts[0] if len(texts) == 1 else None
    yield from said.correction(correction) if isinstance(correction, str) else ()
    value = row.get("value") if row.get("score") is None else row["score"]
    yield from session.score(said, key, value if not isinstance(value, dict) else None, row.get("comment"))


# --- Phoenix and OpenInference ------------------------------------------------------------------


def phoenix(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """A span (context.span_id, attributes of OpenInference) or an annotation (span_id, name,
    annotator_kind, result {label, score, explanation})."""
    if "annotator_kind" in row:
        yield from _annotation(row, session)
        return
    context, attributes = part(row, "context"), _nested(row)
    id = context.get("span_id") or row.get("context.span_id") or _text(row, "span_id", "id")
    trace = context.get("trace_id") or row.get("context.trace_id") or row.get("trace_id")
    llm = _object(attributes.get("llm"))
    user, group = _object(attributes.get("user")).get("id"), _object(attributes.get("session")).get("id")
    kind = row.get("span_kind") or _object(_object(attributes.get("openinference")).get("span")).get("kind")
    if str(kind or "LLM").upper() not in ("LLM", "CHAIN", "AGENT"):
        raise Skip(f"a span of kind {short(kind)}")
    if str(kind or "LLM").upper() != "LLM" and row.get("parent_id"):
        raise Skip("a step within a run")
    counts = _object(llm.get("token_count"))
    start = session.time_of(row.get("start_time"))
    end = session.time_of(row["end_time"]) if row.get("end_time") else start
    given = (
        {"messages": _listed(llm["input_messages"])}
        if llm.get("input_messages")
        else _io(attributes, "input")
    )
    output = _listed(llm["output_messages"]) if llm.get("output_messages") else _io(attributes, "output")
    yield from traces.record(
        session,
        str(id),
        given,
        output,
        time=start,
        subject=session.subject(user, f"phoenix:session:{group or trace or id}"),
        version=llm.get("model_name"),
        usage=Usage(int(traces.figure(counts.get("prompt"))), int(traces.figure(counts.get("completion")))),
        latency_ms=max(0.0, end - start) * 1e3,
        failed=row.get("status_code") == "ERROR",
    )
    for each in objects(row.get("annotations") or row.get("span_annotations")):
        yield from session.each(_annotation({"span_id": id, **each}, session))


def _annotation(row: JsonObject, session: ImportSession) -> Iterator[Feedback]:
    if not row.get("span_id") and row.get("session_id"):
        raise Skip("feedback on a session, not on an answer")
    target, name = answer_id(_text(row, "span_id", "trace_id")), _text(row, "name")
    result, source = part(row, "result") or row, _source(row.get("annotator_kind"))
    label, score, stamp = (
        result.get("label"),
        result.get("score"),
        row.get("updated_at") or row.get("created_at"),
    )
    unique = hash_value([row.get("id"), target, name, row.get("identifier"), stamp, label, score])
    who = row.get("user_id") or row.get("identifier")
    subject = _who(session, source, who or name, target, group=None if who else f"phoenix:span:{target}")
    said = Statement(f"phoenix-{unique}", session.time_of(stamp), target, subject, source)
    yield from session.survey.labelled(said, name, label, score, result.get("explanation"))


def _nested(row: JsonObject) -> JsonObject:
    """A span's attributes as objects: given so, or with dotted keys (`llm.input_messages.0.message.role`),
    in `attributes` or as columns of the span."""
    columns = {key.removeprefix("attributes."): v for key, v in row.items() if key.startswith("attributes.")}
    nested: JsonObject = {}
    for key, value in {**part(row, "attributes"), **columns}.items():
        *path, last = key.split(".")
        at = nested
        for step in path:
            inner = at.setdefault(step, {})
            at = inner if isinstance(inner, dict) else {}
        at.setdefault(last, value)
    return nested


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _listed(value: Any) -> Any:
    """A list that dotted keys made an object with numbers as keys; within, each message without its prefix
    and its tool calls and parts as lists."""
    if isinstance(value, dict) and value and all(str(key).isdecimal() for key in value):
        value = [value[key] for key in sorted(value, key=int)]
    if not isinstance(value, list):
        return value
    listed = []
    for each in value:
        message = each.get("message", each) if isinstance(each, dict) else each
        if isinstance(message, dict):
            message = {k.removeprefix("message."): _listed(v) for k, v in message.items()}
            parts = message.pop("contents", None)
            if parts and not message.get("content"):
                message["content"] = [_object(p).get("message_content", p) for p in _listed(parts)]
        listed.append(message)
    return listed


def _io(attributes: JsonObject, side: str) -> Any:
    return traces.decoded(_object(attributes.get(side)).get("value"))


# --- MLflow -------------------------------------------------------------------------------------


def mlflow(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """A trace (info {trace_id, request_time, trace_metadata, assessments}, data {spans}), also as a row of a
    data frame, or an assessment alone."""
    info, data = part(row, "info") or row, part(row, "data") or row
    id, metadata = (
        _text(info, "trace_id", "request_id"),
        part(info, "trace_metadata") or part(info, "request_metadata"),
    )
    group = metadata.get("mlflow.trace.session") or id
    asker = cache(lambda: session.subject(metadata.get("mlflow.trace.user"), f"mlflow:session:{group}"))
    if "assessment_name" in row:
        yield from _assessment(row, id, asker, None, session)
        return
    time = session.time_of(info.get("request_time"), info.get("timestamp_ms"))
    spans = objects(data.get("spans"))
    root = next((s for s in spans if not (s.get("parent_span_id") or s.get("parent_id"))), {})
    given, output = (_mlflow_io(side, data, root, metadata) for side in ("request", "response"))
    if given is None and output is None:
        session.report.count("no input or output: feedback only")
    else:
        yield from traces.record(
            session,
            id,
            given,
            output,
            time=time,
            subject=asker(),
            version=metadata.get("mlflow.modelId") or metadata.get("mlflow.source.name"),
            latency_ms=traces.figure(info.get("execution_time_ms")),
            failed="ERROR" in (info.get("state"), info.get("status")),
        )
    for each in objects(info.get("assessments")):
        yield from session.each(_assessment(each, id, asker, time, session))


def _mlflow_io(side: str, data: JsonObject, root: JsonObject, metadata: JsonObject) -> Any:
    name = {"request": "Inputs", "response": "Outputs"}[side]
    span, trace = part(root, "attributes").get(f"mlflow.span{name}"), metadata.get(f"mlflow.trace{name}")
    values = (data.get(side), span, trace)
    return next((traces.decoded(value) for value in values if value not in (None, "")), None)


def _assessment(
    row: JsonObject, trace: str, asker: Callable[[], str], time: float | None, session: ImportSession
) -> Iterator[Feedback]:
    if row.get("valid") is False:
        raise Skip("an assessment that another one replaced")
    name, about, metadata = _text(row, "assessment_name", "name"), part(row, "source"), part(row, "metadata")
    source, target = _source(about.get("source_type")), answer_id(trace)
    who = (
        about.get("source_id")
        if about.get("source_id") not in ("default", "unknown")
        else metadata.get("user_id")
    )
    judge = f"mlflow:judge:{about.get('source_id') or name}"[:256]
    name_of = judge if source not in _PEOPLE else who
    subject = session.subject_of(name_of) if isinstance(name_of, str) and name_of else asker()
    stamps = (row.get("last_update_time"), row.get("create_time"), row.get("last_update_time_ms"), time)
    feedback, expectation = part(row, "feedback"), part(row, "expectation")
    value = feedback.get("value") if feedback else expectation.get("value")
    unique = hash_value([row.get("assessment_id"), target, name, subject, stamps[:3], value])
    said = Statement(f"mlflow-{unique}", session.time_of(*stamps), target, subject, source)
    if feedback.get("error"):
        raise Skip("an assessment that failed")
    if expectation:
        if not isinstance(value, str):
            raise Skip("an expectation that is no text")
        yield from said.correction(value)
        yield from said.remark(row.get("rationale"))
        return
    if isinstance(value, list | dict):
        raise Skip("an assessment that is no number, truth or text")
    yield from session.score(said, name, value, row.get("rationale"))


# --- Helicone, OpenAI ---------------------------------------------------------------------------


def helicone(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """A request (request_id, request_body, response_body, request_user_id, scores, feedback_rating)."""
    id = _text(row, "request_id", "id")
    given, output = traces.decoded(row.get("request_body")), traces.decoded(row.get("response_body"))
    properties = part(row, "request_properties") or part(row, "properties")
    user = row.get("request_user_id") or row.get("user_id") or row.get("helicone_user")
    group = properties.get("Helicone-Session-Id") or id
    subject = session.subject(user, f"helicone:session:{group}")
    time = session.time_of(row.get("request_created_at"), row.get("created_at"))
    status = row.get("response_status")
    model = row.get("response_model") or row.get("request_model") or row.get("model")
    tokens = Usage(
        int(traces.figure(row.get("prompt_tokens"))), int(traces.figure(row.get("completion_tokens")))
    )
    yield from traces.record(
        session,
        id,
        given,
        output,
        time=time,
        subject=subject,
        version=model,
        usage=tokens,
        latency_ms=traces.figure(row.get("delay_ms")),
        failed=isinstance(status, int) and status >= 400,
    )
    rating = row.get("feedback_rating")
    stamp = row.get("feedback_created_at")
    said = Statement(
        f"helicone-{hash_value([id, rating, stamp])}", session.time_of(stamp, time), answer_id(id), subject
    )
    yield from session.score(said, "feedback_rating", None if rating is None else bool(rating))
    for name, score in part(row, "scores").items():
        value = score.get("value") if isinstance(score, dict) else score
        if isinstance(score, dict) and score.get("valueType") == "boolean":
            value = bool(value)
        judge = session.subject_of(f"helicone:judge:{name}"[:256])
        unique = f"helicone-{hash_value([id, name, value])}"
        each = Statement(unique, time, answer_id(id), judge, SourceKind.CODE)
        yield from session.each(session.score(each, name, value))


def openai_stored(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """A stored chat completion; its messages, which the API gives apart, as `messages` (or `input`)."""
    metadata = part(row, "metadata")
    user = row.get("input_user") or row.get("user") or metadata.get("user_id") or metadata.get("user")
    given = row.get("messages") or row.get("input") or part(row, "request").get("messages")
    if not given:
        raise Skip("the question is missing: join GET /v1/chat/completions/{id}/messages as `messages`")
    id, usage = _text(row, "id"), part(row, "usage")
    yield from traces.record(
        session,
        id,
        {"messages": given},
        row,
        time=session.time_of(row.get("created")),
        subject=session.subject(user, f"openai:completion:{id}"),
        version=row.get("model"),
        usage=Usage(
            int(traces.figure(usage.get("prompt_tokens"))), int(traces.figure(usage.get("completion_tokens")))
        ),
    )
