"""`lineage`: what a version rests on; `why`: what an answer rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from escultor.cli.lookup import checkpoint_id, existing_store
from escultor.cli.output import CommandResult, Shell, local_time
from escultor.cycle.lineage import LineageNode, LineageReader, deployment_at, mermaid
from escultor.errors import InputError
from escultor.ids import plain
from escultor.types import Checkpoint, Feedback, Interaction


def lineage(
    shell: Shell,
    version: Annotated[str, Argument(help="Checkpoint id, the beginning of one, or an alias.")],
    out: Annotated[Path | None, Option(help="Draw it into this file, as a flowchart of Mermaid.")] = None,
) -> CommandResult:
    """Show what a version rests on: its data with counts of feedback, its parents, verdicts, approvals."""
    with existing_store(shell) as store:
        tree = LineageReader(store).of(checkpoint_id(store, version))
    _show(shell, tree)
    if out is not None:
        out.write_text(mermaid(tree), encoding="utf-8")
        shell.print(f"drawn: {out}", "dim")
    return CommandResult(plain(tree))


def why(shell: Shell, answer: Annotated[str, Argument(help="Id of an answer: chatcmpl-…")]) -> CommandResult:
    """Show which version gave an answer and why, what was said of it, and what the version rests on."""
    with existing_store(shell) as store:
        row = store.log.get(Interaction, answer)
        if row is None:
            remedy = "the gateway returns it as the `id` of an answer"
            raise InputError("the store has no such answer", answer, remedy=remedy)
        deployment, events = deployment_at(store, row), list(store.log.read(Feedback, target=answer))
        known = store.log.get(Checkpoint, row.version) is not None
        tree = LineageReader(store).of(row.version) if known else None
    shell.print(f"{row.id}: {row.version}, arm {row.arm}, {local_time(row.time)}, skill {row.skill}", "bold")
    shell.print(f"in force: {deployment.because}" if deployment else "nothing was deployed then")
    said = [type(event).__name__.lower() for _, event in events]
    shell.print(f"feedback: {', '.join(said) or 'none'}")
    if tree is not None:
        _show(shell, tree)
    data: dict[str, Any] = {"id": row.id, "version": row.version, "arm": row.arm, "skill": row.skill}
    data |= {"because": deployment.because if deployment else None, "feedback": said}
    return CommandResult(data | {"lineage": None if tree is None else plain(tree)})


def _show(shell: Shell, node: LineageNode) -> None:
    from rich.text import Text
    from rich.tree import Tree

    from escultor.cli.output import printable

    def line(each: LineageNode) -> Text:
        return Text(printable(f"{each.kind} {each.shown_id}: {each.text}".replace("\n", " ")))

    def draw(each: LineageNode, branch: Tree) -> None:
        for below in each.rests_on:
            draw(below, branch.add(line(below)))

    root = Tree(line(node))
    draw(node, root)
    shell.console.print(root)
