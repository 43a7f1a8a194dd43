"""`data review`: rows of a dataset, one after another, for a person to accept, reject, edit or skip."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.datasets import DatasetName
from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell
from escultor.errors import InputError

if TYPE_CHECKING:
    from escultor.datasets.rows import CurationRow

KEYS = {"a": "accept", "r": "reject", "e": "edit", "s": "skip"}


class ReviewOrderOption(StrEnum):
    UNIFORM = "uniform"
    UNSURE = "unsure"


def review(
    shell: Shell,
    name: DatasetName,
    count: Annotated[int, typer.Option("--rows", min=1, help="Rows at most.")] = 20,
    sampling: Annotated[
        ReviewOrderOption, typer.Option("--sampling", help="By chance, or where the score is unsure.")
    ] = ReviewOrderOption.UNIFORM,
    reviewer: Annotated[str, typer.Option("--reviewer", help="Your name; default: the user's.")] = "",
    finish: Annotated[
        bool, typer.Option("--finish", help="Make a version without what was rejected, with what was edited.")
    ] = False,
) -> CommandResult:
    """Look at rows of a dataset and decide; every decision is kept at once."""
    from escultor.datasets.review import decisions, queue, reviewed
    from escultor.datasets.versions import find_version, read_rows

    who = reviewer or _user()
    with existing_store(shell.config.store.url) as store:
        version = find_version(store, name)
        if finish:
            return _finish(shell, store, version)
        uniform = sampling is ReviewOrderOption.UNIFORM
        before = decisions(store, version.hash)
        done = frozenset(row for row, said in before.items() if any(r.uniform == uniform for r in said))
        waiting = queue(read_rows(store, version), sampling.value, version.hash, count, done)
        made = 0
        for at, row in enumerate(waiting, 1):
            # Another reviewer may have decided meanwhile.
            now = decisions(store, version.hash).get(row.item.id, [])
            if any(r.uniform == uniform for r in now):
                continue
            shell.say(f"--- {at} of {len(waiting)}  {row.item.id}", "bold")
            if not _decide(shell, row, _recorder(store, version.hash, row, who, sampling.value)):
                break
            made += 1
        state = reviewed(decisions(store, version.hash))
    from escultor.datasets.cards import reviewed_line

    shell.say(reviewed_line(asdict(state), version.rows))
    return CommandResult({"dataset": version.hash, "decided": made, "review": asdict(state)})


def _recorder(store: Any, dataset: str, row: CurationRow, who: str, sampling: Any) -> Callable[..., object]:
    from escultor.datasets.review import record

    def put(decision: Any, reason: str = "", text: str = "") -> object:
        return record(store, dataset, row.item.id, who, decision, sampling, reason, text)

    return put


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise InputError("nobody knows who reviews", error, "a name", "give --reviewer") from error


def _decide(shell: Shell, row: CurationRow, record: Callable[..., object]) -> bool:
    """Show a row and take the decision; False where the person leaves."""
    from escultor.datasets.rows import text_parts

    for role, text in text_parts(row.item):
        shell.say(f"[{role}]", "dim")
        shell.say(text)
    shell.say("  ".join(f"{key}={value}" for key, value in {**row.labels, **row.figures}.items()), "dim")
    while True:
        key = _asked(shell, "a accept, r reject, e edit, s skip, q leave: ").strip().lower()[:1]
        if key in ("q", ""):
            return False
        if key not in KEYS:
            continue
        said: dict[str, str] = {}
        if key == "r":
            said["reason"] = _asked(shell, "reason: ")
        if key == "e":
            said["text"] = _asked(shell, "the text to be learnt: ")
            said["reason"] = _asked(shell, "reason: ")
        try:
            record(KEYS[key], **said)
        except InputError as error:
            shell.say(str(error), "yellow")
            continue
        return True


def _asked(shell: Shell, prompt: str) -> str:
    """A line from the person; empty at the end of the input."""
    shell.console.print(prompt, end="", markup=False)
    try:
        return input()
    except EOFError:
        return ""


def _finish(shell: Shell, store: Any, version: Any) -> CommandResult:
    from escultor.datasets.reviewed import finished

    made, counts = finished(store, version)
    shell.say(f"{made.name}: {made.rows:,} rows; {made.hash}", "bold")
    shell.table(["Review", "Rows"], [(what, f"{n:,}") for what, n in counts.items()])
    return CommandResult({"hash": made.hash, "rows": made.rows, "counts": counts})
