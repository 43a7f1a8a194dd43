"""`data review`: rows of a dataset, one by one, for a person to accept, reject, edit or skip."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Literal

from typer import Option

from escultor.cli.data.datasets import DatasetArgument
from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell, printable
from escultor.datasets.cards.pages import review_sentence
from escultor.datasets.review import apply_review, read_decisions, record_review, review_queue, summarize
from escultor.datasets.rows import CurationRow, text_parts
from escultor.datasets.versions import find_version, read_rows
from escultor.errors import InputError
from escultor.store import Store
from escultor.types import DatasetVersion

DECISIONS = {"a": "accept", "r": "reject", "e": "edit", "s": "skip"}


def review(
    shell: Shell,
    name: DatasetArgument,
    count: Annotated[int, Option("--rows", min=1, help="Rows at most.")] = 20,
    sampling: Annotated[
        Literal["uniform", "unsure"], Option(help="At random, or scores close to one half first.")
    ] = "uniform",
    reviewer: Annotated[str, Option(help="Your name; default: the user's.")] = "",
    finish: Annotated[bool, Option("--finish", help="Make a version from the decisions.")] = False,
) -> CommandResult:
    """Review rows of a dataset; every decision is stored at once."""
    person = reviewer or _user()
    with existing_store(shell) as store:
        version = find_version(store, name)
        if finish:
            return _finish(shell, store, version)
        uniform = sampling == "uniform"

        def decided_rows() -> frozenset[str]:
            decisions = read_decisions(store, version.hash).items()
            return frozenset(row for row, rs in decisions if any(r.uniform == uniform for r in rs))

        queue = review_queue(read_rows(store, version), sampling, version.hash, count, decided_rows())
        decided = 0
        for number, row in enumerate(queue, 1):
            if row.item.id in decided_rows():  # another reviewer decided meanwhile
                continue
            shell.print(f"--- {number} of {len(queue)}  {row.item.id}", "bold")
            record = partial(record_review, store, version.hash, row.item.id, reviewer=person, order=sampling)
            if not _decide(shell, row, record):
                break
            decided += 1
        state = asdict(summarize(read_decisions(store, version.hash)))
    shell.print(review_sentence(state, version.rows))
    return CommandResult({"dataset": version.hash, "decided": decided, "review": state})


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise InputError("the reviewer is unknown", error, "a name", "give --reviewer") from error


def _decide(shell: Shell, row: CurationRow, record: Callable[..., object]) -> bool:
    """Show a row and record the decision; False if the reviewer quits."""
    for role, text in text_parts(row.item):
        shell.print(f"[{role}]", "dim")
        shell.print(text)
    shell.print("  ".join(f"{key}={value}" for key, value in {**row.labels, **row.figures}.items()), "dim")
    while True:
        key = _input(shell, "a accept, r reject, e edit, s skip, q quit: ").strip().lower()[:1]
        if key in ("q", ""):
            return False
        if key not in DECISIONS:
            continue
        texts: dict[str, str] = {}
        if key == "r":
            texts["reason"] = _input(shell, "reason: ")
        if key == "e":
            texts["text"] = _input(shell, "the text to be learnt: ")
            texts["reason"] = _input(shell, "reason: ")
        try:
            record(decision=DECISIONS[key], **texts)
        except InputError as error:
            shell.print(str(error), "yellow")
            continue
        return True


def _input(shell: Shell, prompt: str) -> str:
    """A line of input; empty at the end of the input."""
    shell.console.print(printable(prompt), end="", markup=False)
    try:
        return input()
    except EOFError:
        return ""


def _finish(shell: Shell, store: Store, version: DatasetVersion) -> CommandResult:
    reviewed, counts = apply_review(store, version)
    shell.print(f"{reviewed.name}: {reviewed.rows:,} rows; {reviewed.hash}", "bold")
    shell.table(["Review", "Rows"], counts.items())
    return CommandResult({"hash": reviewed.hash, "rows": reviewed.rows, "counts": counts})
