"""`promote`, `rollback`, `models`, `merge`: who answers, on a person's order, and who else is there."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.lookup import existing_store, find_model
from escultor.cli.output import CommandResult, Shell
from escultor.errors import InputError
from escultor.train.filenames import ADAPTER

if TYPE_CHECKING:
    from escultor.store import Store
    from escultor.types import Checkpoint, Deployment

SHORT = 12  # hex digits of an id that are shown


def promote(
    shell: Shell,
    model: Annotated[
        str, typer.Argument(help="Model or run folder, checkpoint id, alias, or escultor-base.")
    ],
    because: Annotated[str, typer.Option("--because", help="Why, in your words; they are kept.")],
) -> CommandResult:
    """Make a model the champion on your order, without asking the gate."""
    from escultor.cycle import api
    from escultor.store import open_store

    url = shell.config.store.url
    folder = find_model(model, url)
    with open_store(url) as store:
        checkpoint, deployment = api.promote(store, folder, because)
    shell.say(f"champion: {checkpoint.name} ({checkpoint.id[:SHORT]}), because: {because}", "bold")
    return _deployed(deployment, name=checkpoint.name)


def rollback(
    shell: Shell,
    because: Annotated[str | None, typer.Option("--because", help="Why, in your words.")] = None,
) -> CommandResult:
    """Bring the previous champion back; the log keeps both."""
    from escultor.cycle import api

    with existing_store(shell.config.store.url, "there is nothing to roll back") as store:
        deployment = api.rollback(store, because)
    shell.say(f"champion: {deployment.aliases['champion'][:SHORT]}, because: {deployment.because}", "bold")
    return _deployed(deployment)


def models(shell: Shell) -> CommandResult:
    """List the models of the store: who answers, what each was made from, how large it is."""
    from escultor.evaluate.report.parts import count
    from escultor.store import registry
    from escultor.types import Checkpoint

    with existing_store(shell.config.store.url, "there are no models yet") as store:
        named = registry.aliases(registry.read_deployments(store.log))
        found = [_described(store, c, named) for _, c in store.log.read(Checkpoint)]
    rows = [
        (
            m["name"],
            ", ".join(m["aliases"]),
            m["id"][:SHORT],
            m["method"],
            ", ".join(p[:SHORT] for p in m["parents"]) or "–",
            count(m["parameters"]) if m["parameters"] else "–",
            m["kept"] or "files missing",
        )
        for m in found
    ]
    heads = ["Name", "Alias", "Checkpoint", "Method", "Parents", "Parameters", "Kept since"]
    shell.table(heads, rows, left=(0, 1, 2, 3, 4))
    return CommandResult({"models": found, "aliases": named})


def merge(
    shell: Shell,
    adapter: Annotated[str, typer.Argument(help="Run folder or adapter folder, of a run with `lora`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the whole model; new or empty.")],
) -> CommandResult:
    """Fold an adapter into its base and write the whole model."""
    from escultor.model.folders import is_adapter, resolve, save
    from escultor.model.load import load

    inner = Path(adapter) / ADAPTER
    folder = resolve(str(inner)) if inner.is_dir() else find_model(adapter, shell.config.store.url)
    if not is_adapter(folder):
        raise InputError(f"{folder} holds a whole model already", "no adapter", "the folder of an adapter")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} already holds something else", allowed="a new or empty folder")
    save(load(str(folder)), out)
    shell.say(f"merged: {out}", "bold")
    return CommandResult({"adapter": folder, "model": out})


def _described(store: Store, checkpoint: Checkpoint, named: dict[str, str]) -> dict[str, Any]:
    """A checkpoint as the list shows it; `kept` is when its files came into this store."""
    folder = store.blobs.root / "trees" / checkpoint.id
    kept = datetime.fromtimestamp(folder.stat().st_mtime) if folder.is_dir() else None
    aliases = [alias for alias, id in named.items() if id == checkpoint.id]
    when = kept.isoformat(" ", "minutes") if kept else None
    return {**asdict(checkpoint), "aliases": aliases, "kept": when}


def _deployed(deployment: Deployment, **more: str) -> CommandResult:
    return CommandResult(
        {"deployment": deployment.id, "because": deployment.because, **deployment.aliases, **more}
    )
