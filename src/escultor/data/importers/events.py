"""Files of interactions and feedback that other programs recorded: how one is recognised, and its import.

A format is a parser and a rule that recognises it, a row of `EVENTS`. Broken records are counted with their
line and id and leave the others alone. Importing a file again adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from escultor.data.containers.rows_of_files import source_of
from escultor.data.importers import exported, labelling_tools, langfuse, open_webui, tracing_tools
from escultor.data.importers.session import EventReport, ImportedRecord, ImportSession, objects
from escultor.data.jsonl_rows import Fault, Skip
from escultor.errors import DataError, Erased, EscultorError, IdTaken
from escultor.store.log import Log
from escultor.strict_json import JsonObject
from escultor.types import Consent, Feedback, Interaction, Rating

BATCH = 500  # records of one transaction
PAGES = ("data", "items", "traces", "records", "results", "feedbacks", "runs", "spans", "scores", "requests")
MAX_ROWS = 50  # read to recognise a format
MAX_FAULTS = 10  # shown where nothing could be read
WITHOUT_TEXT = "kept without its text: serve.keep_text is false"
KNOWN = "already recorded"
TAKEN = "already recorded with other content, which stays"
_REFUSALS = {IdTaken: TAKEN, Erased: "erased on request"}


class Format(NamedTuple):
    """How rows of a format are recognised and parsed, and what they are called."""

    title: str
    matches: Callable[[JsonObject], bool]
    parse: Callable[[JsonObject, ImportSession], Iterator[ImportedRecord]]
    has_scores: bool = False  # of which one may be the thumb: such a file is read twice


def _has(*keys: str) -> Callable[[JsonObject], bool]:
    return lambda row: row.keys() >= set(keys)


def _is_open_webui(row: JsonObject) -> bool:
    body = row["chat"] if isinstance(row.get("chat"), dict) else row
    return row.keys() >= {"user_id", "type", "data", "meta"} or isinstance(body.get("history"), dict)


def _is_langsmith(row: JsonObject) -> bool:
    return row.keys() >= {"run_id", "key"} or row.keys() >= {"run_type", "inputs"}


def _is_completion(row: JsonObject) -> bool:
    return row.get("object") == "chat.completion" and "choices" in row


def _is_mlflow(row: JsonObject) -> bool:
    info = row["info"] if isinstance(row.get("info"), dict) else row
    is_trace = bool(info.keys() & {"trace_id", "request_id"})
    return is_trace and (info is not row or bool(row.keys() & {"assessments", "assessment_name"}))


def _is_phoenix(row: JsonObject) -> bool:
    context = row.get("context")
    is_span = (isinstance(context, dict) and "span_id" in context) or "context.span_id" in row
    return "annotator_kind" in row or is_span


def _is_argilla(row: JsonObject) -> bool:
    is_record = isinstance(row.get("fields"), dict) and bool(row.keys() & {"responses", "suggestions"})
    return is_record or any(key.endswith((".responses", ".suggestion")) for key in row)


def _is_label_studio(row: JsonObject) -> bool:
    is_task = isinstance(row.get("data"), dict) and "annotations" in row
    return is_task or {"annotator", "lead_time"} <= row.keys() or "annotation_id" in row


def _is_langfuse(row: JsonObject) -> bool:
    return langfuse.is_score(row) or langfuse.is_trace(row)


# The format of a file is the first that matches one of its first rows.
EVENTS: dict[str, Format] = {
    "interactions": Format("answers, one a line", exported.is_interaction, exported.parse),
    "feedback": Format("an export of feedback", exported.is_exported, exported.parse),
    "open-webui": Format("Open WebUI's feedback or chats", _is_open_webui, open_webui.parse),
    "mlflow": Format("MLflow's traces", _is_mlflow, tracing_tools.mlflow, True),
    "phoenix": Format("Phoenix's spans or annotations", _is_phoenix, tracing_tools.phoenix, True),
    "helicone": Format("Helicone's requests", _has("request_body"), tracing_tools.helicone, True),
    "langsmith": Format("LangSmith's runs or feedback", _is_langsmith, tracing_tools.langsmith, True),
    "argilla": Format("Argilla's records", _is_argilla, labelling_tools.argilla, True),
    "label-studio": Format("Label Studio's tasks", _is_label_studio, labelling_tools.label_studio, True),
    "distilabel": Format("rated generations", _has("generations", "ratings"), labelling_tools.distilabel),
    "openai-stored": Format("stored chat completions", _is_completion, tracing_tools.openai_stored),
    "langfuse": Format("Langfuse's scores or traces", _is_langfuse, langfuse.parse, True),
}


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How events are imported: their subjects and consent, the score that is the thumb (found if None, none
    if empty), and, if no text may be kept, what is kept of a record."""

    subject_of: Callable[[str], str]  # from a user's name to a subject
    consent: Consent = Consent.TRAIN
    thumb: str | None = None
    redacted: Callable[[ImportedRecord], ImportedRecord] | None = None


def format_of(path: Path) -> str | None:
    """The format of a file of events, by its first rows; None if it is of none. Raises DataError for a file
    that cannot be read."""
    rows = (row for _, row in rows_of(path, EventReport()) if not isinstance(row, Fault))
    for row in islice(rows, MAX_ROWS):
        for name, format in EVENTS.items():
            if format.matches(row):
                return name
    return None


