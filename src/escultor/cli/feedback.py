"""`feedback`: export and count of events, training data made from them, and the quarantine."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from escultor.cli.data.datasets import CARD_SUFFIXES, write_card
from escultor.cli.interactions import After, ExportOut, count_records, export_records
from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell
from escultor.cycle.api import parse_since
from escultor.errors import InputError
from escultor.feedback import card
from escultor.feedback.conversion import Conversion, make_card, open_index, record, write
from escultor.feedback.index import FeedbackIndex
from escultor.feedback.quarantine_review import held_events
from escultor.feedback.selection import SelectionQuery
from escultor.feedback.trust import QuarantineEntry
from escultor.ids import hash_value, new_id, plain
from escultor.serve.subjects import SubjectHasher
from escultor.store import Store
from escultor.types import Feedback, QuarantineOverride

SinceOption = Annotated[str | None, Option(help="daily, weekly, monthly or a date; default: all feedback.")]
TrustOption = Annotated[
    list[str] | None,
    Option(help="A person to whom caps and abuse rules do not apply from now on; `me`: who names no user."),
]
MAX_SHOWN, WIDTH = 20, 60  # events of an entry, characters of a text


def export(shell: Shell, out: ExportOut = None, after: After = 0) -> CommandResult:
    """Write every feedback event, withdrawn ones and withdrawals included, one JSON object a line."""
    return export_records(shell, Feedback, out, after)


def count(shell: Shell) -> CommandResult:
    """Show how many feedback events are recorded."""
    return count_records(shell, Feedback)


def convert(
    shell: Shell,
    out: Annotated[str, Option(help="A name in the store, or a file that ends in .jsonl.")],
    since: SinceOption = None,
    trust: TrustOption = None,
) -> CommandResult:
    """Turn feedback into pairs, examples and unpaired examples, with a dataset card."""
    with _store(shell) as store:
        _trust(shell, store, trust or ())
        conversion = _convert(shell, store, since)
        advice = card.advise(conversion.card, shell.config.feedback)
        versions = record(store, conversion, _dataset_name(out))
        files: dict[str, Path] = {}
        if out.endswith(".jsonl"):
            files = write(store, conversion, Path(out))
            kinds = ", ".join(kind for kind, n in conversion.rows.items() if n) or "none"
            rows, blobs = sum(conversion.rows.values()), hash_value(conversion.blobs)
            contents = make_card(conversion, Path(out).name, kinds, rows, blobs)
            for suffix in CARD_SUFFIXES:
                files[f"card{suffix}"] = Path(out).with_suffix(f".card{suffix}")
                write_card(files[f"card{suffix}"], contents)
    _show(shell, conversion)
    for line in advice.lines:
        shell.print(line)
    for version in versions:
        file = f" in {files[version.kind]}" if version.kind in files else ""
        shell.print(f"{version.name}: {version.rows:,} rows{file} ({version.hash})")
    return CommandResult(
        {
            "rows": conversion.rows,
            "files": files,
            "datasets": {version.kind: version.hash for version in versions},
            "stages": advice.stages,
            "reused": conversion.reused,
            "card": conversion.card,
        }
    )


def advise(shell: Shell, since: SinceOption = None, trust: TrustOption = None) -> CommandResult:
    """Show what can be trained on the feedback there is, and why; nothing is written."""
    with _store(shell) as store:
        _trust(shell, store, trust or ())
        conversion = _convert(shell, store, since)
    _show(shell, conversion)
    advice = card.advise(conversion.card, shell.config.feedback)
    for line in advice.lines:
        shell.print(line, "bold")
    return CommandResult(
        {"stages": advice.stages, "lines": advice.lines, "rows": conversion.rows, "card": conversion.card}
    )


def quarantine(
    shell: Shell,
    action: Annotated[
        Literal["list", "show", "release"],
        Argument(help="List the entries, show the events of one, or release it."),
    ] = "list",
    id: Annotated[str | None, Argument(help="An entry of the list, or a single feedback event.")] = None,
    reason: Annotated[str | None, Option(help="Why it is released; kept in the log.")] = None,
) -> CommandResult:
    """Show what the abuse rules hold back and why; nothing of it is deleted, all of it can be released."""
    with _store(shell) as store, open_index(store, shell.config.feedback) as index:
        index.follow(store.log)
        entries = {entry.id: entry for entry in index.standings().quarantine}
        if action == "release":
            return _release(shell, store, entries, id, reason)
        if action == "show":
            return _show_entry(shell, store, index, entries, id)
    if id is not None:
        raise InputError("the list takes no id", id, remedy="`escultor feedback quarantine show ID`")
    rows = [(e.id, e.rule, e.subject, e.n, e.reason) for e in entries.values()]
    if rows:
        shell.table(["Entry", "Rule", "Who", "Number", "Why"], rows, left=(0, 1, 2, 4))
    else:
        shell.print("nothing is held back")
    return CommandResult({"held": plain(list(entries.values()))})


def _show_entry(
    shell: Shell, store: Store, index: FeedbackIndex, entries: Mapping[str, QuarantineEntry], id: str | None
) -> CommandResult:
    if id is None or id not in entries:
        raise InputError("there is no such entry", id, _first_ids(entries), "see the list")
    events = held_events(index, entries[id], store.log, MAX_SHOWN)
    shell.print(entries[id].reason)
    shorten = partial(textwrap.shorten, width=WIDTH, placeholder=" …")
    rows = [(e.id, e.said, shorten(e.prompt), shorten(e.text)) for e in events]
    shell.table(["Feedback", "Said", "Prompt", "Answer or edit"], rows, left=(0, 1, 2, 3))
    if len(events) == MAX_SHOWN:
        shell.print(f"these are the newest {MAX_SHOWN}")
    return CommandResult({"held": plain(entries[id]), "words": plain(events)})


def _release(
    shell: Shell, store: Store, entries: Mapping[str, QuarantineEntry], id: str | None, reason: str | None
) -> CommandResult:
    if id is None or not (id in entries or store.log.get(Feedback, id) is not None):
        allowed = _first_ids(entries)
        raise InputError("there is nothing to release under this id", id, allowed, "see the list")
    if reason is None or not reason.strip():
        raise InputError("a release needs a reason", reason, remedy="give --reason TEXT")
    release = QuarantineOverride(new_id("release"), time.time(), id, reason)
    store.log.append(release)
    shell.print(f"{id} counts from now on")
    return CommandResult({"release": release.id, "target": id})


def _first_ids(entries: Iterable[str]) -> str:
    return ", ".join(sorted(entries)[:5]) or "nothing is held back"


def _store(shell: Shell) -> Store:
    return existing_store(shell, "there is no feedback to convert")


def _convert(shell: Shell, store: Store, since: str | None) -> Conversion:
    from escultor.feedback.conversion import convert
    from escultor.skills.catalog import answer_schemas

    schemas = answer_schemas(shell.config.skills)
    query = SelectionQuery(time.time(), since=parse_since(since), schemas=schemas)
    return convert(store, shell.config.feedback, query)


def _trust(shell: Shell, store: Store, names: Iterable[str]) -> None:
    """Record that these people are trusted, named as the application names them or by their hash."""
    names = list(names)
    if not names:
        return
    with open_index(store, shell.config.feedback) as index:
        index.follow(store.log)
        known, trusted = index.subjects(), set(index.standings().trusted)
    hasher = SubjectHasher.for_store(store.root)
    for name in names:
        subject = name if name in known else hasher.subject("key:None" if name == "me" else name)
        if name == "me" and subject not in known and len(known) == 1:
            (subject,) = known
        if subject not in known:
            remedy = "the name that the application gives its user, or the hash of `escultor subjects hash`"
            raise InputError("nobody of this name gave feedback", name, None, remedy)
        if subject not in trusted:
            store.log.append(QuarantineOverride(new_id("release"), time.time(), subject, f"--trust {name}"))
        shell.print(f"trusted: {name} ({subject})")


def _dataset_name(out: str) -> str:
    name = Path(out).stem if out.endswith(".jsonl") else out
    if not name or "/" in name:
        allowed = "a name, or a file that ends in .jsonl"
        raise InputError("this is no name for a dataset", repr(out), allowed)
    return name


def _show(shell: Shell, conversion: Conversion) -> None:
    """Print the rows by labelling rule, then why other feedback made none."""
    kinds: dict[str, Any] = conversion.card["kinds"]
    rows = [(rule, kind, n) for kind, k in kinds.items() for rule, n in k["rules"].items()]
    if rows:
        shell.table(["Rule", "Makes", "Rows"], rows, left=(0, 1))
    counts = [(reason, n) for reason, n in conversion.card["counts"].items() if n]
    shell.table(["Of the feedback", "Number"], counts)
    for note in conversion.card["notes"]:
        shell.print(f"note: {note}")
