"""`cycle`: a turn of the loop that starts from feedback."""

from __future__ import annotations

from typing import Annotated

import typer

from escultor.cli.compare import judged
from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell


def cycle(
    shell: Shell,
    since: Annotated[
        str | None,
        typer.Option("--since", help="daily, weekly, monthly or a date; default: from the beginning."),
    ] = None,
) -> CommandResult:
    """Turn feedback into the next model, and deploy it if the gate promotes it; leaves with 3 if not."""
    from escultor.cli.progress import LiveProgress
    from escultor.cycle.api import EvolutionCycle, moment

    begin = moment(since)
    existing_store(shell.config.store.url, "there is no feedback to learn from").close()
    with LiveProgress() as live:
        verdict = EvolutionCycle(shell.config, live).run(begin)
    return judged(shell, verdict)
