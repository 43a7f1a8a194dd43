"""`demo`: two cycle runs, shown as they go and summed up at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from escultor.cli.output import CommandResult, Shell, write_text

if TYPE_CHECKING:
    from escultor.demo.run import DemoResult


def demo(
    shell: Shell,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Pre-train the base first instead of taking escultor-base.")
    ] = False,
    page: Annotated[Path, typer.Option("--report", help="Where the page is written.")] = Path("report.html"),
) -> CommandResult:
    """Run one whole cycle on the installed documentation, then a second one from feedback."""
    from escultor.cli.progress import LiveProgress
    from escultor.config import load_config
    from escultor.demo.report import as_json, as_report
    from escultor.demo.run import CONFIG, run_demo
    from escultor.evaluate.report.page import render

    config = load_config(shell.config_file or CONFIG, shell.overrides)
    url = shell.store or config.store.url
    with LiveProgress() as live:
        result = run_demo(url, from_scratch, config, live)
    report = as_report(result, page.parent)
    write_text(page, render(report))
    _show(shell, result, report.notes, page, url)
    return CommandResult(as_json(result) | {"report": str(page)})


def _show(shell: Shell, result: DemoResult, notes: Sequence[str], page: Path, url: str) -> None:
    from escultor.demo.report import rows
    from escultor.evaluate.report.parts import text_table

    heads, *body = text_table(rows(result), transposed=True)
    shell.table(heads, body)
    for note in notes:
        shell.say(note)
    for row in rows(result):
        shell.say(f"{row.name}: {row.reason}")
    reused = [step.name for step, again in result.cycle.workflow.steps if again]
    made = len(result.cycle.workflow.steps) - len(reused)
    shell.say(f"{made} steps computed; reused from the store: {', '.join(reused) or 'none'}.")
    store = "" if url == "escultor-store" else f" --store {url}"
    shell.say()
    shell.say(f"the page:                     {page}")
    shell.say(f"chat with the deployed model: escultor generate champion --trinity{store}")
    shell.say(f"where everything is stored:   escultor models{store}")
