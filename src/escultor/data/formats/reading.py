"""Items of a file in any known format. What cannot be read is counted with its line and reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from escultor.data.containers.json_stream import Numbered
from escultor.data.containers.rows_of_files import RowSource
from escultor.data.formats.chat import NO_ANSWER
from escultor.data.formats.mapping import propose_map
from escultor.data.formats.table import BY_NAME, CANONICAL, UNANSWERED, RowFormat, fitting
from escultor.data.jsonl import ImportReport
from escultor.data.jsonl_rows import Fault, RowKind, Skip, TrainingItem, build, kind_of_row, short
from escultor.data.row_messages import label_of
from escultor.data.verdicts import opposite_keys
from escultor.errors import DataError, InputError
from escultor.strict_json import JsonObject

SAMPLE_ROWS = 50  # by which a format is recognised
MAX_SHOWN = 3  # broken rows kept with their whole message
MAX_BAD_SHARE = 0.05
DETAILS = frozenset(
    ("labels", "figures", "subject", "time", "conversation")
)  # what our rows have beside their item
_HOPELESS_ROWS = 1000  # broken ones, without a sound one before them
_INDEX = re.compile(r"\[\d+\]")


@dataclass(slots=True)
class FormatReport(ImportReport):
    """What was read of a file: rows, broken ones with the first of their messages, and those left out by
    reason. `kept` counts items by kind."""

    format: str = ""
    rows: int = 0
    bad: int = 0
    problems: list[str] = field(default_factory=list)
    kept: Counter[RowKind] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)  # columns

    def fault(self, where: str, line: int, fault: Fault) -> None:
        """Count a broken row."""
        self.bad += 1
        if len(self.problems) < MAX_SHOWN:
            self.problems.append(f"{where}:{line}: {fault}")
        self.skip(f"broken: {_INDEX.sub('[…]', str(fault.args[0]))}", line)


def recognise(source: RowSource) -> RowFormat:
    """The format of a source, by its first rows.

    Raises DataError where no format fits (with a map that may), several do, or nothing can be learnt of it.
    """
    sample = list(islice(source.read(), SAMPLE_ROWS))
    rows = [row for _, row in sample if isinstance(row, dict)]
    if not rows:
        lines = [f"  {source.name}:{line}: {row}" for line, row in sample[:MAX_SHOWN]]
        what = "\n".join([f"{source.name} holds no rows", *lines])
        allowed = "one JSON object a row, or a table"
        raise DataError(what, None if sample else "an empty file", allowed)
    return recognise_rows(source.name, rows)


def recognise_rows(name: str, rows: list[JsonObject]) -> RowFormat:
    """The format that most of the first rows of a file have that can be learnt from; see `recognise`."""
    votes: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        votes[tuple(format.name for format in fitting(row))] += 1
    fits = [names for names, _ in votes.most_common() if names]
    # A row without its answer fits a format of which nothing can be learnt: it says nothing of the others.
    learnt = [names for names in fits if not all(BY_NAME[each].refused for each in names)]
    best = list(next(iter([*learnt, *fits]), ()))
    if not best:
        raise _unknown(name, rows)
    if len(best) > 1 and len({BY_NAME[each].convert for each in best}) > 1:
        remedy = " or ".join(f"--format {each}" for each in best) + ", or name the columns with --map"
        raise DataError(f"{name} fits several formats", short(sorted(rows[0])), ", ".join(best), remedy)
    return refuse_unlearnable(name, _without_opposites(name, BY_NAME[best[0]], rows))


def _without_opposites(name: str, format: RowFormat, rows: list[JsonObject]) -> RowFormat:
    """The format, unless it would learn one answer of a row and pass over a worse one."""
    known = frozenset().union(*format.keys)
    found = {key for row in rows for key in opposite_keys(row, known)} if format.becomes == "example" else ()
    if found:
        remedy = "--map prompt=…,chosen=…,rejected=… reads it, --format NAME leaves it out"
        what = f"{name} ({format.name}): a column names a worse answer"
        raise DataError(what, short(sorted(found)), "columns that the format reads", remedy)
    return format


def refuse_unlearnable(name: str, format: RowFormat) -> RowFormat:
    """The format, unless nothing can be learnt of its rows. Raises DataError then."""
    if format.refused:
        raise DataError(f"{name} ({format.name}) holds nothing to learn from", format.refused)
    return format


def _unknown(name: str, rows: list[JsonObject]) -> DataError:
    if rows[0].keys() >= {"role", "content"}:
        remedy = 'write each conversation as {"messages": [...]}'
        return DataError(f"{name} holds single messages", short(sorted(rows[0])), "conversations", remedy)
    proposal = propose_map(rows)
    remedy = "name the columns with --map" + (f", perhaps --map {proposal}" if proposal else "")
    return DataError(
        f"{name}: the format is not known", short(sorted(rows[0])), "the formats of docs/data.md", remedy
    )


def format_named(name: str) -> RowFormat:
    """The format of this name. Raises InputError for another name."""
    if name not in BY_NAME:
        raise InputError("there is no such format", repr(name), ", ".join(BY_NAME))
    return BY_NAME[name]


def read_items(
    source: RowSource, format: RowFormat, report: FormatReport, kind: RowKind | None = None
) -> Iterator[tuple[int, RowKind, TrainingItem, JsonObject]]:
    """The items of a source by line, with their kind and our row; those of another kind than asked for are
    counted. Raises DataError where the first thousand rows are broken."""
    report.format = format.name
    rows = source.read()
    for line, row in format.group(rows) if format.group else rows:
        report.rows += 1
        made: list[tuple[RowKind, TrainingItem, JsonObject]] = []
        try:
            if not isinstance(row, dict):
                raise row
            for each in _converted(format, row):
                made.append(_item(each, report, f"{source.name}:{line}"))
        except Fault as fault:
            report.fault(source.name, line, fault)
        except Skip as skip:
            report.skip(str(skip), line)
        for found, item, our_row in made:
            if kind is not None and found != kind:
                report.skip(f"of kind {found}", line)
                continue
            report.kept[found] += 1
            yield line, found, item, our_row
        if report.bad == _HOPELESS_ROWS and not report.kept:
            break


def _converted(format: RowFormat, row: JsonObject) -> list[JsonObject]:
    """Our rows of a row. A file of our own rows may mix their shapes."""
    try:
        ours = _convert(format, row)
    except Fault:
        others = fitting(row) if format.name in CANONICAL else []
        if len(others) != 1 or others[0] is format or others[0].name not in CANONICAL:
            raise
        ours = _convert(others[0], row)
    return ours if isinstance(ours, list) else [ours]


def _convert(format: RowFormat, row: JsonObject) -> JsonObject | list[JsonObject]:
    """Our rows of a row. The functions of formats read values as their programs write them: what they stumble
    over is a fault of this row, and never the end of an import."""
    try:
        return format.convert(row)
    except (AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        got = short(f"{type(error).__name__}: {error}")
        raise Fault(
            f"a value is not as {format.name} has it", got, "rows as docs/data.md has them"
        ) from error


def _item(row: JsonObject, report: FormatReport, where: str) -> tuple[RowKind, TrainingItem, JsonObject]:
    kind = kind_of_row(row)
    if kind is None:
        if any(format.refused == UNANSWERED for format in fitting(row)):
            raise Skip(NO_ANSWER)
        raise Fault("the row has no known shape", short(sorted(row)), "the keys of its format")
    if "label" in row:
        row = row | {"label": label_of(row["label"])}
    counts: Counter[str] = Counter()
    item = build(kind, row, counts, where)
    for reason, n in counts.items():
        unused = reason.removeprefix("key not used: ")
        if unused == reason:
            report.counts[reason] += n
        elif unused not in DETAILS:
            report.unused[unused] += n
    return kind, item, row


def check_report(name: str, report: FormatReport, max_bad: float = MAX_BAD_SHARE) -> None:
    """Refuse a file of which more than one row and more than this share are broken, or of which nothing is
    left. Raises DataError with the first broken rows."""
    total = sum(report.kept.values())
    shown = [f"  {problem}" for problem in report.problems]
    if report.bad > 1 and report.bad > max_bad * report.rows and total:
        what = f"{name} ({report.format}): {report.bad:,} of {report.rows:,} rows are broken"
        allowed = f"one, or a share of {max_bad:g}"
        remedy = "correct them, or allow more with --max-bad; nothing was kept"
        raise DataError("\n".join([what, *shown]), None, allowed, remedy)
    if not total:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in report.counts.items() if n)
        what = "\n".join([f"{name} ({report.format}) holds nothing to learn from", *shown])
        remedy = UNANSWERED if report.counts[NO_ANSWER] else None
        raise DataError(what, reasons or "an empty file", "one row at least", remedy)


def with_inputs(format: RowFormat, bodies: dict[str, JsonObject]) -> RowFormat:
    """The format of a batch's output whose lines are given the bodies of their requests."""

    def group(rows: Iterator[Numbered]) -> Iterator[Numbered]:
        for line, row in rows:
            yield (
                line,
                row | {"body": bodies.get(str(row.get("custom_id")))} if isinstance(row, dict) else row,
            )

    return replace(format, group=group)
