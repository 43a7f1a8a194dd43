"""`data`: training data from the installed documentation, and a check of one's own files."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from escultor.cli.lookup import need_file, read_corpus
from escultor.cli.output import CommandResult, Shell
from escultor.types import RowKind

if TYPE_CHECKING:
    from escultor.types import Document, Example


class MinedKind(StrEnum):
    TRINITY = "trinity"
    DOCUMENTS = "documents"


class SplitSide(StrEnum):
    TRAIN = "train"
    HELD_OUT = "held-out"


def _row_kind(name: str) -> RowKind:
    """The kind of row that an option names; `judged` is the old name of `unpaired`."""
    if name == "judged":
        print("warning: the row kind `judged` is now called `unpaired`", file=sys.stderr)
        return "unpaired"
    if name not in get_args(RowKind):
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(get_args(RowKind))}")
    return cast("RowKind", name)


def mine(
    shell: Shell,
    out: Annotated[Path, typer.Option("--out", help="The JSONL file to write.")],
    kind: Annotated[
        MinedKind, typer.Option("--kind", help="Prompts with gold answers, or plain text.")
    ] = MinedKind.TRINITY,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Rows at most.")] = None,
    split: Annotated[
        SplitSide, typer.Option("--split", help="Packages to train on, or those never trained on.")
    ] = SplitSide.TRAIN,
) -> CommandResult:
    """Write the documentation of the installed packages as training data."""
    from escultor.data.jsonl import write_jsonl

    url = shell.config.store.url
    items = _documents(url, split, limit) if kind is MinedKind.DOCUMENTS else _golds(url, split, limit)
    rows = write_jsonl(out, items)
    shell.say(f"wrote {rows:,} rows to {out} ({kind}, {split})")
    return CommandResult({"out": out, "rows": rows, "kind": kind, "split": split})


def _golds(url: str, split: SplitSide, limit: int | None) -> list[Example]:
    """Prompts with gold Trinities; a limit keeps the packages in balance."""
    from escultor.data.sources.documentation import balanced

    corpus = read_corpus(url)
    golds = corpus.train if split is SplitSide.TRAIN else corpus.held_out
    return [gold.example() for gold in (golds if limit is None else balanced(golds, limit))]


def _documents(url: str, split: SplitSide, limit: int | None) -> list[Document]:
    """Plain text; a limit takes those of lowest hash, which is a fair draw that depends on no order."""
    from escultor.data.sources.documentation import documents, is_held_out

    entries = read_corpus(url).entries
    made = {
        d.id: d
        for d in documents(e for e in entries if is_held_out(e.package) is (split is SplitSide.HELD_OUT))
    }
    return [made[id] for id in (made if limit is None else sorted(made)[:limit])]


def check(
    shell: Shell,
    file: Annotated[Path, typer.Argument(help="A JSONL file.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            parser=_row_kind,
            metavar=f"[{'|'.join(get_args(RowKind))}]",
            help="What its rows are; default: as the first row.",
        ),
    ] = None,
) -> CommandResult:
    """Read a JSONL file as training would, and say what is used and what is left out, and why."""
    from escultor.data.jsonl import kind_of, read_jsonl

    row_kind = cast("RowKind", kind) if kind else kind_of(need_file(file))
    found = read_jsonl(need_file(file), row_kind)
    shell.say(f"{file}: {len(found.items):,} rows of kind {row_kind} can be used")
    rest = {reason: n for reason, n in found.counts.items() if reason != "kept"}
    if rest:
        rows = [
            (reason, f"{n:,}", ", ".join(map(str, found.skipped.get(reason, ()))))
            for reason, n in rest.items()
        ]
        shell.table(["Left out or not used", "Count", "Lines"], rows, left=(0, 2))
    return CommandResult({"file": file, "kind": row_kind, "counts": found.counts, "skipped": found.skipped})
