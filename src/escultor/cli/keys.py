"""`keys`: API keys of the gateway and their scopes."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from escultor.cli.lookup import existing_store, open_or_create_store
from escultor.cli.output import CommandResult, Shell, local_time
from escultor.errors import InputError
from escultor.serve.auth import Keyring
from escultor.store import Store
from escultor.types import KeyEvent, Scope


def create(
    shell: Shell,
    name: Annotated[str, Argument(help="What the key is for; shown in the list.")],
    scope: Annotated[
        list[str] | None, Option(help="infer, feedback, read, approve, admin; default: the first two.")
    ] = None,
) -> CommandResult:
    """Make a key and show it once: the store keeps only its digest."""
    from escultor.serve.auth import create

    scopes = scope or [Scope.INFER, Scope.FEEDBACK]
    if unknown := sorted(set(scopes) - set(Scope)):
        raise InputError("a scope is not known", ", ".join(unknown), ", ".join(Scope))
    key, event = create(name, [Scope(each) for each in scopes])
    with open_or_create_store(shell) as store:
        store.log.append(event)
    if not shell.as_json:  # its last line holds the key already, and stderr often ends in a log
        shell.print(key, "bold")
    shell.print(f"key {event.id} ({', '.join(event.scopes)}); it is not shown again", "dim")
    return CommandResult({"id": event.id, "key": key, "name": name, "scopes": event.scopes})


def revoke(
    shell: Shell, id: Annotated[str, Argument(help="The key's id; `escultor keys list` shows it.")]
) -> CommandResult:
    """Revoke a key. Running gateways refuse it within `serve.follow_s`."""
    from escultor.serve.auth import revoke

    with existing_store(shell, "there are no keys") as store:
        store.log.append(revoke(_keyring(store), id))
    shell.print(f"revoked: {id}")
    return CommandResult({"revoked": id})


def list_(shell: Shell) -> CommandResult:
    """Show the keys that are valid."""
    with existing_store(shell, "there are no keys") as store:
        keyring = _keyring(store)
    keys = [{"id": k.id, "name": k.name, "scopes": k.scopes, "time": k.time} for k in keyring.keys.values()]
    rows = [(k.id, k.name, ", ".join(k.scopes), local_time(k.time)) for k in keyring.keys.values()]
    shell.table(["Key", "Name", "Scopes", "Made"], rows, left=(0, 1, 2, 3))
    return CommandResult({"keys": keys, "guarded": keyring.guarded})


def _keyring(store: Store) -> Keyring:
    return Keyring(event for _, event in store.log.read(KeyEvent))
