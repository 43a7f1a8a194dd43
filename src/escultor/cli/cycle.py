"""`cycle`: one cycle run that starts from feedback."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell
from escultor.cli.progress import LiveProgress
from escultor.cli.verdicts import show_verdict
from escultor.cycle.api import EvolutionCycle, parse_since
from escultor.cycle.checkpoints import require_champion


def cycle(
    shell: Shell,
    since: Annotated[
        str | None,
        Option(help="daily, weekly, monthly or a date; default: what no promoted model has learnt from yet."),
    ] = None,
    suite: Annotated[
        str | None,
        Option(
            metavar="NAME|FILE",
            help="The suite to compare the new model and the champion on; default: the skill's, else the one "
            "that the champion was last measured on.",
        ),
    ] = None,
    skill: Annotated[
        str | None, Option(help="The skill to learn; default: the only one that is configured.")
    ] = None,
) -> CommandResult:
    """Train the next model on feedback, and deploy it if the gate promotes it; exit code 3 if not."""
    begin = parse_since(since)
    with existing_store(shell, "there is no feedback to learn from") as store:
        require_champion(store)
    with LiveProgress() as live:
        verdict = EvolutionCycle(shell.config, live, skill).run(begin, suite)
    return show_verdict(shell, verdict)
