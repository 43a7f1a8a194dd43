"""`feedback import`, `interactions import`: what other programs recorded, into the store."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from escultor.cli.lookup import open_or_create_store, require_file
from escultor.cli.output import CommandResult, Shell, counted
from escultor.data.importers import events
from escultor.data.importers.session import EventReport
from escultor.errors import DataError
from escultor.serve.subjects import SubjectHasher
from escultor.store.redaction import redact_record
from escultor.types import Consent

EventFormat = Literal[
    "auto",
    "feedback",
    "interactions",
    "open-webui",
    "mlflow",
    "phoenix",
    "helicone",
    "langsmith",
    "argilla",
    "label-studio",
    "distilabel",
    "openai-stored",
    "langfuse",
]
FormatOption = Annotated[EventFormat, Option(help="Default: the one that its records have.")]
ConsentOption = Annotated[
    Literal["train", "eval_only", "none"],
    Option(help="The consent of the answers, where the file gives none."),
]
ThumbOption = Annotated[
    str | None,
    Option(help="The score that is the thumb; '' for none. Default: found by its name and values."),
]


def import_(
    shell: Shell,
    file: Annotated[Path, Argument(help="JSON, JSON Lines, CSV or Parquet, compressed or not.")],
    format: FormatOption = "auto",
    consent: ConsentOption = "train",
    thumb: ThumbOption = None,
) -> CommandResult:
    """Read answers and feedback that other programs recorded: exports of Open WebUI, Langfuse, LangSmith,
    Phoenix, MLflow, Helicone, Argilla, Label Studio and distilabel, stored completions, and this program's
    own. Importing a file again adds nothing."""
    name = events.format_of(require_file(file)) if format == "auto" else format
    if name is None:
        remedy = "rows to train on are read by `escultor data import`; a known format is named by --format"
        raise DataError(
            f"{file} holds no interactions or feedback of a known format", None, list(events.EVENTS), remedy
        )
    return import_file(shell, file, name, consent, thumb)


def import_file(
    shell: Shell, file: Path, name: str, consent: str = "train", thumb: str | None = None
) -> CommandResult:
    """Import a file of events of a known format, and show what was read, what was not and why."""
    with open_or_create_store(shell) as store:
        hasher = SubjectHasher.for_store(store.root).subject
        redact = None if shell.config.serve.keep_text else partial(redact_record, keyed_hash=hasher)
        options = events.ImportOptions(hasher, Consent(consent), thumb, redact)
        report = events.import_events(require_file(file), name, store.log, options)
    shell.print(f"{file}: taken for {events.EVENTS[name].title} (--format {name})", "bold")
    shell.print(f"read: {counted(report.read) or 'nothing new'}, into {shell.store_url}")
    _show_thumb(shell, report)
    rows = [(reason, n, ", ".join(report.places[reason][:3])) for reason, n in report.counts.most_common()]
    if rows:
        shell.table(["Left out, or worth knowing", "Count", "First at"], rows, left=(0, 2))
    return CommandResult(_data(shell, file, name, report))


def _show_thumb(shell: Shell, report: EventReport) -> None:
    if report.thumbs:
        shell.print(f"thumb: the score {', '.join(sorted(report.thumbs))}")
    elif report.undecided:
        names = ", ".join(report.undecided)
        shell.print(
            f"thumb: none, since several scores could be it: {names}; --thumb NAME says which", "bold"
        )


def _data(shell: Shell, file: Path, name: str, report: EventReport) -> dict[str, Any]:
    interactions = report.read["interactions"]
    return {
        "file": file,
        "format": name,
        "into": shell.store_url,
        "interactions": interactions,
        "feedback": report.read.total() - interactions,
        "read": dict(report.read),
        "known": report.counts[events.KNOWN],
        "broken": report.broken,
        "thumb": sorted(report.thumbs),
        "left_out": dict(report.counts),
        "places": report.places,
    }
