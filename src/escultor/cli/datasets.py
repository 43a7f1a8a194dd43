"""`data curate`, `list`, `card`, `export`, `diff`: datasets from raw rows, and their cards."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.lookup import existing_store, need_file
from escultor.cli.output import CommandResult, Shell, write_text
from escultor.errors import InputError

if TYPE_CHECKING:
    from escultor.datasets.curation.pipeline import Curated
    from escultor.types import DatasetVersion

CARDS = (".md", ".html", ".json")
DatasetName = Annotated[str, typer.Argument(help="Name of a dataset, its hash, or the beginning of that.")]


class ExportFormat(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"
    TRL = "trl"
    OPENAI = "openai"


def curate(
    shell: Shell,
    sources: Annotated[list[Path], typer.Argument(help="JSONL files of one kind.")],
    name: Annotated[str, typer.Option("--out", help="Name of the dataset in the store.")],
    steps: Annotated[
        Path | None, typer.Option("--steps", help="YAML list of steps; default: curation.steps.")
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="Keep this many of the best and most varied rows.")
    ] = None,
    ratings: Annotated[
        Path | None, typer.Option("--ratings", help="JSONL rows with `rating`, to fit the score to.")
    ] = None,
) -> CommandResult:
    """Make a clean dataset from raw rows, with an account of every step."""
    from escultor.cli.progress import LiveProgress
    from escultor.config import with_steps
    from escultor.datasets.build import build_dataset
    from escultor.store import open_store

    config = shell.config if steps is None else with_steps(shell.config, need_file(steps))
    files = [need_file(path) for path in sources]
    if ratings is not None:
        need_file(ratings)
    with open_store(config.store.url) as store, LiveProgress() as live:

        def show(step: str, before: int, left: int) -> None:
            if step != "rows":
                live.note(f"{step}: {before:,} in, {left:,} out")

        live.phase("curate")
        version, curated = build_dataset(
            store, name, files, config.curation, top=top, rated=ratings, progress=show
        )
    return _report(shell, version, curated)


def _report(shell: Shell, version: DatasetVersion, curated: Curated) -> CommandResult:
    """Show the steps and the result of a curation."""
    from escultor.datasets.splits import LEFT_OUT

    name = version.name
    rows = [
        (
            s.name,
            f"{s.before:,}",
            f"{s.left:,}",
            ", ".join(f"{why}: {n:,}" for why, n in (s.removed | s.notes).items()),
        )
        for s in curated.steps
    ]
    shell.table(["Step", "In", "Out", "Dropped and changed"], rows, left=(0, 3))
    for text in curated.warnings:
        shell.say(f"warning: {text}", "yellow")
    if left_out := curated.split[LEFT_OUT]:
        shell.say(f"{left_out:,} rows left out: their prompt is held out")
    held_out = curated.counts["held out"]
    shell.say(f"{name}: {version.rows:,} rows, {held_out:,} held out; {version.hash}", "bold")
    shell.say(f"next: escultor data card {name}, escultor data review {name}, escultor sft --data {name}")
    data = {
        "name": name,
        "hash": version.hash,
        "kind": version.kind,
        "rows": version.rows,
        "counts": version.counts,
    }
    steps_done = [
        {"step": s.name, "in": s.before, "out": s.left, "removed": s.removed, "notes": s.notes}
        for s in curated.steps
    ]
    return CommandResult(data | {"held_out": held_out, "steps": steps_done, "warnings": curated.warnings})


def datasets(shell: Shell) -> CommandResult:
    """List the datasets of the store."""
    from escultor.types import DatasetVersion

    with existing_store(shell.config.store.url) as store:
        found = [version for _, version in store.log.read(DatasetVersion)]
    rows = [(v.name, v.kind, f"{v.rows:,}", v.hash, "yes" if v.card else "–") for v in found]
    shell.table(["Dataset", "Kind", "Rows", "Hash", "Card"], rows, left=(0, 1, 3, 4))
    return CommandResult({"datasets": [asdict(v) for v in found]})


def card(
    shell: Shell,
    name: DatasetName,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write: .md, .html or .json; default: print it.")
    ] = None,
) -> CommandResult:
    """Show what is known of a dataset: sources, steps, balance, review."""
    from escultor.datasets.cards.pages import card_markdown
    from escultor.datasets.review import read_decisions, summarize
    from escultor.datasets.versions import find_version, load_card

    with existing_store(shell.config.store.url) as store:
        version = find_version(store, name)
        known = load_card(store, version) | {"review": asdict(summarize(read_decisions(store, version.hash)))}
    if out is None:
        shell.say(card_markdown(known))
    else:
        write_text(out, card_as(out.suffix, known))
        shell.say(f"wrote {out}")
    return CommandResult(known)


def card_as(form: str, known: dict[str, Any]) -> str:
    """A card as the text of a file with this ending."""
    import json

    from escultor.datasets.cards.pages import card_markdown, card_page

    if form not in CARDS:
        raise InputError("a card has no such format", form or "no ending", ", ".join(CARDS))
    if form == ".json":
        return json.dumps(known, indent=1, ensure_ascii=False)
    return card_markdown(known) if form == ".md" else card_page(known)


def export(
    shell: Shell,
    name: DatasetName,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    format: Annotated[
        ExportFormat, typer.Option("--format", help="The shape of its rows.")
    ] = ExportFormat.JSONL,
) -> CommandResult:
    """Write a dataset's training rows for other programs, without what was held out since it was curated."""
    from escultor.data.exports import export as write
    from escultor.datasets.versions import allowed_rows, find_version

    left_out: Counter[str] = Counter()
    with existing_store(shell.config.store.url) as store:
        version = find_version(store, name)
        count = write((row.item for row in allowed_rows(store, version, left_out)), format.value, out)
    shell.say(f"wrote {count:,} rows of {version.name} to {out} ({format})")
    for reason, n in left_out.items():
        shell.say(f"{n:,} rows {reason}", "yellow")
    return CommandResult(
        {"out": out, "rows": count, "left_out": left_out, "format": format, "hash": version.hash}
    )


def diff(
    shell: Shell,
    a: Annotated[str, typer.Argument(help="A dataset, by name or hash.")],
    b: Annotated[str, typer.Argument(help="Another.")],
) -> CommandResult:
    """Compare two versions of datasets."""
    from escultor.datasets.versions import compare_versions, find_version

    with existing_store(shell.config.store.url) as store:
        found = compare_versions(store, find_version(store, a), find_version(store, b))
    rows = [
        ("in both", found.same),
        (f"only in {a}", found.only_a),
        (f"only in {b}", found.only_b),
        ("same id, other content", found.changed),
    ]
    shell.table(["Rows", "Count"], [(what, f"{n:,}") for what, n in rows])
    moved = [
        (label, value, f"{old:,}", f"{new:,}")
        for label, values in found.labels.items()
        for value, (old, new) in values.items()
    ]
    if moved:
        shell.table(["Label", "Value", a, b], moved, left=(0, 1))
    return CommandResult(asdict(replace(found)))
