"""`interactions` and `feedback`: export what was recorded, count it, purge what may be kept no longer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell
from escultor.errors import InputError

ExportOut = Annotated[Path | None, typer.Option("--out", help="File, written whole or not at all.")]
After = Annotated[int, typer.Option("--after", min=0, help="Only entries behind this `seq`.")]


class IntendedUse(StrEnum):
    """What exported interactions are for: it decides which consents allow it."""

    TRAINING = "training"
    EVALUATION = "evaluation"


ALLOWING = {IntendedUse.TRAINING: ("train",), IntendedUse.EVALUATION: ("train", "eval_only")}


def export_interactions(
    shell: Shell,
    out: ExportOut = None,
    after: After = 0,
    use: Annotated[
        IntendedUse | None,
        typer.Option("--for", help="Only answers whose consent allows it; default: all."),
    ] = None,
) -> CommandResult:
    """Write every answer with its request, one JSON object a line."""
    from escultor.types import Interaction

    keep = (lambda row: True) if use is None else (lambda row: row.consent in ALLOWING[use])
    return _export(shell, Interaction, out, after, keep)


def purge_interactions(shell: Shell) -> CommandResult:
    """Remove answers whose retention is over, with the feedback on them. A running gateway does it hourly."""
    import time

    from escultor.cli.subjects import show_derived
    from escultor.datasets.provenance import derived_from

    with existing_store(shell.config.store.url, "there is nothing to purge") as store:
        erasures, _ = store.log.purge(time.time())
        derived = derived_from(store, [erasure.id for erasure in erasures]).summary()
    counts = {kind: sum(e.counts.get(kind, 0) for e in erasures) for kind in ("interaction", "feedback")}
    shell.say("purged: " + ", ".join(f"{n:,} {kind}" for kind, n in counts.items()), "bold")
    if erasures:
        show_derived(shell, derived)
    return CommandResult({"counts": counts, **derived})


def count_interactions(shell: Shell) -> CommandResult:
    """Say how many answers are recorded."""
    from escultor.types import Interaction

    return _count(shell, Interaction)


def export_feedback(shell: Shell, out: ExportOut = None, after: After = 0) -> CommandResult:
    """Write every word about an answer, withdrawn ones and withdrawals included, one JSON object a line."""
    from escultor.types import Feedback

    return _export(shell, Feedback, out, after, lambda row: True)


def count_feedback(shell: Shell) -> CommandResult:
    """Say how many words about answers are recorded."""
    from escultor.types import Feedback

    return _count(shell, Feedback)


def _count(shell: Shell, noun: Any) -> CommandResult:
    with existing_store(shell.config.store.url) as store:
        count = store.log.count(noun)
    shell.say(f"{count}")
    return CommandResult({"count": count})


def _export(
    shell: Shell, noun: Any, out: Path | None, after: int, keep: Callable[[Any], bool]
) -> CommandResult:
    if out is None and shell.as_json:
        raise InputError("--json prints one object, an export many lines", "no --out", "a file", "give --out")
    seen = {"rows": 0, "last_seq": after}
    with existing_store(shell.config.store.url) as store:
        lines = _lines(((seq, row) for seq, row in store.log.read(noun, after=after) if keep(row)), seen)
        if out is None:
            for line in lines:
                sys.stdout.write(line)
        else:
            _write(out, lines)
            shell.say(f"wrote {seen['rows']:,} rows to {out}")
    return CommandResult({**seen, "out": out})


def _lines(rows: Iterator[tuple[int, Any]], seen: dict[str, int]) -> Iterator[str]:
    """Each row as a line: its number, what it is, and all it holds. `seen` counts them."""
    from pydantic_core import to_json

    for seq, row in rows:
        fields = to_json(row, inf_nan_mode="null").decode()
        seen["rows"] += 1
        seen["last_seq"] = seq
        yield f'{{"seq":{seq},"type":"{type(row).__name__.lower()}",{fields[1:]}\n'


def _write(out: Path, lines: Iterator[str]) -> None:
    from escultor.store.files import atomic_write

    with atomic_write(out) as draft, draft.open("w", encoding="utf-8") as file:
        file.writelines(lines)
