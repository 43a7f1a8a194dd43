"""`promote`, `rollback`, `merge`, `models …`: which model answers, the models of the store, models in and
out."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from escultor.cli.lookup import MODEL_HELP, ModelArgument, existing_store, find_model, open_or_create_store
from escultor.cli.output import SHORT, CommandResult, Shell, local_time
from escultor.cycle import api
from escultor.cycle.approval import KEY_ENV, approver_of_promotion
from escultor.errors import InputError
from escultor.evaluate.report.parts import count
from escultor.model.gguf.reader import Precision
from escultor.store import registry
from escultor.train.filenames import ADAPTER
from escultor.types import Checkpoint, Deployment

WEIGHTS = (0.75, 0.5, 0.25)  # of the second model in an average
DtypeOption = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    Option(help="Of the weights that are written; default: that of the model's own files."),
]


def promote(
    shell: Shell,
    model: ModelArgument,
    because: Annotated[str, Option(help="The reason, in your words; kept in the log.")],
) -> CommandResult:
    """Make a model the champion on your order, without asking the gate; in a store where somebody holds the
    scope `approve`, with the key of such a person in ESCULTOR_APPROVAL_KEY."""
    folder = find_model(shell, model)
    with open_or_create_store(shell) as store:
        by = approver_of_promotion(store, os.environ.get(KEY_ENV))
        checkpoint, deployment = api.promote(store, folder, because, by)
    headline = f"champion: {checkpoint.name} ({checkpoint.id[:SHORT]})"
    return _show(shell, headline, deployment, name=checkpoint.name)


def rollback(
    shell: Shell, because: Annotated[str | None, Option(help="The reason, in your words.")] = None
) -> CommandResult:
    """Make the previous champion the champion again; the log keeps both."""
    with existing_store(shell, "there is nothing to roll back") as store:
        deployment = api.rollback(store, because)
    return _show(shell, f"champion: {deployment.aliases['champion'][:SHORT]}", deployment)


def list_(shell: Shell) -> CommandResult:
    """List the models of the store: aliases, parents, size, and when each was stored."""
    with existing_store(shell, "there are no models yet") as store:
        ids = registry.aliases(registry.read_deployments(store.log))
        listed = [
            {
                **asdict(checkpoint),
                "aliases": [alias for alias, id in ids.items() if id == checkpoint.id],
                "kept": local_time(tree.stat().st_mtime) if tree.is_dir() else None,
            }
            for _, checkpoint in store.log.read(Checkpoint)
            for tree in [store.blobs.root / "trees" / checkpoint.id]
        ]
    rows = [
        (
            model["name"],
            ", ".join(model["aliases"]),
            model["id"][:SHORT],
            model["method"],
            ", ".join(parent[:SHORT] for parent in model["parents"]) or None,
            count(model["parameters"]) if model["parameters"] else None,
            model["kept"] or "files missing",
        )
        for model in listed
    ]
    heads = ["Name", "Alias", "Checkpoint", "Method", "Parents", "Parameters", "Stored"]
    shell.table(heads, rows, left=(0, 1, 2, 3, 4))
    return CommandResult({"models": listed, "aliases": ids})


def mirror(
    shell: Shell,
    uri: Annotated[str, Argument(help="MLflow's tracking URI: http://HOST:5000 or sqlite:///FILE.")],
) -> CommandResult:
    """Copy the store's models to MLflow: runs with their scores, versions, aliases. Again: what is new."""
    from escultor.cycle.mlflow_mirror import mirror

    with existing_store(shell, "there are no models yet") as store:
        report = mirror(store, uri)
    shell.print(
        f"{report.checkpoints:,} models, {report.new:,} of them new in MLflow; aliases {report.aliases}"
    )
    if report.left_out:
        shell.print(f"left out, since an alias names no model of the store: {', '.join(report.left_out)}")
    return CommandResult(report._asdict())


def import_(
    shell: Shell,
    source: Annotated[
        str,
        Argument(help="GGUF file, model or adapter folder, or a name in Ollama, LM Studio or the hub."),
    ],
    name: Annotated[str | None, Option(help="Name in the store; default: that of the file.")] = None,
    precision: Annotated[
        Precision, Option(help="Of weights from a GGUF; `exact`: the narrowest that rounds nothing.")
    ] = "exact",
) -> CommandResult:
    """Bring a model that others made into the store; the same one twice is one checkpoint."""
    from escultor.cycle.exchange import import_model

    with open_or_create_store(shell) as store:
        checkpoint, found = import_model(store, source, precision, name)
    shell.print(f"imported: {checkpoint.name} ({checkpoint.id[:SHORT]})", "bold")
    if "types" in found:
        stored = ", ".join(f"{n} {kind}" for kind, n in found["types"].items())
        shell.print(f"{found['architecture']}; {stored}; kept in {found['precision']}")
    shell.print(
        f"train it: --model {checkpoint.id[:SHORT]}; serve it: escultor promote {checkpoint.id[:SHORT]}"
    )
    return CommandResult({**asdict(checkpoint), **found})


