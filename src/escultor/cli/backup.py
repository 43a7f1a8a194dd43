"""`backup` and `restore`: a copy of the whole store, taken while it is in use; `gc`: unused blobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell


def backup(
    shell: Shell, target: Annotated[Path, Argument(help="A new folder, or one with an earlier backup.")]
) -> CommandResult:
    """Copy the store into a folder while it is in use; blobs that the folder has are not copied again."""
    from escultor.store.backup import back_up

    with existing_store(shell, "there is nothing to back up") as store:
        found = back_up(store, target)
    shell.print(f"{target}: {found['rows']:,} rows, {found['blobs']:,} blobs ({found['blobs_copied']:,} new)")
    return CommandResult(found)


def restore(shell: Shell, source: Annotated[Path, Argument(help="The folder of a backup.")]) -> CommandResult:
    """Make the store named by --store from a backup, whose every blob is checked."""
    from escultor.store.backup import restore

    found = restore(source, shell.store_url)
    shell.print(f"{shell.store_url}: {found['rows']:,} rows and {found['blobs']:,} blobs restored")
    shell.print("what was erased after the backup was taken has to be erased again", "dim")
    return CommandResult(found | {"store": shell.store_url})


def gc(
    shell: Shell,
    dry_run: Annotated[bool, Option("--dry-run", help="Count; remove nothing.")] = False,
) -> CommandResult:
    """Remove blobs that nothing in the store names and that are older than a day."""
    from escultor.store.garbage import collect

    with existing_store(shell) as store:
        found = collect(store, dry_run=dry_run)
    verb = "would be removed" if dry_run else "removed"
    shell.print(f"{found.removed:,} blobs {verb} ({found.removed_bytes / 1e6:.1f} MB), {found.kept:,} kept")
    return CommandResult(found._asdict() | {"dry_run": dry_run})
