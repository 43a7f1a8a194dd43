"""Files of other programs: which format one has, and what is brought in of it.

Formats of rows become a JSONL file of rows to train on; formats of events go into the store, as
interactions and feedback. A file is read twice: all of it has to be sound before anything is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from escultor.data.importers import conversations
from escultor.data.importers.interactions import served
from escultor.data.importers.json_values import values_of
from escultor.data.importers.langfuse import langfuse, scores_of
from escultor.data.importers.open_webui import open_webui
from escultor.data.jsonl import MAX_LINES, MAX_PROBLEMS, Reader, write_jsonl
from escultor.data.jsonl_rows import Fault, Skip, TrainingItem, decode, kind_of_row, short
from escultor.errors import DataError, Erased, EscultorError, IdTaken
from escultor.store.log import Log
from escultor.strict_json import JsonObject
from escultor.types import Consent, Feedback, Interaction

BATCH = 500  # entries of one transaction
WITHOUT_TEXT = "kept without its text: serve.keep_text is false"
Noun = Interaction | Feedback

ROWS: dict[str, Callable[[JsonObject], JsonObject]] = {
    "openai-chat": conversations.openai_chat,
    "openai-preference": conversations.openai_preference,
    "trl": conversations.trl,
    "sharegpt": conversations.sharegpt,
}
EVENTS = ("open-webui", "langfuse", "interactions")
FORMATS = (*ROWS, *EVENTS)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How events are to be taken in: who is who, what may be done with them, which score is the thumb, and,
    where no text may be kept, what is kept of an event."""

    subject_of: Callable[[str], str]  # from a user's name to a subject
    consent: Consent = Consent.TRAIN
    thumb: str | None = None
    redacted: Callable[[Noun], Noun] | None = None


@dataclass
class ImportReport:
    """What came of an import: how much was kept, and by reason what was not, with its first lines."""

    counts: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, list[int]] = field(default_factory=dict)

    def skip(self, reason: str, line: int) -> None:
        """Count what is left out."""
        self.counts[reason] += 1
        lines = self.skipped.setdefault(reason, [])
        if len(lines) < MAX_LINES:
            lines.append(line)


def format_of(path: Path) -> str:
    """The format of a file, by the keys of its first value. Raises DataError where it has none known."""
    for line, value in values_of(path):
        try:
            row = decode(value)
        except Fault as fault:
            raise DataError(f"{path}:{line}: {fault}") from fault
        for name, keys in _SIGNS:
            if row.keys() >= keys:
                return name
        remedy = "name it with --format"
        raise DataError(f"{path}:{line}: the format is not known", short(sorted(row)), FORMATS, remedy)
    raise DataError(f"{path} holds nothing", "an empty file", FORMATS)


_SIGNS: tuple[tuple[str, set[str]], ...] = (
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


def import_rows(path: Path, name: str, out: Path) -> ImportReport:
    """Write a file's rows as rows of ours, all of one kind, whole or not at all.

    Raises DataError naming the first broken lines, or when nothing is left to learn from.
    """
    convert = ROWS[name]
    kind = next((k for _, row in _rows(path) if (k := _kind(convert, row))), None)
    if kind is None:
        raise DataError(f"{path} holds no row of format {name}", None, "one row at least", "check --format")
    reader = Reader(path, kind, convert)
    write_jsonl(out, _read(reader, path))
    return ImportReport(reader.counts, reader.skipped)


def _read(reader: Reader, path: Path) -> Iterator[TrainingItem]:
    kept = 0
    for line, value in values_of(path):
        reader.take(line, value)
        if len(reader.problems) >= MAX_PROBLEMS:
            break
        if reader.items:
            kept += 1
            yield reader.items.pop()
    if reader.problems or not kept:
        reader.done()  # says what is wrong


def _kind(convert: Callable[[JsonObject], JsonObject], row: JsonObject) -> Any:
    try:
        return kind_of_row(convert(row))
    except (Fault, Skip):
        return None


def _rows(path: Path) -> Iterator[tuple[int, JsonObject]]:
    for line, value in values_of(path):
        try:
            yield line, decode(value)
        except Fault:
            continue  # named when the rows are read


def import_events(path: Path, name: str, log: Log, terms: ImportOptions) -> ImportReport:
    """Put a file's events into the store; repeating it changes nothing.

    Raises DataError naming the first broken lines; nothing is kept then. An event whose id holds other
    content, or that was erased, is left out and counted.
    """
    report, problems = ImportReport(), []
    for line, fault in _events(path, name, terms, report):
        if isinstance(fault, Fault):
            problems.append(f"  {path}:{line}: {fault}")
            if len(problems) >= MAX_PROBLEMS:
                break
    if problems:
        what = "\n".join([f"{path} cannot be imported:", *problems])
        raise DataError(what, remedy="correct these lines; nothing was imported")
    again = _events(path, name, terms, ImportReport())
    nouns = ((line, noun) for line, noun in again if not isinstance(noun, Fault))
    while some := list(islice(nouns, BATCH)):
        kept = [noun if terms.redacted is None else terms.redacted(noun) for _, noun in some]
        for (line, noun), bare, outcome in zip(some, kept, log.append_each([[n] for n in kept]), strict=True):
            _count(report, line, noun, outcome)
            if bare != noun and not isinstance(outcome, EscultorError):
                report.skip(WITHOUT_TEXT, line)
    return report


def _count(report: ImportReport, line: int, noun: Noun, outcome: list[int] | EscultorError) -> None:
    if isinstance(outcome, IdTaken):
        report.skip("the id holds other content", line)
    elif isinstance(outcome, Erased):
        report.skip("erased on request", line)
    elif isinstance(outcome, EscultorError):
        report.skip(outcome.what, line)
    else:
        report.counts["interactions" if isinstance(noun, Interaction) else "feedback"] += 1


def _events(
    path: Path, name: str, terms: ImportOptions, report: ImportReport
) -> Iterator[tuple[int, Noun | Fault]]:
    make = {
        "open-webui": partial(
            open_webui, subject_of=terms.subject_of, consent=terms.consent, counts=report.counts
        ),
        "langfuse": partial(langfuse, subject_of=terms.subject_of, thumb=terms.thumb),
        "interactions": lambda row: [served(row, terms.subject_of)],
    }[name]
    for line, value in values_of(path):
        try:
            row = decode(value)
            for each in scores_of(row) if name == "langfuse" else (row,):
                yield from _made(make, each, line, report)
        except Fault as fault:
            yield line, fault


def _made(
    make: Callable[[JsonObject], list[Any]], row: JsonObject, line: int, report: ImportReport
) -> Iterator[tuple[int, Noun | Fault]]:
    try:
        yield from ((line, noun) for noun in make(row))
    except Fault as fault:
        yield line, fault
    except Skip as skip:
        report.skip(str(skip), line)
    except EscultorError as error:  # a user's name that cannot be hashed
        yield line, Fault(error.what, error.got, error.allowed)
