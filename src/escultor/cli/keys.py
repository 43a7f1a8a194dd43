"""`keys`: who may use the gateway, and for what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell
from escultor.errors import InputError


def create(
    shell: Shell,
    name: Annotated[str, typer.Argument(help="What it is for; shown in the list.")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="infer, feedback, read or admin; repeatable; default: infer, feedback."),
    ] = None,
) -> CommandResult:
    """Make a key, and show it once: the store keeps its digest alone."""
    from escultor.serve.auth import create
    from escultor.store import open_store
    from escultor.types import Scope

    wanted = scope or [Scope.INFER, Scope.FEEDBACK]
    if unknown := sorted(set(wanted) - set(Scope)):
        raise InputError("a scope is not known", ", ".join(unknown), ", ".join(Scope))
    key, made = create(name, [Scope(each) for each in wanted])
    with open_store(shell.config.store.url) as store:
        store.log.append(made)
    shell.say(key, "bold")
    shell.say(f"key {made.id} ({', '.join(made.scopes)}); it is not shown again", "dim")
    return CommandResult({"id": made.id, "key": key, "name": name, "scopes": made.scopes})


def revoke(
    shell: Shell, id: Annotated[str, typer.Argument(help="The key's id; `escultor keys list` shows it.")]
) -> CommandResult:
    """End a key. Gateways that run hear of it within `serve.follow_s`."""
    from escultor.serve.auth import revoke

    with existing_store(shell.config.store.url, "there are no keys") as store:
        store.log.append(revoke(_ring(store), id))
    shell.say(f"revoked: {id}")
    return CommandResult({"revoked": id})


def list_keys(shell: Shell) -> CommandResult:
    """Show the keys that are in force."""
    with existing_store(shell.config.store.url, "there are no keys") as store:
        ring = _ring(store)
    rows = [
        (key.id, key.name, ", ".join(key.scopes), datetime.fromtimestamp(key.time).isoformat(" ", "minutes"))
        for key in ring.keys.values()
    ]
    shell.table(["Key", "Name", "Scopes", "Made"], rows, left=(0, 1, 2, 3))
    found = [{"id": k.id, "name": k.name, "scopes": k.scopes, "time": k.time} for k in ring.keys.values()]
    return CommandResult({"keys": found, "guarded": ring.guarded})


def _ring(store: Any) -> Any:
    from escultor.serve.auth import Keyring
    from escultor.types import KeyEvent

    return Keyring(event for _, event in store.log.read(KeyEvent))
