"""`feedback convert`, `advise`, `quarantine`: training data from feedback, and what is held back."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell, write_text
from escultor.errors import InputError

if TYPE_CHECKING:
    from escultor.feedback.conversion import Conversion
    from escultor.store import Store

SinceOption = Annotated[
    str | None,
    typer.Option("--since", help="daily, weekly, monthly or a date; default: from the beginning."),
]


MAX_SHOWN, WIDTH = 20, 60  # events of an entry, characters of a text


class QuarantineAction(StrEnum):
    LIST = "list"
    SHOW = "show"
    RELEASE = "release"


def convert(
    shell: Shell,
    out: Annotated[str, typer.Option("--out", help="A name in the store, or a file that ends in .jsonl.")],
    since: SinceOption = None,
) -> CommandResult:
    """Turn feedback into pairs, examples and single verdicts, with the card that says what they are."""
    from escultor.cli.datasets import CARDS, card_as
    from escultor.feedback import card
    from escultor.feedback.conversion import make_card, record, write
    from escultor.ids import hash_value

    with _store(shell) as store:
        made = _convert(shell, store, since)
        advice = card.advise(made.card, shell.config.feedback)
        versions = record(store, made, _name(out))
        files: dict[str, Path] = {}
        if out.endswith(".jsonl"):
            files = write(store, made, Path(out))
            kinds = ", ".join(kind for kind, n in made.rows.items() if n) or "none"
            known = make_card(made, Path(out).name, kinds, sum(made.rows.values()), hash_value(made.blobs))
            for ending in CARDS:
                files[f"card{ending}"] = Path(out).with_suffix(f".card{ending}")
                write_text(files[f"card{ending}"], card_as(ending, known))
    _show(shell, made)
    for line in advice.lines:
        shell.say(line)
    for version in versions:
        place = files.get(version.kind)
        shell.say(f"{version.name}: {version.rows:,} rows{f' in {place}' if place else ''} ({version.hash})")
    return CommandResult(
        {
            "rows": made.rows,
            "files": files,
            "datasets": {version.kind: version.hash for version in versions},
            "stages": advice.stages,
            "reused": made.reused,
            "card": made.card,
        }
    )


def advise(shell: Shell, since: SinceOption = None) -> CommandResult:
    """Say what to train on the feedback there is, and why; nothing is written."""
    from escultor.feedback import card

    with _store(shell) as store:
        made = _convert(shell, store, since)
    _show(shell, made)
    advice = card.advise(made.card, shell.config.feedback)
    for line in advice.lines:
        shell.say(line, "bold")
    return CommandResult(
        {"stages": advice.stages, "lines": advice.lines, "rows": made.rows, "card": made.card}
    )


def quarantine(
    shell: Shell,
    action: Annotated[
        QuarantineAction, typer.Argument(help="List what is held back, show what was said, or let it count.")
    ] = QuarantineAction.LIST,
    id: Annotated[
        str | None, typer.Argument(help="An entry of the list, or a single piece of feedback.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why it may count, for the record.")] = None,
) -> CommandResult:
    """What the abuse rules hold back and why; nothing of it is deleted, all can be released."""
    with _store(shell) as store:
        if action is QuarantineAction.RELEASE:
            return _release(shell, store, id, reason)
        return _show_entry(shell, store, id) if action is QuarantineAction.SHOW else _list(shell, store, id)


def _list(shell: Shell, store: Store, id: str | None) -> CommandResult:
    from escultor.feedback.conversion import open_index
    from escultor.ids import plain

    if id is not None:
        raise InputError("the list takes no id", id, remedy="`escultor feedback quarantine show ID`")
    with open_index(store, shell.config.feedback) as index:
        index.follow(store.log)
        held = index.standings().quarantine
    rows = [(h.id, h.rule, h.subject, f"{h.n:,}", h.reason) for h in held]
    if rows:
        shell.table(["Entry", "Rule", "Who", "Number", "Why"], rows, left=(0, 1, 2, 4))
    else:
        shell.say("nothing is held back")
    return CommandResult({"held": plain(held)})


def _show_entry(shell: Shell, store: Store, id: str | None) -> CommandResult:
    from escultor.feedback.conversion import open_index
    from escultor.feedback.quarantine_review import held_events
    from escultor.ids import plain

    with open_index(store, shell.config.feedback) as index:
        index.follow(store.log)
        held = {h.id: h for h in index.standings().quarantine}
        if id not in held:
            raise InputError("there is no such entry", id, _some(held), "see the list")
        events = held_events(index, held[id], store.log, MAX_SHOWN)
    shell.say(held[id].reason)
    rows = [(e.id, e.said, _short(e.prompt), _short(e.text)) for e in events]
    shell.table(["Feedback", "Said", "Prompt", "Answer or edit"], rows, left=(0, 1, 2, 3))
    if len(events) == MAX_SHOWN:
        shell.say(f"these are the newest {MAX_SHOWN}")
    return CommandResult({"held": plain(held[id]), "words": plain(events)})


def _some(entries: Iterable[str]) -> str:
    return ", ".join(sorted(entries)[:5]) or "nothing is held back"


def _short(text: str) -> str:
    return textwrap.shorten(text, WIDTH, placeholder=" …")


def _release(shell: Shell, store: Store, id: str | None, reason: str | None) -> CommandResult:
    from escultor.feedback.conversion import open_index
    from escultor.ids import new_id
    from escultor.types import Feedback, QuarantineOverride

    with open_index(store, shell.config.feedback) as index:
        index.follow(store.log)
        entries = {h.id for h in index.standings().quarantine}
    if id is None or not (id in entries or store.log.get(Feedback, id) is not None):
        raise InputError("there is nothing to release under this id", id, _some(entries), "see the list")
    if reason is None or not reason.strip():
        raise InputError("a release needs a reason", reason, remedy="give --reason TEXT")
    release = QuarantineOverride(new_id("release"), time.time(), id, reason)
    store.log.append(release)
    shell.say(f"{id} counts from now on")
    return CommandResult({"release": release.id, "target": id})


def _store(shell: Shell) -> Store:
    return existing_store(shell.config.store.url, "there is no feedback to convert")


def _convert(shell: Shell, store: Store, since: str | None) -> Conversion:
    from escultor.cycle.api import parse_since
    from escultor.feedback.conversion import convert
    from escultor.feedback.selection import SelectionQuery

    return convert(store, shell.config.feedback, SelectionQuery(time.time(), since=parse_since(since)))


def _name(out: str) -> str:
    name = Path(out).stem if out.endswith(".jsonl") else out
    if not name or "/" in name:
        raise InputError("this is no name for a data set", repr(out), "a name, or a file that ends in .jsonl")
    return name


def _show(shell: Shell, made: Conversion) -> None:
    """Rows by labelling rule, then why the rest made none."""
    kinds: dict[str, Any] = made.card["kinds"]
    rows = [(rule, kind, f"{n:,}") for kind, k in kinds.items() for rule, n in k["rules"].items()]
    if rows:
        shell.table(["Rule", "Makes", "Rows"], rows, left=(0, 1))
    left = [(reason, f"{n:,}") for reason, n in made.card["counts"].items() if n]
    shell.table(["Of the feedback", "Number"], left)
