"""`data import`: files of other programs, and datasets of the hub, into the store."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from escultor.cli.data.rows import METHOD_OF_KIND, ROW_KINDS, row_kind
from escultor.cli.event_imports import import_file
from escultor.cli.lookup import open_or_create_store, require_file
from escultor.cli.output import CommandResult, Shell, counted
from escultor.data.containers.rows_of_files import HUB, RowSource, files_of, hub_source, source_of
from escultor.data.formats.mapping import mapped, parse_map
from escultor.data.formats.openai_api import requests_by_id
from escultor.data.formats.reading import (
    MAX_BAD_SHARE,
    SAMPLE_ROWS,
    FormatReport,
    format_named,
    recognise,
    refuse_unlearnable,
    with_inputs,
)
from escultor.data.formats.table import BY_NAME, RowFormat
from escultor.data.importers.events import EVENTS
from escultor.datasets.imports import ImportedFiles, convert_file, import_files
from escultor.errors import DataError, InputError

BOTH = frozenset(EVENTS) & frozenset(BY_NAME)  # read as rows here, as feedback by `feedback import`


@dataclass(frozen=True)
class RowOptions:
    """Options for rows to train on."""

    panel = "For rows to train on"

    name: Annotated[str | None, Option(help="Name of the dataset; default: that of the file.")] = None
    kind: Annotated[
        Any,
        Option(parser=row_kind, metavar=f"[{'|'.join(ROW_KINDS)}]", help="Keep rows of this kind alone."),
    ] = None
    map: Annotated[
        str | None, Option(metavar="NAME=COLUMN,…", help="prompt=question,completion=answer: name columns.")
    ] = None
    inputs: Annotated[Path | None, Option(help="The input file of an OpenAI batch.")] = None
    encoding: Annotated[str | None, Option(help="Of text that is not UTF-8, e.g. cp1252.")] = None
    max_bad: Annotated[
        float, Option(min=0, max=1, help="Refuse a file with a larger share of broken rows, and two or more.")
    ] = MAX_BAD_SHARE
    out: Annotated[Path | None, Option(help="Write a JSONL file and make no dataset.")] = None


def import_(
    shell: Shell,
    file: Annotated[
        str, Argument(help="A file, a folder of files, or hf://OWNER/NAME, /CONFIG and :SPLIT behind it.")
    ],
    rows: RowOptions,
    format: Annotated[str, Option(help="The name of its format (docs/data.md); default: found.")] = "auto",
    consent: Annotated[
        Literal["train", "eval_only", "none"] | None,
        Option(help="The consent of imported answers; default: `train`."),
    ] = None,
    thumb: Annotated[str | None, Option(help="The score that is the thumb; default: found.")] = None,
) -> CommandResult:
    """Import what other programs made: training rows become a dataset of the store, to be trained on by its
    name; recorded answers and feedback go into the store."""
    events = _event_format(file, format, rows)
    if events is not None:
        if given := [f"--{k}" for k, v in vars(rows).items() if v not in (None, MAX_BAD_SHARE)]:
            remedy = "leave it out; --store says where events go"
            raise InputError(f"{events} holds events", ", ".join(given), "options for events", remedy)
        return import_file(shell, Path(file), events, consent or "train", thumb)
    if consent is not None or thumb is not None:
        what = "--consent and --thumb act on formats of events alone"
        raise InputError(what, "rows to train on", ", ".join(EVENTS), "leave it out")
    sources, not_read = _sources(file, format, rows)
    if rows.out is not None:
        return _into_file(shell, sources, rows)
    name = rows.name or Path(file.removeprefix(HUB).partition(":")[0].rstrip("/")).name.partition(".")[0]
    with open_or_create_store(shell) as store:
        made = import_files(store, name, sources, rows.kind, rows.max_bad)
    _show(shell, made, not_read)
    return CommandResult(_data(file, made, not_read))


# --- what is read -------------------------------------------------------------------------------


def _event_format(file: str, format: str, rows: RowOptions) -> str | None:
    """The format of a file of events, by its name or its first rows; None for rows to train on."""
    if format != "auto" or rows.map is not None:
        return format if format in EVENTS and format not in BOTH else None
    if file.startswith(HUB) or not Path(file).is_file():
        return None
    for _, row in islice(source_of(Path(file), rows.encoding).read(), SAMPLE_ROWS):
        if isinstance(row, dict):
            names = [name for name, known in EVENTS.items() if known.matches(row)]
            if names:
                return None if names[0] in BOTH else names[0]
    return None


def _sources(
    file: str, format: str, rows: RowOptions
) -> tuple[list[tuple[RowSource, RowFormat]], dict[str, str]]:
    """The files to read with their formats, and why others of a folder are not read."""
    given = None if format == "auto" else refuse_unlearnable(file, format_named(format))
    given = given if rows.map is None else mapped(parse_map(rows.map))
    if file.startswith(HUB):
        source = hub_source(file)
        return [(source, given or recognise(source))], {}
    path = Path(file)
    if not path.is_dir():
        source = source_of(require_file(path), rows.encoding)
        return [(source, _with_inputs(given or recognise(source), rows))], {}
    paths, left_out = files_of(path)
    not_read = {str(p.relative_to(path)): reason for p, reason in left_out.items()}
    sources: list[tuple[RowSource, RowFormat]] = []
    for each in paths:
        source = source_of(each, rows.encoding)
        source = RowSource(str(each.relative_to(path)), source.read)
        try:
            sources.append((source, _with_inputs(given or recognise(source), rows)))
        except DataError as error:
            if len(paths) == 1:
                raise
            not_read[source.name] = str(error).splitlines()[0]
    if not sources:
        raise DataError(f"no file in {path} can be read", "; ".join(not_read.values())[:1000])
    return sources, not_read


def _with_inputs(format: RowFormat, rows: RowOptions) -> RowFormat:
    """The format of a batch's output, joined with the batch's input."""
    if format.name != "openai-batch":
        return format
    if rows.inputs is None:
        remedy = "give the batch's input file with --inputs"
        raise DataError("the output of a batch has no prompts", None, "its input file beside it", remedy)
    return with_inputs(format, requests_by_id(source_of(require_file(rows.inputs)).read()))


# --- what is shown ------------------------------------------------------------------------------


def _into_file(shell: Shell, sources: list[tuple[RowSource, RowFormat]], rows: RowOptions) -> CommandResult:
    if len(sources) != 1:
        raise InputError(
            "--out writes the rows of one file", f"{len(sources)} files", None, "leave --out out"
        )
    assert rows.out is not None
    report = convert_file(*sources[0], rows.kind, rows.out, rows.max_bad)
    name, kept = sources[0][0].name, report.kept.total()
    shell.print(f"{name}: taken for {report.format}; {kept:,} rows into {rows.out}", "bold")
    _show_report(shell, report)
    data = {"file": name, "into": rows.out, "kept": kept, "format": report.format}
    return CommandResult(data | {"left_out": +report.counts})


def _show(shell: Shell, made: ImportedFiles, not_read: dict[str, str]) -> None:
    for name, report in made.reports.items():
        kinds = counted({f"of kind {kind}": n for kind, n in report.kept.items()}) or "nothing to learn from"
        shell.print(f"{name}: taken for {report.format}; {report.rows:,} rows read: {kinds}", "bold")
        _show_report(shell, report)
    if not_read:
        shell.table(["File not read", "Why"], not_read.items(), left=(0, 1))
    for version in made.versions:
        shell.print(f"{version.name}: {version.rows:,} rows of kind {version.kind}; {version.hash}", "bold")
        model = "" if version.kind == "document" else "--model MODEL "
        shell.print(f"next: escultor {METHOD_OF_KIND[version.kind]} {model}--data {version.name} --out RUN")
    if {report.format for report in made.reports.values()} & BOTH:
        shell.print("what people said in it, as feedback: escultor feedback import")


def _show_report(shell: Shell, report: FormatReport) -> None:
    shell.left_out(+report.counts, report.skipped)
    for problem in report.problems[:3]:
        shell.print(f"  {problem}", "yellow")
    if report.unused:
        shell.print(f"columns not used: {', '.join(sorted(report.unused))}")


def _data(file: str, made: ImportedFiles, not_read: dict[str, str]) -> dict[str, Any]:
    reports = list(made.reports.values())
    return {
        "file": file,
        "format": reports[0].format,
        "kept": sum(report.kept.total() for report in reports),
        "rows": sum(report.rows for report in reports),
        "broken": sum(report.bad for report in reports),
        "left_out": sum((+report.counts for report in reports), type(reports[0].counts)()),
        "not_used": sorted({key for report in reports for key in report.unused}),
        "files": {
            name: {"format": report.format, "rows": report.rows, "kept": dict(report.kept)}
            for name, report in made.reports.items()
        },
        "not_read": not_read,
        "datasets": [{"name": v.name, "hash": v.hash, "kind": v.kind, "rows": v.rows} for v in made.versions],
    }
