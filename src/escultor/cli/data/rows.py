"""`data mine`, `check`, `import`: rows to train on, from the documentation and from files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from typer import Argument, Option

from escultor.cli.event_imports import EventFormat, import_file
from escultor.cli.lookup import read_corpus, require_file
from escultor.cli.output import CommandResult, Shell, counted
from escultor.data.importers import events, formats
from escultor.data.jsonl import count_turns, kind_of, read_jsonl, write_jsonl
from escultor.data.sources.documentation import balanced
from escultor.errors import InputError
from escultor.types import Document, Example, RowKind

MinedKind = Literal["trinity", "documents"]
SplitSide = Literal["train", "held-out"]
ImportFormat = Literal[EventFormat, "openai-chat", "openai-preference", "trl", "sharegpt"]
ROW_KINDS: tuple[RowKind, ...] = get_args(RowKind)


def mine(
    shell: Shell,
    out: Annotated[Path, Option(help="The JSONL file to write.")],
    kind: Annotated[MinedKind, Option(help="Prompts with gold answers, or plain text.")] = "trinity",
    limit: Annotated[int | None, Option(min=1, help="Rows at most.")] = None,
    split: Annotated[SplitSide, Option(help="Packages trained on, or never trained on.")] = "train",
) -> CommandResult:
    """Write the documentation of the installed packages as training data."""
    items = (_documents if kind == "documents" else _gold_examples)(shell, split, limit)
    rows = write_jsonl(out, items)
    shell.print(f"wrote {rows:,} rows to {out} ({kind}, {split})")
    return CommandResult({"out": out, "rows": rows, "kind": kind, "split": split})


def _gold_examples(shell: Shell, split: SplitSide, limit: int | None) -> list[Example]:
    """Prompts with gold Trinities; a limit keeps the packages in balance."""
    corpus = read_corpus(shell)
    golds = corpus.train if split == "train" else corpus.held_out
    return [gold.example() for gold in (golds if limit is None else balanced(golds, limit))]


def _documents(shell: Shell, split: SplitSide, limit: int | None) -> list[Document]:
    """Plain text; a limit takes those of lowest hash, a uniform sample in any order."""
    from escultor.data.sources.documentation import documents, is_held_out

    held_out = split == "held-out"
    entries = (e for e in read_corpus(shell).entries if is_held_out(e.package) is held_out)
    by_id = {document.id: document for document in documents(entries)}
    return [by_id[id] for id in (by_id if limit is None else sorted(by_id)[:limit])]


def _row_kind(name: str) -> str:
    """The kind of row that an option names; `judged` is the old name of `unpaired`."""
    if name == "judged":
        print("warning: the row kind `judged` is now called `unpaired`", file=sys.stderr)
        return "unpaired"
    if name not in ROW_KINDS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(ROW_KINDS)}")
    return name


def check(
    shell: Shell,
    file: Annotated[Path, Argument(help="A JSONL file.")],
    kind: Annotated[
        str | None,
        Option(
            parser=_row_kind,
            metavar=f"[{'|'.join(ROW_KINDS)}]",
            help="The kind of its rows; default: that of the first row.",
        ),
    ] = None,
) -> CommandResult:
    """Read a JSONL file as training would, and report which rows are used, which are left out, and why."""
    row_kind: Any = kind or kind_of(require_file(file))
    contents = read_jsonl(require_file(file), row_kind)
    shell.print(f"{file}: {len(contents.items):,} rows of kind {row_kind} can be used")
    held = count_turns(contents.items)
    for what, n in held.items():
        shell.print(f"{what}: {n:,}")
    left_out = {reason: n for reason, n in contents.counts.items() if reason != "kept"}
    shell.left_out(left_out, contents.skipped)
    return CommandResult(
        {
            "file": file,
            "kind": row_kind,
            "counts": contents.counts,
            "held": held,
            "skipped": contents.skipped,
        }
    )


def import_(
    shell: Shell,
    file: Annotated[Path, Argument(help="JSON Lines, or one JSON array.")],
    format: Annotated[ImportFormat, Option(help="Default: that of the first value.")] = "auto",
    out: Annotated[Path | None, Option(help="The JSONL file to write, for formats of rows.")] = None,
    consent: Annotated[
        Literal["train", "eval_only", "none"] | None,
        Option(help="The consent of imported answers; default: `train`."),
    ] = None,
    thumb: Annotated[str | None, Option(help="The score that is the thumb; default: found.")] = None,
) -> CommandResult:
    """Import what other programs recorded: chats and ratings into the store, training rows into a file."""
    name = _format_of(require_file(file)) if format == "auto" else format
    for value, option in ((consent, "--consent"), (thumb, "--thumb")):
        if value is not None and name not in events.EVENTS:
            raise InputError(
                f"{option} acts on formats of events alone", f"format {name}", None, "leave it out"
            )
    if name in events.EVENTS:
        if out is not None:
            remedy = "leave --out out; --store says where they go"
            raise InputError(f"{name} holds events, which go into the store", f"--out {out}", None, remedy)
        return import_file(shell, file, name, consent or "train", thumb)
    if out is None:
        raise InputError(f"{name} holds rows to train on", "no --out", "a file", "give --out FILE")
    report = formats.import_rows(require_file(file), name, out)
    kept = report.counts.pop("kept", 0)
    shell.print(f"{file} ({name}): {counted({'rows': kept})} into {out}")
    shell.left_out(report.counts, report.skipped)
    return CommandResult(
        {"file": file, "format": name, "into": str(out), "kept": kept, "left_out": dict(report.counts)}
    )


def _format_of(file: Path) -> str:
    return events.format_of(file) or formats.format_of(file)
