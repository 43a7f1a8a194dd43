"""Formats of other programs' files: how one is recognised, and what is imported of it.

Formats of rows become a JSONL file of rows to train on; formats of events go into the store, as interactions
and feedback. A file of events is read twice, so that nothing is kept unless all of it is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from escultor.data.importers import conversations
from escultor.data.importers.interactions import parse_interaction
from escultor.data.importers.json_values import values_of
from escultor.data.importers.langfuse import parse_score, scores_of
from escultor.data.importers.open_webui import parse_feedback
from escultor.data.jsonl import MAX_PROBLEMS, ImportReport, Reader, write_jsonl
from escultor.data.jsonl_rows import Fault, Skip, TrainingItem, decode, kind_of_row, short
from escultor.errors import DataError, Erased, EscultorError, IdTaken
from escultor.store.log import Log
from escultor.strict_json import JsonObject
from escultor.types import Consent, Feedback, Interaction, RowKind

BATCH = 500  # records of one transaction
_REFUSALS = {IdTaken: "the id holds other content", Erased: "erased on request"}
WITHOUT_TEXT = "kept without its text: serve.keep_text is false"
ImportedRecord = Interaction | Feedback

ROWS: dict[str, Callable[[JsonObject], JsonObject]] = {
    "openai-chat": lambda row: row,  # as ours
    "openai-preference": conversations.openai_preference,
    "trl": lambda row: row,  # its columns are ours
    "sharegpt": conversations.sharegpt,
}
EVENTS = ("open-webui", "langfuse", "interactions")
FORMATS = (*ROWS, *EVENTS)
# The format of a file is the first whose keys its first value has.
_KEYS_OF_FORMAT: tuple[tuple[str, set[str]], ...] = (
    ("sharegpt", {"conversations"}),
    ("openai-preference", {"input", "preferred_output"}),
    ("open-webui", {"user_id", "type", "data", "meta"}),
    ("langfuse", {"id", "name", "traceId"}),
    ("langfuse", {"id", "name", "dataType"}),
    ("langfuse", {"data", "meta"}),
    ("interactions", {"messages", "answer"}),
    ("trl", {"chosen", "rejected"}),
    ("trl", {"prompt", "completion"}),
    ("openai-chat", {"messages"}),
    ("trl", {"text"}),
)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How events are imported: their subjects and consent, the score that is the thumb, and, if no text may
    be kept, what is kept of a record."""

    subject_of: Callable[[str], str]  # from a user's name to a subject
    consent: Consent = Consent.TRAIN
    thumb: str | None = None
    redacted: Callable[[ImportedRecord], ImportedRecord] | None = None


def format_of(path: Path) -> str:
    """The format of a file, by the keys of its first value. Raises DataError if no format has them."""
    for line, value in values_of(path):
        try:
            row = decode(value)
        except Fault as fault:
            raise DataError(f"{path}:{line}: {fault}") from fault
        for name, keys in _KEYS_OF_FORMAT:
            if row.keys() >= keys:
                return name
        remedy = "name it with --format"
        raise DataError(f"{path}:{line}: the format is not known", short(sorted(row)), FORMATS, remedy)
    raise DataError(f"{path} holds nothing", "an empty file", FORMATS)


# --- rows ---------------------------------------------------------------------------------------


def import_rows(path: Path, name: str, out: Path) -> ImportReport:
    """Write a file's rows as rows of ours, all of one kind, whole or not at all.

    Raises DataError with the first broken lines, or if nothing is left to learn from.
    """
    convert = ROWS[name]
    kinds: Iterator[RowKind | None] = (_kind(convert, value) for _, value in values_of(path))
    kind = next(filter(None, kinds), None)
    if kind is None:
        raise DataError(f"{path} holds no row of format {name}", None, "one row at least", "check --format")
    reader = Reader(path, kind, convert)
    write_jsonl(out, _items(reader, path))
    return reader.report


def _kind(convert: Callable[[JsonObject], JsonObject], value: bytes) -> RowKind | None:
    """The kind of a value's row; None if it is broken, which is reported when the rows are read."""
    try:
        return kind_of_row(convert(decode(value)))
    except (Fault, Skip):
        return None


def _items(reader: Reader, path: Path) -> Iterator[TrainingItem]:
    kept = 0
    for line, value in values_of(path):
        reader.add(line, value)
        if len(reader.problems) >= MAX_PROBLEMS:
            break
        if reader.items:
            kept += 1
            yield reader.items.pop()
    if reader.problems or not kept:
        reader.contents()  # raises the error that lists the problems


# --- events -------------------------------------------------------------------------------------


def import_events(path: Path, name: str, log: Log, options: ImportOptions) -> ImportReport:
    """Append a file's records to the log; repeating it changes nothing.

    Raises DataError with the first broken lines; nothing is kept then. A record whose id has other content,
    or that was erased, is left out and counted.
    """
    report = ImportReport()
    faults = ((line, each) for line, each in _events(path, name, options, report) if isinstance(each, Fault))
    problems = [f"  {path}:{line}: {fault}" for line, fault in islice(faults, MAX_PROBLEMS)]
    if problems:
        what = "\n".join([f"{path} cannot be imported:", *problems])
        raise DataError(what, remedy="correct these lines; nothing was imported")
    again = _events(path, name, options, ImportReport())
    records = ((line, record) for line, record in again if not isinstance(record, Fault))
    while batch := list(islice(records, BATCH)):
        kept = [record if options.redacted is None else options.redacted(record) for _, record in batch]
        outcomes = log.append_each([[record] for record in kept])
        for (line, record), stored, outcome in zip(batch, kept, outcomes, strict=True):
            if isinstance(outcome, EscultorError):
                report.skip(_REFUSALS.get(type(outcome), outcome.what), line)
                continue
            report.counts["interactions" if isinstance(record, Interaction) else "feedback"] += 1
            if stored != record:
                report.skip(WITHOUT_TEXT, line)
    return report


def _events(
    path: Path, name: str, options: ImportOptions, report: ImportReport
) -> Iterator[tuple[int, ImportedRecord | Fault]]:
    """The records of a file, and what is wrong with each broken value, by line."""
    subject_of = options.subject_of
    parse: Callable[[JsonObject], list[ImportedRecord]] = {
        "open-webui": partial(
            parse_feedback, subject_of=subject_of, consent=options.consent, counts=report.counts
        ),
        "langfuse": partial(parse_score, subject_of=subject_of, thumb=options.thumb),
        "interactions": lambda row: [parse_interaction(row, subject_of)],
    }[name]
    for line, value in values_of(path):
        try:
            row = decode(value)
            for each in scores_of(row) if name == "langfuse" else (row,):
                yield from _records(parse, each, line, report)
        except Fault as fault:
            yield line, fault


def _records(
    parse: Callable[[JsonObject], list[ImportedRecord]], row: JsonObject, line: int, report: ImportReport
) -> Iterator[tuple[int, ImportedRecord | Fault]]:
    try:
        yield from ((line, record) for record in parse(row))
    except Fault as fault:
        yield line, fault
    except Skip as skip:
        report.skip(str(skip), line)
    except EscultorError as error:  # a user's name that cannot be hashed
        yield line, Fault(error.what, error.got, error.allowed)
