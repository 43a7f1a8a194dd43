"""Answers as traces and ratings as evaluation events, sent over OTLP/HTTP by the names of OpenTelemetry's
semantic conventions for generative AI.

The log is what is sent, so nothing is lost while the collector is away, and answering waits for nobody. Ids
of traces follow from those of answers: what is sent twice after an interruption is the same span. No text and
no person is sent. The extra `otel` installs what is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escultor.errors import InputError
from escultor.store import Store
from escultor.store.files import atomic_write, locked
from escultor.types import FAILED, Feedback, Interaction, Rating

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

BATCH = 500  # records in a request
TIMEOUT_S = 10
CURSOR = "otlp-cursor"  # file of the store: the last entry of the log that was sent


def export_new(store: Store, endpoint: str) -> list[str]:
    """Send what the log has behind the last entry sent, as far as the collector takes it; a line where it
    does not. A store that is first exported begins with what comes then. `endpoint` is the collector's base
    URL. Raises InputError where the libraries are missing."""
    exporter = _exporter(endpoint)
    file = store.root / CURSOR
    try:
        with locked(store.root / f"{CURSOR}.lock"):
            if not file.exists():
                _write(file, store.log.last_seq())
            while True:
                after = int(file.read_text())
                upto, spans = _spans(store, after)
                if upto == after:
                    return []
                if spans and exporter.export(spans).name != "SUCCESS":
                    return [f"{endpoint}: traces were not taken"]
                _write(file, upto)
    finally:
        exporter.shutdown()


def require_exporter(endpoint: str) -> None:
    """Raises InputError where the libraries are missing."""
    _exporter(endpoint).shutdown()


def _write(file: Path, upto: int) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(str(upto))


def _exporter(endpoint: str) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        remedy = "pip install 'escultor[otel]'"
        raise InputError("traces need the libraries of OpenTelemetry", endpoint, None, remedy) from error
    return OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=TIMEOUT_S)


def _spans(store: Store, after: int) -> tuple[int, Sequence[ReadableSpan]]:
    """The spans of the next records of the log, and the number of the last of them."""
    end = store.log.last_seq()
    rows = list(store.log.read(Interaction, after, BATCH))
    # Both kinds up to the same entry: nothing is passed over that the other kind's page stopped before.
    events = list(store.log.read(Feedback, after, BATCH))
    upto = min([page[-1][0] for page in (rows, events) if len(page) == BATCH], default=end)
    answers = [_answer_span(row) for seq, row in rows if seq <= upto]
    ratings = (event for seq, event in events if seq <= upto)
    return upto, [*answers, *_evaluation_spans(ratings)]


def _answer_span(row: Interaction) -> ReadableSpan:
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "text_completion" if row.skill == "completion" else "chat",
        "gen_ai.provider.name": "escultor",
        "gen_ai.response.id": row.id,
        "gen_ai.response.model": row.version,
        "gen_ai.response.finish_reasons": (row.finish_reason,),
        "gen_ai.request.temperature": row.sampling.temperature,
        "gen_ai.request.top_p": row.sampling.top_p,
        "gen_ai.request.max_tokens": row.sampling.max_new_tokens,
        "gen_ai.usage.input_tokens": row.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": row.usage.completion_tokens,
        "escultor.arm": row.arm,
        "escultor.cost_usd": row.cost_usd,
    }
    if row.ttft_ms is not None:
        attributes["escultor.time_to_first_token_ms"] = row.ttft_ms
    failed = row.finish_reason if row.finish_reason in FAILED else ""
    if failed:
        attributes["error.type"] = failed
    end = int(row.time * 1e9)  # a row's time is that of its end
    return _span(
        f"{attributes['gen_ai.operation.name']} {row.version}",
        row.id,
        _id(row.id, 8),
        (end - int(row.latency_ms * 1e6), end),
        attributes=attributes,
        has_failed=bool(failed),
    )


def _evaluation_spans(events: Iterable[Any]) -> Iterator[ReadableSpan]:
    """A span beside the answer's with the event `gen_ai.evaluation.result`, for each rating."""
    from opentelemetry.sdk.trace import Event

    for event in events:
        if isinstance(event, Rating):
            time = int(event.time * 1e9)
            told = {
                "gen_ai.evaluation.name": event.name,
                "gen_ai.evaluation.score.value": float(event.value),
                "gen_ai.response.id": event.target,
            }
            result = Event("gen_ai.evaluation.result", told, time)
            parent = _id(event.target, 8)
            name, times = f"evaluate {event.name}", (time, time)
            yield _span(name, event.target, _id(event.id, 8), times, events=[result], parent=parent)


def _span(
    name: str,
    answer: str,
    span: int,
    times: tuple[int, int],
    *,
    events: Sequence[Any] = (),
    parent: int | None = None,
    attributes: dict[str, Any] | None = None,
    has_failed: bool = False,
) -> ReadableSpan:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    trace, flags = _id(answer, 16), TraceFlags(TraceFlags.SAMPLED)
    return ReadableSpan(
        name,
        context=SpanContext(trace, span, is_remote=False, trace_flags=flags),
        parent=SpanContext(trace, parent, is_remote=False, trace_flags=flags) if parent else None,
        resource=Resource({"service.name": "escultor"}),
        attributes=attributes or {},
        events=events,
        kind=SpanKind.SERVER if parent is None else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR if has_failed else StatusCode.UNSET),
        start_time=times[0],
        end_time=times[1],
    )


def _id(text: str, size: int) -> int:
    """An id of a trace (16 bytes) or a span (8)."""
    return int.from_bytes(sha256(text.encode()).digest()[:size])
