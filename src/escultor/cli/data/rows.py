"""`data mine`, `check`, `import`: rows to train on, from the documentation and from files."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from typer import Argument, Option

from escultor.cli.lookup import open_or_create_store, read_corpus, require_file
from escultor.cli.output import CommandResult, Shell, counted
from escultor.data.importers import formats
from escultor.data.jsonl import kind_of, read_jsonl, write_jsonl
from escultor.data.sources.documentation import balanced
from escultor.errors import InputError
from escultor.serve.subjects import SubjectHasher
from escultor.store.redaction import redact_record
from escultor.types import Consent, Document, Example, RowKind

MinedKind = Literal["trinity", "documents"]
SplitSide = Literal["train", "held-out"]
ImportFormat = Literal[
    "auto", "open-webui", "langfuse", "interactions", "openai-chat", "openai-preference", "trl", "sharegpt"
]
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
    left_out = {reason: n for reason, n in contents.counts.items() if reason != "kept"}
    shell.left_out(left_out, contents.skipped)
    return CommandResult(
        {"file": file, "kind": row_kind, "counts": contents.counts, "skipped": contents.skipped}
    )


def import_(
    shell: Shell,
    file: Annotated[Path, Argument(help="JSON Lines, or one JSON array.")],
    format: Annotated[ImportFormat, Option(help="Default: that of the first value.")] = "auto",
    out: Annotated[Path | None, Option(help="The JSONL file to write, for formats of rows.")] = None,
    consent: Annotated[
        Literal["train", "eval_only", "none"] | None,
        Option(help="The consent of Open WebUI's chats; default: `train`."),
    ] = None,
    thumb: Annotated[str | None, Option(help="Langfuse: the boolean score that is the thumb.")] = None,
) -> CommandResult:
    """Import what other programs recorded: chats and ratings into the store, training rows into a file."""
    name = formats.format_of(require_file(file)) if format == "auto" else format
    for value, option, only in ((consent, "--consent", "open-webui"), (thumb, "--thumb", "langfuse")):
        if value is not None and name != only:
            raise InputError(f"{option} acts on format {only} alone", f"format {name}", None, "leave it out")
    if name in formats.ROWS:
        if out is None:
            raise InputError(f"{name} holds rows to train on", "no --out", "a file", "give --out FILE")
        report, target = formats.import_rows(require_file(file), name, out), str(out)
    else:
        if out is not None:
            remedy = "leave --out out; --store says where they go"
            raise InputError(f"{name} holds events, which go into the store", f"--out {out}", None, remedy)
        report, target = _into_store(shell, file, name, consent or "train", thumb), shell.store_url
    kept = {kind: report.counts.pop(kind, 0) for kind in ("kept", "interactions", "feedback")}
    imported = counted({"rows" if kind == "kept" else kind: n for kind, n in kept.items() if n})
    shell.print(f"{file} ({name}): {imported or 'nothing'} into {target}")
    shell.left_out(report.counts, report.skipped)
    return CommandResult(
        {"file": file, "format": name, "into": target, **kept, "left_out": dict(report.counts)}
    )


def _into_store(shell: Shell, file: Path, name: str, consent: str, thumb: str | None) -> formats.ImportReport:
    with open_or_create_store(shell) as store:
        hasher = SubjectHasher.for_store(store.root).subject
        redact = None if shell.config.serve.keep_text else partial(redact_record, keyed_hash=hasher)
        options = formats.ImportOptions(hasher, Consent(consent), thumb, redact)
        return formats.import_events(require_file(file), name, store.log, options)
