"""`cycle`: one cycle run that starts from feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from escultor.cli.compare import judged
from escultor.cli.lookup import existing_store, find_suite
from escultor.cli.output import CommandResult, Shell

if TYPE_CHECKING:
    from escultor.skills.suites import EvaluationSuite


def cycle(
    shell: Shell,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            help="daily, weekly, monthly or a date; default: what no promoted model has learnt from yet.",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            metavar="NAME|FILE",
            help="What the new model and the champion are compared on; default: the suite that the champion "
            "was last measured on, else trinity.",
        ),
    ] = None,
) -> CommandResult:
    """Turn feedback into the next model, and deploy it if the gate promotes it; leaves with 3 if not."""
    from escultor.cli.progress import LiveProgress
    from escultor.cycle.api import EvolutionCycle, parse_since

    begin = parse_since(since)
    existing_store(shell.config.store.url, "there is no feedback to learn from").close()
    chosen = _suite(shell) if suite is None else find_suite(shell, suite)
    with LiveProgress() as live:
        verdict = EvolutionCycle(shell.config, live).run(begin, chosen)
    return judged(shell, verdict)


def _suite(shell: Shell) -> EvaluationSuite:
    """The suite that the champion was last measured on; where there is none, trinity."""
    from escultor.cycle.checkpoints import require_champion
    from escultor.cycle.evaluation_service import champion_suite

    with existing_store(shell.config.store.url) as store:
        found = champion_suite(store, require_champion(store), shell.config.gate)
    return found or find_suite(shell, "trinity")
