"""`demo`: two cycle runs, shown as they go and summed up at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from escultor.cli.output import CommandResult, Shell, write_text

if TYPE_CHECKING:
    from escultor.demo.run import DemoResult


def demo(
    shell: Shell,
    from_scratch: Annotated[bool, Option("--from-scratch", help="Pre-train a base model first.")] = False,
    page: Annotated[Path, Option("--report", help="The HTML page to write.")] = Path("report.html"),
) -> CommandResult:
    """Run one whole cycle on real documents, then a second one from simulated feedback."""
    from escultor.cli.progress import LiveProgress
    from escultor.config import load_config
    from escultor.demo.forecast import PRETRAIN_SECONDS, STEP_SECONDS, Forecast
    from escultor.demo.report import as_json, as_report
    from escultor.demo.run import CONFIG, run_demo
    from escultor.evaluate.report.page import render

    config = load_config(shell.config_file or CONFIG, tuple(shell.overrides or ()))
    url = shell.store or config.store.url
    pretrained = {"pretrain": PRETRAIN_SECONDS} if from_scratch else {}
    with LiveProgress(Forecast(STEP_SECONDS | pretrained)) as live:
        result = run_demo(url, from_scratch, config, live)
    report = as_report(result, page.parent)
    write_text(page, render(report))
    _show(shell, result, report.notes, page, url)
    return CommandResult(as_json(result) | {"report": str(page)})


def _show(shell: Shell, result: DemoResult, notes: Sequence[str], page: Path, url: str) -> None:
    from escultor.demo.report import rows
    from escultor.demo.suite import NAME
    from escultor.evaluate.report.parts import text_table

    versions = rows(result)
    heads, *body = text_table(versions, transposed=True)
    shell.table(heads, body)
    for line in (*notes, *(f"{version.name}: {version.reason}" for version in versions)):
        shell.print(line)
    reused = [step.name for step, was_reused in result.cycle.workflow.steps if was_reused]
    computed = len(result.cycle.workflow.steps) - len(reused)
    shell.print(f"{computed} steps computed; reused from the store: {', '.join(reused) or 'none'}.")
    store = "" if url == "escultor-store" else f" --store {url}"
    shell.print()
    shell.print(f"the page:                     {page}")
    shell.print(f"chat with the deployed model: escultor generate champion --skill {NAME}{store}")
    shell.print(f"where everything is stored:   escultor models{store}")
