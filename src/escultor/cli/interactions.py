"""`interactions export`, `count`, `purge`; and the export and count of any kind of record."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell, counted
from escultor.cli.subjects import show_derived
from escultor.datasets.erasure import finish_erasures
from escultor.datasets.provenance import derived_from
from escultor.errors import InputError
from escultor.store.files import atomic_write
from escultor.types import Interaction

ExportOut = Annotated[Path | None, Option("--out", help="File, written whole or not at all.")]
After = Annotated[int, Option(min=0, help="Only entries after this `seq`.")]

# What exported interactions are for, and the consents that allow it.
CONSENTS = {"training": ("train",), "evaluation": ("train", "eval_only")}


def export(
    shell: Shell,
    out: ExportOut = None,
    after: After = 0,
    use: Annotated[
        Literal["training", "evaluation"] | None,
        Option("--for", help="Only answers whose consent allows it; default: all."),
    ] = None,
) -> CommandResult:
    """Write every answer with its request, one JSON object a line."""
    return export_records(
        shell, Interaction, out, after, lambda record: use is None or record.consent in CONSENTS[use]
    )


def count(shell: Shell) -> CommandResult:
    """Show how many answers are recorded."""
    return count_records(shell, Interaction)


def purge(shell: Shell) -> CommandResult:
    """Remove answers whose retention is over, with their feedback. A running gateway does it hourly."""
    with existing_store(shell, "there is nothing to purge") as store:
        erasures, _ = store.log.purge(time.time())
        finish_erasures(store)
        derived = derived_from(store, [erasure.id for erasure in erasures]).summary()
    counts = {kind: sum(e.counts.get(kind, 0) for e in erasures) for kind in ("interaction", "feedback")}
    shell.print(f"purged: {counted(counts)}", "bold")
    if erasures:
        show_derived(shell, derived)
    return CommandResult({"counts": counts, **derived})


def count_records(shell: Shell, record_type: Any) -> CommandResult:
    """Show how many records of a type the store holds."""
    with existing_store(shell) as store:
        records = store.log.count(record_type)
    shell.print(f"{records}")
    return CommandResult({"count": records})


_CONTROLS = {c: f"\\u{c:04x}" for c in range(127, 160)}  # a terminal obeys them


def export_records(
    shell: Shell,
    record_type: Any,
    out: Path | None,
    after: int,
    keep: Callable[[Any], bool] = lambda record: True,
) -> CommandResult:
    """Write the records of a type after `after` that `keep` accepts, a line each: its number in the log, its
    type, its fields. Without a file they go to stdout."""
    from pydantic_core import to_json

    if out is None and shell.as_json:
        raise InputError("--json prints one object, an export many lines", "no --out", "a file", "give --out")
    written = {"rows": 0, "last_seq": after}
    with existing_store(shell) as store:

        def lines() -> Iterator[str]:
            for seq, record in store.log.read(record_type, after=after):
                if keep(record):
                    fields = to_json(record, inf_nan_mode="null").decode()
                    written.update(rows=written["rows"] + 1, last_seq=seq)
                    line = f'{{"seq":{seq},"type":"{type(record).__name__.lower()}",{fields[1:]}\n'
                    yield line.translate(_CONTROLS)  # JSON escapes others by itself

        if out is None:
            sys.stdout.writelines(lines())
        else:
            with atomic_write(out) as draft, draft.open("w", encoding="utf-8") as file:
                file.writelines(lines())
            shell.print(f"wrote {written['rows']:,} rows to {out}")
    return CommandResult({**written, "out": out})
