"""`canary`: a trial of a candidate among people."""

from __future__ import annotations

import time
from typing import Annotated

from typer import Argument, Option

from escultor.cli.lookup import checked_model, existing_store
from escultor.cli.output import NOT_PROMOTED, CommandResult, Shell
from escultor.cycle.canary_service import CanaryService, end_trial, first_stage
from escultor.cycle.checkpoints import keep_model
from escultor.cycle.live_metrics import live_metrics
from escultor.errors import InputError
from escultor.evaluate.gate.canary import figure
from escultor.store import Store
from escultor.types import Deployment


def canary(
    shell: Shell,
    action: Annotated[str, Argument(metavar="start|watch|stop", help="Begin, analyse or end a trial.")],
    candidate: Annotated[str | None, Argument(help="start: checkpoint id, alias or folder.")] = None,
    every: Annotated[float | None, Option(help="watch: seconds between analyses, until its end.")] = None,
) -> CommandResult:
    """Try a candidate among people: shadow, then a growing share, rolled back when harm is shown."""
    if action not in ("start", "watch", "stop"):
        raise InputError("there is no such action", action, "start, watch, stop")
    if (action == "start") != (candidate is not None):
        raise InputError(f"canary {action} takes {'a' if action == 'start' else 'no'} candidate", candidate)
    with existing_store(shell, "there is no champion to try a candidate against") as store:
        if action == "watch":
            return _watch(shell, store, every)
        if candidate is not None:
            store.log.append(_start(shell, store, candidate))
        elif not end_trial(store, "canary: stopped by a person"):
            raise InputError("no canary trial is in progress", remedy="there is nothing to stop")
        deployment = store.log.last(Deployment)
        assert deployment is not None
    shell.print(f"{deployment.because}; shares {deployment.shares}", "bold")
    ids = {"deployment": deployment.id, "because": deployment.because, "shares": deployment.shares}
    return CommandResult(ids | deployment.aliases)


def _start(shell: Shell, store: Store, candidate: str) -> Deployment:
    checkpoint = keep_model(store, checked_model(shell, candidate))
    return first_stage(store, shell.config.canary, checkpoint.id, "canary: begun by a person")


def _watch(shell: Shell, store: Store, every: float | None) -> CommandResult:
    """Analyse the trial once, or until it has ended."""
    service = CanaryService(store, shell.config.canary, live_metrics(shell.config.skills))
    while True:
        move = service.analyse()
        shell.print(f"{move.kind}: {move.reason}", "bold")
        for name, harm in move.guards.items():
            shell.print(f"  {figure(name, harm)}")
        if every is None or move.kind in ("rollback", "complete"):
            break
        time.sleep(every)
    bounds = {
        name: {"difference": h.difference, "low": h.low, "high": h.high} for name, h in move.guards.items()
    }
    data = {"move": move.kind, "share": move.share, "reason": move.reason, "guards": bounds}
    return CommandResult(data, NOT_PROMOTED if move.kind == "rollback" else 0)