def rows_of(path: Path, report: EventReport) -> Iterator[tuple[str, JsonObject | Fault]]:
    """The objects of a file with their places, or what is wrong with them; a page of an API stands for the
    objects in it. The data of pictures is left out. Raises DataError for a file that cannot be read."""
    line = 0
    try:
        for line, row in source_of(path, with_base64=False).read():
            if isinstance(row, Skip):
                report.count(str(row), f"line {line}")
            elif isinstance(row, Fault):
                yield f"line {line}", row
            else:
                for each in _of_page(row):
                    yield _place(line, each), each
    except DataError as error:  # where a value is too large
        if not line:
            raise
        report.fault(Fault(error.what, error.got, error.allowed, error.remedy), f"line {line}")


def _of_page(row: JsonObject) -> list[JsonObject]:
    """The objects in a page of an API; of any other row, the row."""
    page = next((row[key] for key in PAGES if isinstance(row.get(key), list)), None)
    is_page = page is not None and not row.keys() & {"id", "info", "trace_id", "request_id"}
    return objects(page) if is_page else [row]


def _place(line: int, row: JsonObject) -> str:
    info = row.get("info") if isinstance(row.get("info"), dict) else {}
    ids = (row.get("id"), row.get("request_id"), row.get("span_id"), info.get("trace_id") if info else None)
    id = next((each for each in ids if isinstance(each, str | int) and not isinstance(each, bool)), None)
    return f"line {line}" if id is None else f"{str(id)[:60]} (line {line})"


def import_events(path: Path, name: str, log: Log, options: ImportOptions) -> EventReport:
    """Append a file's records to the log; repeating it changes nothing.

    What is broken, holds nothing to record, has an id with other content in the log, or was erased is left
    out and counted. Raises DataError if nothing could be read for faults.
    """
    format, known = EVENTS[name], dict[str, str]()

    def subject_of_answer(id: str) -> str | None:
        if id not in known:
            interaction = log.get(Interaction, id)
            return interaction.subject if interaction else None
        return known[id]

    @lru_cache(maxsize=1_000)
    def row_of(own_id: str) -> Interaction | None:
        rows = (row for _, row in log.read(Interaction, target=own_id))
        found = [row for row in rows if row.message == own_id and not row.task]
        return found[-1] if found else None

    session = ImportSession(options.subject_of, options.consent, subject_of_answer, row_of)
    session.file_time = path.stat().st_mtime
    if format.has_scores and options.thumb is None:
        for _ in _records(path, format, session):
            pass
    session.survey.decide(options.thumb)
    thumbs, undecided = session.survey.chosen or frozenset(), tuple(session.survey.undecided())
    session.report = report = EventReport(thumbs=thumbs, undecided=undecided)
    records = _records(path, format, session)
    while batch := list(_batch(records, known)):
        _append(batch, log, options, report)
        known.clear()
    if report.broken and not report.read and not report.counts[KNOWN]:
        faults = [f"  {path}: {', '.join(report.places[reason])}: {reason}" for reason in report.counts]
        what = "\n".join([f"{path} cannot be imported:", *faults[:MAX_FAULTS]])
        raise DataError(what, remedy="correct these records; nothing was imported")
    return report


def _batch(
    records: Iterable[tuple[str, ImportedRecord]], known: dict[str, str]
) -> Iterator[tuple[str, ImportedRecord]]:
    """The next records to write together; the subjects of the answers among them are known from here on."""
    for place, record in islice(records, BATCH):
        if isinstance(record, Interaction):
            known[record.id] = record.subject
        yield place, record


def _append(
    batch: list[tuple[str, ImportedRecord]], log: Log, options: ImportOptions, report: EventReport
) -> None:
    kept = [record if options.redacted is None else options.redacted(record) for _, record in batch]
    last = log.last_seq()
    outcomes = log.append_each([[record] for record in kept])
    for (place, record), stored, outcome in zip(batch, kept, outcomes, strict=True):
        if isinstance(outcome, IdTaken) and _is_known(stored, log):
            report.count(KNOWN, place)
        elif isinstance(outcome, EscultorError):
            report.count(_REFUSALS.get(type(outcome), outcome.what), place)
        elif outcome[0] <= last:
            report.count(KNOWN, place)
        else:
            last = outcome[0]
            report.read[_kind(record)] += 1
            if stored != record:
                report.count(WITHOUT_TEXT, place)


def _is_known(record: ImportedRecord, log: Log) -> bool:
    """Whether the log has this record but for its time, which two exports may give differently."""
    if isinstance(record, Interaction):
        known = log.get(Interaction, record.id)
        return known is not None and (known.messages, known.answer) == (record.messages, record.answer)
    return (known := log.get(Feedback, record.id)) is not None and replace(known, time=record.time) == record


def _kind(record: ImportedRecord) -> str:
    if isinstance(record, Rating):
        return "thumbs" if record.name == "thumb" else "scores"
    return f"{type(record).__name__.lower()}s"


def _records(path: Path, format: Format, session: ImportSession) -> Iterator[tuple[str, ImportedRecord]]:
    """The records of a file with their places; what is wrong with the others is counted."""
    for place, row in rows_of(path, session.report):
        session.report.place = place
        try:
            if isinstance(row, Fault):
                raise row
            yield from ((place, record) for record in format.parse(row, session))
        except Fault as fault:
            session.report.fault(fault)
        except Skip as skip:
            session.report.count(str(skip))
        except EscultorError as error:  # a user's name that cannot be hashed
            session.report.fault(Fault(error.what, error.got, error.allowed))
