"""`data preview`: what a run would learn from, token by token; and the few lines shown before each run."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.lookup import find_model, need_file
from escultor.cli.output import CommandResult, Shell, printable

if TYPE_CHECKING:
    from escultor.batching.preflight import Preflight, ShownRow

BAR = 40  # columns of the longest bar
LEARNT = ("⟦", "⟧")  # around what is learnt, for eyes and files without colour


class MethodOption(StrEnum):
    PRETRAIN = "pretrain"
    SFT = "sft"
    DPO = "dpo"
    KTO = "kto"
    DISTILL = "distill"


def preview(
    shell: Shell,
    file: Annotated[Path, typer.Argument(help="A JSONL file.")],
    model: Annotated[str, typer.Option("--model", help="Whose tokenizer and size; named as elsewhere.")],
    method: Annotated[
        MethodOption | None,
        typer.Option("--method", "--phase", help="Training method; default: by the kind of the first row."),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Rows to spell out.")] = 3,
) -> CommandResult:
    """Show the first rows token by token with what is learnt of them, and what a run would say of all."""
    from escultor.data.jsonl import kind_of, read_jsonl
    from escultor.model.load import load_shape
    from escultor.train.methods import METHODS
    from escultor.train.run_record import TrainingTask
    from escultor.train.runs import preview as preview_run

    need_file(file)
    chosen = str(method) if method else _first_for(kind_of(file))
    read = read_jsonl(file, METHODS[chosen].kind)
    settings = getattr(shell.config, "distillation" if chosen == "distill" else chosen)
    start = load_shape(str(find_model(model, shell.config.store.url)))
    found = preview_run(TrainingTask(chosen, start, read.items, settings), show=rows)
    for shown in found.first:
        _spell(shell, shown)
    _say_lengths(shell, found)
    for line in summary(found):
        shell.say(line)
    left_out = {reason: n for reason, n in read.counts.items() if reason != "kept"}
    shell.table(["Rows", "Count"], [(why, f"{n:,}") for why, n in {**found.counts, **left_out}.items() if n])
    found.raise_faults(documents=chosen == "pretrain")
    return CommandResult({"file": file, "method": chosen, "read": dict(read.counts), **as_data(found)})


def _first_for(kind: str) -> str:
    """The first method that trains on rows of a kind."""
    from escultor.train.methods import METHODS

    return next(name for name, method in METHODS.items() if method.kind == kind)


def as_data(found: Preflight) -> dict[str, Any]:
    """The whole of a pre-flight for --json."""
    return asdict(found) | {"memory_bytes": found.cost.memory}


def summary(found: Preflight) -> list[str]:
    """A pre-flight in a few lines: sizes, ends, cost, and a line for each warning."""
    from escultor.evaluate.report.parts import count, duration

    lengths, known, cost = found.lengths, found.vocabulary, found.cost
    share = found.labelled / found.tokens
    return [
        f"{found.rows:,} rows, {count(found.tokens)} tokens, {share:.0%} of them learnt; "
        f"{lengths.min} to {lengths.max:,} a row (half up to {lengths.p50:,}, 95 % up to {lengths.p95:,})",
        f"{found.ended:,} of {found.branches:,} end inside what is learnt; ids up to {known.largest:,} "
        f"of {known.embedding:,} rows of the embedding",
        f"estimate: {duration(cost.seconds)} or more, {cost.memory / 1e9:.2g} GB "
        f"(weights {cost.weights / 1e9:.2g}, gradients {cost.gradients / 1e9:.2g}, optimizer "
        f"{cost.optimizer / 1e9:.2g}, largest forward pass {cost.activations / 1e9:.2g})",
        *(f"warning: {text}" for text in found.warnings),
    ]


def _spell(shell: Shell, shown: ShownRow) -> None:
    """A row's tokens, one after the other; in colour and in brackets what is learnt."""
    from rich.text import Text

    for at, branch in enumerate(shown.branches):
        name = f"{shown.id}, side {at + 1}" if len(shown.branches) > 1 else shown.id
        shell.say(name, "bold")
        text, before = Text(), False
        for span in branch:
            if span.labelled != before:
                text.append(LEARNT[0] if span.labelled else LEARNT[1], "bold green")
            elif text:
                text.append("·", "dim")
            text.append(printable(span.text), "green" if span.labelled else "")
            before = span.labelled
        if before:
            text.append(LEARNT[1], "bold green")
        shell.console.print(text, soft_wrap=True)


def _say_lengths(shell: Shell, found: Preflight) -> None:
    most = max(n for _, n in found.lengths.bins)
    rows = [(f"{limit:,}", f"{n:,}", "█" * round(BAR * n / most)) for limit, n in found.lengths.bins]
    shell.table(["Tokens, up to", "Rows", ""], rows, left=(2,))
