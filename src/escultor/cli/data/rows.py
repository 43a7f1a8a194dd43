"""`data mine`, `check`: rows to train on, from the documentation and from files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from typer import Argument, Option

from escultor.cli.lookup import read_corpus, read_named
from escultor.cli.output import CommandResult, Shell
from escultor.data.jsonl import count_turns, write_jsonl
from escultor.data.sources.documentation import balanced
from escultor.types import Document, Example, RowKind

MinedKind = Literal["trinity", "documents"]
SplitSide = Literal["train", "held-out"]
METHOD_OF_KIND: dict[RowKind, str] = {
    "document": "pretrain",
    "example": "sft",
    "pair": "dpo",
    "unpaired": "kto",
}
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


def row_kind(name: str) -> str:
    """The kind of row that an option names; `judged` is the old name of `unpaired`."""
    if name == "judged":
        print("warning: the row kind `judged` is now called `unpaired`", file=sys.stderr)
        return "unpaired"
    if name not in ROW_KINDS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(ROW_KINDS)}")
    return name


def check(
    shell: Shell,
    file: Annotated[Path, Argument(help="A file of rows, or a dataset of the store.")],
    kind: Annotated[
        Any,
        Option(
            parser=row_kind,
            metavar=f"[{'|'.join(ROW_KINDS)}]",
            help="The kind of its rows; default: that of the first row.",
        ),
    ] = None,
) -> CommandResult:
    """Read a file or dataset as training would, and report which rows are used, which left out, and why."""
    found, contents = read_named(shell, file, kind)
    shell.print(f"{file}: {len(contents.items):,} rows of kind {found} can be used")
    held = count_turns(contents.items)
    for what, n in held.items():
        shell.print(f"{what}: {n:,}")
    left_out = {reason: n for reason, n in contents.counts.items() if reason != "kept"}
    shell.left_out(left_out, contents.skipped)
    data = {"file": file, "kind": found, "counts": contents.counts}
    return CommandResult(data | {"held": held, "skipped": contents.skipped})
