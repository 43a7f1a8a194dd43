"""`data preview`: what a training run would learn from, and the pre-flight report shown before each run."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from escultor.cli.lookup import MODEL_HELP, find_model, read_named, store_if_any
from escultor.cli.output import CommandResult, Shell, printable
from escultor.evaluate.report.parts import count, duration

if TYPE_CHECKING:
    from escultor.batching.preflight import Preflight, ShownRow

BAR = 40  # columns of the longest bar
LEARNT = ("⟦", "⟧")  # around what is learnt, to be visible without colour too


MethodOption = Literal["pretrain", "sft", "dpo", "kto", "distill"]


def preview(
    shell: Shell,
    file: Annotated[Path, Argument(help="A file of rows, or a dataset of the store.")],
    model: Annotated[str, Option(help=f"The model to train. {MODEL_HELP}")],
    method: Annotated[MethodOption | None, Option(help="Default: by the kind of the first row.")] = None,
    phase: Annotated[MethodOption | None, Option(hidden=True)] = None,
    rows: Annotated[int, Option(min=0, help="Rows to show token by token.")] = 3,
) -> CommandResult:
    """Show the first rows token by token with what is learnt of them, and the pre-flight report of all."""
    from escultor.model.load import load_shape
    from escultor.train.methods import METHODS
    from escultor.train.replay import with_replay
    from escultor.train.run_record import TrainingTask
    from escultor.train.runs import preview as preview_run

    if phase is not None:
        print("warning: the option `--phase` is now called `--method`", file=sys.stderr)
    name = method or phase
    kind, contents = read_named(shell, file, None if name is None else METHODS[name].kind)
    name = name or next(name for name, known in METHODS.items() if known.kind == kind)
    settings = getattr(shell.config, "distillation" if name == "distill" else name)
    start = load_shape(str(find_model(shell, model)))
    counts = Counter(contents.counts)
    with store_if_any(shell) as store:
        kind, seed = METHODS[name].kind, settings.seed
        items = with_replay(contents.items, settings.replay, kind, store, seed=seed, counts=counts)
    preflight = preview_run(TrainingTask(name, start, items, settings), show=rows)
    for row in preflight.first:
        _show_tokens(shell, row)
    longest_bar = max(n for _, n in preflight.lengths.bins)
    bars = [(limit, n, "█" * round(BAR * n / longest_bar)) for limit, n in preflight.lengths.bins]
    shell.table(["Tokens, up to", "Rows", ""], bars, left=(2,))
    for line in preflight_lines(preflight):
        shell.print(line)
    shown = preflight.counts | {reason: n for reason, n in counts.items() if reason != "kept"}
    shell.table(["Rows", "Count"], [(reason, n) for reason, n in shown.items() if n])
    preflight.raise_faults(documents=name == "pretrain")
    return CommandResult({"file": file, "method": name, "read": dict(counts), **preflight_data(preflight)})


def preflight_data(preflight: Preflight) -> dict[str, Any]:
    """The whole of a pre-flight report for --json."""
    return asdict(preflight) | {"memory_bytes": preflight.cost.memory}


def preflight_lines(preflight: Preflight) -> list[str]:
    """A pre-flight report in a few lines: sizes, ends, cost, and a line for each warning."""
    lengths, vocabulary, cost = preflight.lengths, preflight.vocabulary, preflight.cost
    share = preflight.labelled / preflight.tokens
    return [
        f"{preflight.rows:,} rows, {count(preflight.tokens)} tokens, {share:.0%} of them learnt; "
        f"{lengths.min} to {lengths.max:,} a row (half up to {lengths.p50:,}, 95 % up to {lengths.p95:,})",
        f"{preflight.ended:,} of {preflight.branches:,} end inside what is learnt; "
        f"ids up to {vocabulary.largest:,} of {vocabulary.embedding:,} rows of the embedding",
        f"estimate: {duration(cost.seconds)} or more, {cost.memory / 1e9:.2g} GB "
        f"(weights {cost.weights / 1e9:.2g}, gradients {cost.gradients / 1e9:.2g}, optimizer "
        f"{cost.optimizer / 1e9:.2g}, largest forward pass {cost.activations / 1e9:.2g})",
        *(f"warning: {text}" for text in preflight.warnings),
    ]


def _show_tokens(shell: Shell, row: ShownRow) -> None:
    """Print a row's tokens; what is learnt of them is in brackets and in colour."""
    from rich.text import Text

    for number, branch in enumerate(row.branches, 1):
        shell.print(f"{row.id}, side {number}" if len(row.branches) > 1 else row.id, "bold")
        text, in_label = Text(), False
        for span in branch:
            if span.labelled != in_label:
                text.append(LEARNT[0] if span.labelled else LEARNT[1], "bold green")
            elif text:
                text.append("·", "dim")
            text.append(printable(span.text), "green" if span.labelled else "")
            in_label = span.labelled
        if in_label:
            text.append(LEARNT[1], "bold green")
        shell.console.print(text, soft_wrap=True)
