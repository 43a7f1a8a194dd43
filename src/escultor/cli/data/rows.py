"""`data mine`, `check`: rows to train on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer import Argument, Option

from escultor.cli.lookup import read_named, store_cache
from escultor.cli.output import CommandResult, Shell
from escultor.data.jsonl import count_turns, write_jsonl
from escultor.demo.mining import DEFAULT_KIND, MinedKind, SplitSide, mined_rows
from escultor.types import RowKind

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
    kind: Annotated[MinedKind, Option(help="Prompts with gold answers, or plain text.")] = DEFAULT_KIND,
    limit: Annotated[int | None, Option(min=1, help="Rows at most.")] = None,
    split: Annotated[SplitSide, Option(help="Packages trained on, or never trained on.")] = "train",
) -> CommandResult:
    """Write the demonstration's documents as training data, to try things with."""
    rows = write_jsonl(out, mined_rows(kind, split, limit, store_cache(shell)))
    shell.print(f"wrote {rows:,} rows to {out} ({kind}, {split})")
    return CommandResult({"out": out, "rows": rows, "kind": kind, "split": split})


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
