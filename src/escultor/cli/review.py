"""`data review`: rows of a dataset, one after another, for a person to accept, reject, edit or skip."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from functools import partial
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
        ReviewOrderOption, typer.Option("--sampling", help="At random, or scores close to one half first.")
    ] = ReviewOrderOption.UNIFORM,
    reviewer: Annotated[str, typer.Option("--reviewer", help="Your name; default: the user's.")] = "",
    finish: Annotated[
        bool, typer.Option("--finish", help="Make a version without rejected rows and with the edits.")
    ] = False,
) -> CommandResult:
    """Review rows of a dataset; every decision is stored at once."""
    from escultor.datasets.review import read_decisions, record_review, review_queue, summarize
    from escultor.datasets.versions import find_version, read_rows

    who = reviewer or _user()
    with existing_store(shell.config.store.url) as store:
        version = find_version(store, name)
        if finish:
            return _finish(shell, store, version)
        uniform = sampling is ReviewOrderOption.UNIFORM
        before = read_decisions(store, version.hash)
        done = frozenset(row for row, reviews in before.items() if any(r.uniform == uniform for r in reviews))
        waiting = review_queue(read_rows(store, version), sampling.value, version.hash, count, done)
        decided = 0
        for number, row in enumerate(waiting, 1):
            # Another reviewer may have decided meanwhile.
            now = read_decisions(store, version.hash).get(row.item.id, [])
            if any(r.uniform == uniform for r in now):
                continue
            shell.say(f"--- {number} of {len(waiting)}  {row.item.id}", "bold")
            record = partial(
                record_review, store, version.hash, row.item.id, reviewer=who, order=sampling.value
            )
            if not _decide(shell, row, record):
                break
            decided += 1
        state = summarize(read_decisions(store, version.hash))
    from escultor.datasets.cards.pages import review_sentence

    shell.say(review_sentence(asdict(state), version.rows))
    return CommandResult({"dataset": version.hash, "decided": decided, "review": asdict(state)})


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise InputError("the reviewer is unknown", error, "a name", "give --reviewer") from error


def _decide(shell: Shell, row: CurationRow, record: Callable[..., object]) -> bool:
    """Show a row and record the decision; False if the reviewer quits."""
    from escultor.datasets.rows import text_parts

    for role, text in text_parts(row.item):
        shell.say(f"[{role}]", "dim")
        shell.say(text)
    shell.say("  ".join(f"{key}={value}" for key, value in {**row.labels, **row.figures}.items()), "dim")
    while True:
        key = _input(shell, "a accept, r reject, e edit, s skip, q quit: ").strip().lower()[:1]
        if key in ("q", ""):
            return False
        if key not in KEYS:
            continue
        texts: dict[str, str] = {}
        if key == "r":
            texts["reason"] = _input(shell, "reason: ")
        if key == "e":
            texts["text"] = _input(shell, "the text to be learnt: ")
            texts["reason"] = _input(shell, "reason: ")
        try:
            record(decision=KEYS[key], **texts)
        except InputError as error:
            shell.say(str(error), "yellow")
            continue
        return True


def _input(shell: Shell, prompt: str) -> str:
    """A line of input; empty at its end."""
    shell.console.print(prompt, end="", markup=False)
    try:
        return input()
    except EOFError:
        return ""


def _finish(shell: Shell, store: Any, version: Any) -> CommandResult:
    from escultor.datasets.review import apply_review

    reviewed, counts = apply_review(store, version)
    shell.say(f"{reviewed.name}: {reviewed.rows:,} rows; {reviewed.hash}", "bold")
    shell.table(["Review", "Rows"], [(what, f"{n:,}") for what, n in counts.items()])
    return CommandResult({"hash": reviewed.hash, "rows": reviewed.rows, "counts": counts})
