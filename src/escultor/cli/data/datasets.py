"""`data curate`, `list`, `card`, `export`, `diff`: datasets of the store, and their cards."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from escultor.cli.data.rows import METHOD_OF_KIND
from escultor.cli.lookup import existing_store, open_or_create_store, require_file, store_root
from escultor.cli.output import CommandResult, Shell, write_text
from escultor.cli.progress import LiveProgress
from escultor.config import with_steps
from escultor.data.exports import export as write
from escultor.datasets.build import build_dataset
from escultor.datasets.cards.pages import card_markdown, card_page
from escultor.datasets.review import read_decisions, summarize
from escultor.datasets.splits import LEFT_OUT
from escultor.datasets.versions import allowed_rows, compare_versions, find_version, load_card, versions_named
from escultor.errors import InputError

CARD_SUFFIXES = (".md", ".html", ".json")
DatasetArgument = Annotated[str, Argument(help="Name of a dataset, its hash, or the beginning of its hash.")]
ExportFormat = Literal["jsonl", "parquet", "trl", "openai", "alpaca", "sharegpt"]


def curate(
    shell: Shell,
    sources: Annotated[list[Path], Argument(help="Files of rows of one kind, or datasets of the store.")],
    name: Annotated[str, Option("--out", help="Name of the dataset in the store.")],
    steps: Annotated[Path | None, Option(help="YAML list of steps; default: curation.steps.")] = None,
    top: Annotated[int | None, Option(min=1, help="Keep this many of the best and most varied rows.")] = None,
    ratings: Annotated[Path | None, Option(help="JSONL rows with `rating`, to fit the score to.")] = None,
) -> CommandResult:
    """Make a clean dataset from raw rows, and report what each step did."""
    config = shell.config if steps is None else with_steps(shell.config, require_file(steps))
    rated = None if ratings is None else require_file(ratings)
    with open_or_create_store(shell) as store, LiveProgress() as live:

        def show(step: str, rows_in: int, rows_out: int) -> None:
            if step != "rows":
                live.note(f"{step}: {rows_in:,} in, {rows_out:,} out")

        live.phase("curate")
        version, curated = build_dataset(
            store, name, sources, config.curation, top=top, rated=rated, progress=show
        )
    table = [
        (s.name, s.before, s.left, ", ".join(f"{why}: {n:,}" for why, n in (s.removed | s.notes).items()))
        for s in curated.steps
    ]
    shell.table(["Step", "In", "Out", "Dropped and changed"], table, left=(0, 3))
    for text in curated.warnings:
        shell.print(f"warning: {text}", "yellow")
    if left_out := curated.split[LEFT_OUT]:
        shell.print(f"{left_out:,} rows left out: their prompt is held out")
    held_out = curated.counts["held out"]
    shell.print(f"{name}: {version.rows:,} rows, {held_out:,} held out; {version.hash}", "bold")
    method = METHOD_OF_KIND[version.kind]
    shell.print(
        f"next: escultor data card {name}, escultor data review {name}, escultor {method} --data {name}"
    )
    steps_done = [
        {"step": s.name, "in": s.before, "out": s.left, "removed": s.removed, "notes": s.notes}
        for s in curated.steps
    ]
    data = {key: getattr(version, key) for key in ("name", "hash", "kind", "rows", "counts")}
    return CommandResult(data | {"held_out": held_out, "steps": steps_done, "warnings": curated.warnings})


def list_(shell: Shell) -> CommandResult:
    """List the datasets of the store."""
    with existing_store(shell) as store:
        versions = versions_named(store)
    rows = [(v.name, v.kind, v.rows, v.hash, "yes" if v.card else None) for v in versions]
    shell.table(["Dataset", "Kind", "Rows", "Hash", "Card"], rows, left=(0, 1, 3, 4))
    return CommandResult({"datasets": [asdict(version) for version in versions]})


def card(
    shell: Shell,
    name: DatasetArgument,
    out: Annotated[Path | None, Option(help="File to write: .md, .html or .json; default: print it.")] = None,
) -> CommandResult:
    """Show the card of a dataset: sources, steps, balance, review."""
    with existing_store(shell) as store:
        version = find_version(store, name)
        review = asdict(summarize(read_decisions(store, version.hash)))
        contents = load_card(store, version) | {"review": review}
    if out is None:
        shell.print(card_markdown(contents))
    else:
        write_card(out, contents)
        shell.print(f"wrote {out}")
    return CommandResult(contents)


def write_card(path: Path, contents: dict[str, Any]) -> None:
    """Write a card in the format of the file's ending. Raises InputError for another ending."""
    if path.suffix not in CARD_SUFFIXES:
        allowed = ", ".join(CARD_SUFFIXES)
        raise InputError("a card has no such format", path.suffix or "no ending", allowed)
    if path.suffix == ".json":
        write_text(path, json.dumps(contents, indent=1, ensure_ascii=False))
    else:
        write_text(path, (card_markdown if path.suffix == ".md" else card_page)(contents))


def export(
    shell: Shell,
    name: DatasetArgument,
    out: Annotated[Path, Option(help="The file to write.")],
    format: Annotated[ExportFormat, Option(help="The format of its rows.")] = "jsonl",
) -> CommandResult:
    """Write a dataset's training rows for other programs, without what was held out since it was curated."""
    left_out: Counter[str] = Counter()
    if format == "parquet" and out.resolve().is_relative_to(store_root(shell.store_url).resolve()):
        raise InputError("a compressed export inside the store would outlive an erasure", out, "elsewhere")
    with existing_store(shell) as store:
        version = find_version(store, name)
        count = write((row.item for row in allowed_rows(store, version, left_out)), format, out)
    shell.print(f"wrote {count:,} rows of {version.name} to {out} ({format})")
    for reason, n in left_out.items():
        shell.print(f"{n:,} rows {reason}", "yellow")
    return CommandResult(
        {"out": out, "rows": count, "left_out": left_out, "format": format, "hash": version.hash}
    )


def diff(shell: Shell, a: DatasetArgument, b: DatasetArgument) -> CommandResult:
    """Compare two versions of datasets."""
    with existing_store(shell) as store:
        changes = compare_versions(store, find_version(store, a), find_version(store, b))
    rows = [
        ("in both", changes.same),
        (f"only in {a}", changes.only_a),
        (f"only in {b}", changes.only_b),
        ("same id, other content", changes.changed),
    ]
    shell.table(["Rows", "Count"], rows)
    labels = [
        (label, value, *counts)
        for label, values in changes.labels.items()
        for value, counts in values.items()
    ]
    if labels:
        shell.table(["Label", "Value", a, b], labels, left=(0, 1))
    return CommandResult(asdict(changes))
