"""`subjects`: erase what is stored about a person."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from typer import Argument, Option

from escultor.cli.lookup import existing_store
from escultor.cli.output import SHORT, CommandResult, Shell, counted, local_time
from escultor.datasets.erasure import erase_everywhere
from escultor.errors import InputError
from escultor.serve.subjects import SubjectHasher
from escultor.types import Erasure

_HASH = re.compile("[0-9a-f]{32}")


def hash_(
    shell: Shell,
    name: Annotated[str, Argument(help="The name that the application gives its user.")],
    tenant: Annotated[str, Option(help="Of the key it uses; `escultor keys list` shows it.")] = "",
) -> CommandResult:
    """Show the hash that a user has in this store."""
    with existing_store(shell) as store:
        subject = SubjectHasher.for_store(store.root).subject(name, tenant)
    shell.print(subject)
    return CommandResult({"subject": subject})


def erase(
    shell: Shell,
    subject: Annotated[str, Argument(metavar="HASH", help="From `escultor subjects hash NAME`.")],
    by: Annotated[str | None, Option(help="The person who requested it; default: your login.")] = None,
    yes: Annotated[bool, Option("--yes", help="Do not ask first.")] = False,
) -> CommandResult:
    """Remove a person's requests and feedback for ever, also from datasets; list what was trained on them."""
    if not _HASH.fullmatch(subject):
        remedy = "escultor subjects hash NAME"
        raise InputError("this is no hash of a person", subject, "32 hex digits", remedy)
    if not yes and not typer.confirm(f"Erase everything of {subject}? It cannot be undone.", err=True):
        raise InputError("nothing was erased", "no confirmation", None, "confirm, or give --yes")
    with existing_store(shell, "there is nothing to erase") as store:
        erasure, artifacts = erase_everywhere(store, subject, by or getpass.getuser())
        derived = artifacts.summary()
    shell.print(f"erased: {counted(erasure.counts)}", "bold")
    show_derived(shell, derived)
    return CommandResult({**asdict(erasure), **derived})


def erasures(shell: Shell) -> CommandResult:
    """List what was erased, when and on whose request."""
    with existing_store(shell) as store:
        events = [event for _, event in store.log.read(Erasure)]
    rows = [(local_time(e.time), e.subject or "-", e.by, counted(e.counts)) for e in events]
    shell.table(["When", "Subject", "Requested by", "Entries"], rows, left=(0, 1, 2, 3))
    return CommandResult({"erasures": [asdict(event) for event in events]})


def show_derived(shell: Shell, derived: Mapping[str, Any]) -> None:
    """Print which datasets and checkpoints were made of erased records."""
    if not derived["datasets"]:
        shell.print("no dataset of this store was made of it")
    for dataset in derived["datasets"]:
        shell.print(f"dataset {dataset['name']} ({dataset['hash'][:SHORT]}) held it: its rows were removed")
    for checkpoint in derived["checkpoints"]:
        shell.print(f"checkpoint {checkpoint['name']} ({checkpoint['id'][:SHORT]}): {checkpoint['how']}")
    for dataset in derived["unreadable"]:
        shell.print(f"dataset {dataset['name']} ({dataset['hash'][:SHORT]}): its rows are not in this store")
    for suite in derived["suites"]:
        shell.print(f"suite {suite} held it and was removed; the file it was made of is yours to clear")
    for file in derived["files"]:
        shell.print(f"{file} held it and was removed")
    if derived["unknown"]:
        names = ", ".join(c["name"] for c in derived["unknown"])
        shell.print(f"not known, since their datasets are not in this store: {names}")