def export(
    shell: Shell,
    model: ModelArgument,
    out: Annotated[Path, Option(help="Folder to write; new or empty.")],
    format: Annotated[str, Option(help="gguf, safetensors, adapter or ctranslate2 (int8).")] = "gguf",
    quant: Annotated[
        str | None,
        Option(
            help="Of a GGUF: f32, f16, bf16, q8_0 (default), q4_0; q4_k, q5_k, q6_k with a llama.cpp wheel."
        ),
    ] = None,
    name: Annotated[str | None, Option(help="Name to serve it by; default: the name of OUT.")] = None,
) -> CommandResult:
    """Write a model for llama.cpp, Ollama, LM Studio, vLLM or CTranslate2, with the commands that serve
    it."""
    from escultor.cycle.exchange import ModelExport, export_model
    from escultor.model.folders import is_adapter

    folder = find_model(shell, model)
    if format == "adapter" and is_adapter(Path(model) / ADAPTER):  # of a run, which has the whole model too
        folder = Path(model) / ADAPTER
    order = ModelExport(folder, out, name or out.absolute().name, quant)
    made = export_model(order, format)
    show_export(shell, made)
    return CommandResult(made)


def show_export(shell: Shell, made: dict[str, Any]) -> None:
    """Print what an export wrote, what differs in the program that serves it, and how to serve it."""
    shell.print(f"written: {made.get('file', made['folder'])}", "bold")
    if "types" in made:
        checked = made["tokens_checked"]
        tokens = f"equal to llama.cpp's on {checked} texts" if checked else "not checked: no llama.cpp wheel"
        shell.print(", ".join(f"{n} {kind}" for kind, n in made["types"].items()) + f"; tokens {tokens}")
    for note in made.get("notes", ()):
        shell.print(f"note: {note}")
    for command in made["serve"]:
        shell.print(f"  {command}")


def merge(
    shell: Shell,
    adapter: Annotated[str, Argument(help="Run folder or adapter folder, of a run with `lora`.")],
    out: Annotated[Path, Option(help="Folder for the whole model; new or empty.")],
    dtype: DtypeOption = None,
) -> CommandResult:
    """Merge an adapter into its base, write the whole model, and read it back."""
    from escultor.model.folders import is_adapter, resolve, save
    from escultor.model.load import load
    from escultor.train.readback import check_saved, general_rows, mean_loss, release

    inner = Path(adapter) / ADAPTER
    folder = resolve(str(inner)) if inner.is_dir() else find_model(shell, adapter)
    if not is_adapter(folder):
        raise InputError(f"{folder} holds a whole model already", "no adapter", "the folder of an adapter")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} already holds something else", allowed="a new or empty folder")
    merged = load(str(folder))
    rows = general_rows(merged)
    loss = mean_loss(merged.model, rows)
    save(merged, out, dtype, ends_turns=True)
    release(merged.model)
    check_saved(out, rows, loss, "delete it, and merge with --dtype float32")
    saved_in = dtype or merged.dtype
    shell.print(f"merged: {out}, in {saved_in}", "bold")
    return CommandResult({"adapter": folder, "model": out, "dtype": saved_in})


def average(
    shell: Shell,
    first: Annotated[str, Argument(help=f"The model to keep, such as the champion. {MODEL_HELP}")],
    second: Annotated[str, Argument(help="A model that was trained from it.")],
    out: Annotated[Path, Option(help="Folder for a folder of each weight; new or empty.")],
    weight: Annotated[
        list[float] | None, Option("--weight", min=0, max=1, help="Share of the second; repeatable.")
    ] = None,
) -> CommandResult:
    """Write models between two: the mean of their weights, by the share of the second.

    `escultor compare FIRST OUT/0.5` lets the gate judge one. Begin with the largest share: every comparison
    spends a part of the gate's error.
    """
    from escultor.model.average import average as write_average
    from escultor.model.folders import is_adapter, replace_folder
    from escultor.model.load import load

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} already holds something else", allowed="a new or empty folder")
    folders = find_model(shell, first), find_model(shell, second)
    for folder in filter(is_adapter, folders):
        remedy = "merge it first: escultor merge"
        raise InputError("whole models are averaged", f"the adapter {folder}", "two whole models", remedy)
    shares = {f"{share:g}": share for share in sorted(set(weight or WEIGHTS), reverse=True)}
    with replace_folder(out) as draft:  # all of them, or none
        for name, share in shares.items():
            write_average(*folders, share, draft / name)
            load(str(draft / name))
    made = {name: out / name for name in shares}
    for name, folder in made.items():
        shell.print(f"{name} of {second}: {folder}", "bold")
    return CommandResult({"first": folders[0], "second": folders[1], "models": made})


def _show(shell: Shell, headline: str, deployment: Deployment, **more: Any) -> CommandResult:
    """Print a deployment in one line, with its reason; its ids are the data."""
    shell.print(f"{headline}, because: {deployment.because}", "bold")
    ids = {"deployment": deployment.id, "because": deployment.because, **deployment.aliases}
    return CommandResult(ids | more)
