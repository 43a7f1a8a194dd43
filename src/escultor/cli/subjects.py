"""`subjects`: what people may ask of what is kept about them."""

from __future__ import annotations

import getpass
import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell
from escultor.errors import InputError

if TYPE_CHECKING:
    from escultor.types import Erasure

_HASH = re.compile("[0-9a-f]{32}")
Hash = Annotated[str, typer.Argument(metavar="HASH", help="The subject; `escultor subjects hash` tells it.")]


def hash(
    shell: Shell,
    name: Annotated[str, typer.Argument(help="What the application calls its user.")],
) -> CommandResult:
    """Tell under which hash a user stands in this store."""
    from escultor.serve.subjects import SubjectHasher

    with existing_store(shell.config.store.url) as store:
        subject = SubjectHasher.for_store(store.root).subject(name)
    shell.say(subject)
    return CommandResult({"subject": subject})


def erase(
    shell: Shell,
    subject: Hash,
    by: Annotated[str | None, typer.Option("--by", help="Who asked for it; default: your login.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> CommandResult:
    """Remove what a person asked and said, for ever, and list what was trained on it."""
    from escultor.datasets.provenance import derived_from
    from escultor.types import Erasure

    if not _HASH.fullmatch(subject):
        remedy = "escultor subjects hash NAME"
        raise InputError("this is no subject", subject, "32 hex digits", remedy)
    if not yes and not typer.confirm(f"Erase everything of {subject}? It cannot be undone.", err=True):
        raise InputError("nothing was erased", "no confirmation", None, "confirm, or give --yes")
    with existing_store(shell.config.store.url, "there is nothing to erase") as store:
        erasure = store.log.erase(subject, by or getpass.getuser())
        ids = [e.id for _, e in store.log.read(Erasure, target=subject)]
        made = derived_from(store, ids).summary()
    shell.say("erased: " + ", ".join(f"{n:,} {what}" for what, n in erasure.counts.items()), "bold")
    show_derived(shell, made)
    return CommandResult({**_as_data(erasure), **made})


def erasures(shell: Shell) -> CommandResult:
    """List what was erased, when and on whose request."""
    from escultor.types import Erasure

    with existing_store(shell.config.store.url) as store:
        found = [e for _, e in store.log.read(Erasure)]
    rows = [
        (
            datetime.fromtimestamp(e.time).isoformat(" ", "minutes"),
            e.subject or "-",
            e.by,
            ", ".join(f"{n:,} {what}" for what, n in e.counts.items()),
        )
        for e in found
    ]
    shell.table(["When", "Subject", "Asked by", "Entries"], rows, left=(0, 1, 2, 3))
    return CommandResult({"erasures": [_as_data(e) for e in found]})


def _as_data(erasure: Erasure) -> dict[str, Any]:
    return {
        "id": erasure.id,
        "time": erasure.time,
        "subject": erasure.subject,
        "by": erasure.by,
        "counts": erasure.counts,
    }


def show_derived(shell: Shell, made: dict[str, Any]) -> None:
    if not made["datasets"]:
        shell.say("no dataset of this store was made of it")
    for dataset in made["datasets"]:
        shell.say(f"dataset {dataset['name']} ({dataset['hash'][:12]}) holds it: build it again")
    for checkpoint in made["checkpoints"]:
        shell.say(f"checkpoint {checkpoint['name']} ({checkpoint['id'][:12]}): {checkpoint['how']}")
    if made["unknown"]:
        names = ", ".join(c["name"] for c in made["unknown"])
        shell.say(f"not known, since their datasets are not in this store: {names}")
