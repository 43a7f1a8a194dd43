"""`monitor`: what the log says of quality, errors, latency, cost and traffic, and the alerts of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.context import SpawnProcess
from typing import Annotated, Any, NoReturn

from typer import Option

from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell, local_time
from escultor.cycle.monitor_loop import MonitorLoop
from escultor.cycle.monitoring import Watch, watch_once
from escultor.errors import EscultorError, InputError
from escultor.ids import new_id, plain
from escultor.monitor.metrics import DAY_S
from escultor.store import Store
from escultor.types import Alert, AlertAcknowledged, Health

FIRING = 3  # the exit code where an alert fires
NOTHING = "there is nothing to watch"
NOT_TOLD_APART = "not counted apart"  # calls of tallies from before skills and arms were
NICE = 5  # of a monitor beside a gateway: answers go first
RESTART_S, STOP_S = 10.0, 10.0


def monitor(
    shell: Shell,
    every: Annotated[float | None, Option(help="Seconds between checks, until interrupted.")] = None,
    acknowledge: Annotated[str | None, Option(metavar="ALERT", help="Say that someone is on it.")] = None,
    by: Annotated[str, Option(help="Who acknowledges.")] = "",
    note: Annotated[str, Option(help="What is being done.")] = "",
) -> CommandResult:
    """Check the alert rules once or again and again, record what changed, and tell the receivers.

    With --every it waits for a store that is away, and of several that watch one store one works at a time.
    """
    if acknowledge is not None:
        with existing_store(shell, NOTHING) as store:
            return _acknowledge(shell, store, acknowledge, by, note)
    if every is not None:
        _follow(shell, every, time.sleep)
    with existing_store(shell, NOTHING) as store:
        now = time.time()
        watch = watch_once(store, shell.config, now, now - DAY_S)
        acknowledged = _show(shell, store, watch)
    is_firing = any(a.state == "firing" for a in watch.alerts)
    return CommandResult(_data(watch, acknowledged), FIRING if is_firing else 0)


def _follow(shell: Shell, every: float, sleep: Callable[[float], object]) -> NoReturn:
    """Check until this process ends."""
    if every <= 0:
        raise InputError("checks need time between them", every, "seconds, above 0")
    loop = MonitorLoop(shell.config, lambda line: shell.print(line, "bold"), takes_turns=True)
    with loop.open(partial(existing_store, shell, NOTHING), every) as store:
        try:
            while True:
                watch = loop.look(store, time.time())
                if watch is not None:
                    _show(shell, store, watch)
                sleep(every)
        finally:
            loop.end()


@contextmanager
def monitor_beside(shell: Shell, every: float) -> Iterator[None]:
    """Check the rules in a process beside this one, which is started again where it ends, and ends with this
    one."""
    context, is_over = multiprocessing.get_context("spawn"), threading.Event()
    processes: list[SpawnProcess] = []

    def keep() -> None:
        while not is_over.is_set():
            process = context.Process(target=_beside, args=(replace(shell), every), daemon=True)
            process.start()
            processes[:] = [process]
            process.join()
            is_over.wait(min(every, RESTART_S))

    thread = threading.Thread(target=keep, name="monitor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        for process in processes:
            process.terminate()
        thread.join(STOP_S)


def _beside(shell: Shell, every: float) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    if hasattr(os, "nice"):
        os.nice(NICE)

    def sleep(seconds: float) -> None:
        parent.join(seconds)
        if not parent.is_alive():
            sys.exit()

    try:
        _follow(shell, every, sleep)
    except EscultorError as error:
        sys.exit(str(error))


def _acknowledge(shell: Shell, store: Store, alert: str, by: str, note: str) -> CommandResult:
    found = store.log.get(Alert, alert)
    if found is None or found.state != "firing":
        remedy = "`escultor monitor` shows the alerts that fire, with their ids"
        raise InputError("there is no firing alert of this id", alert, remedy=remedy)
    if not by:
        raise InputError("an acknowledgement needs a name", by, remedy="give --by NAME")
    store.log.append(AlertAcknowledged(new_id("ack"), time.time(), alert, by, note))
    shell.print(f"{alert}: acknowledged by {by}")
    return CommandResult({"alert": alert, "by": by, "note": note})


def _show(shell: Shell, store: Store, watch: Watch) -> dict[str, AlertAcknowledged]:
    """Print a check; the acknowledgements by alert."""
    acknowledged = {a.alert: a for _, a in store.log.read(AlertAcknowledged)}
    rows = []
    for health in watch.report.health:
        rows.append(_row(health.version, health))
        for part in watch.report.parts:
            if part.version == health.version:
                rows.append(_row(f"  {part.skill or NOT_TOLD_APART}, {part.arm or NOT_TOLD_APART}", part))
    shell.table(
        ["Version, last 24 h", "Calls", "Failed", "Thumbs down", "ms p50 / p99", "USD"], rows, left=(0,)
    )
    if watch.report.parts_left_out:
        shell.print(f"{watch.report.parts_left_out} skills and arms with fewer calls are not shown", "dim")
    for alert in watch.alerts:
        if alert.state in ("firing", "warn") or alert in watch.report.changes:
            seen = acknowledged.get(alert.id)
            who = f" (acknowledged by {seen.by}{': ' + seen.note if seen.note else ''})" if seen else ""
            since = f"since {local_time(alert.time)}"
            shell.print(f"{alert.state}: {alert.rule}, {since}, {alert.id}{who}", "bold")
            shell.print(f"  {alert.message}")
    shell.print(f"{watch.diagnosis.remedy}: {watch.diagnosis.reason}", "dim")
    if watch.plan:
        shell.print(
            f"planned: {watch.plan.id}; run `escultor cycle` (`cycle run --follow` does it)",
            "bold",
        )
    for failure in watch.undelivered:
        shell.print(f"not delivered, to be tried again: {failure}", "bold")
    return acknowledged


def _row(name: str, health: Health) -> tuple[str, ...]:
    by_name = {e.name: e for e in health.estimates}
    return (
        name,
        f"{by_name['calls'].n:,}",
        f"{by_name['error_share'].value:.1%}",
        _share(by_name["thumbs_down_share"]),
        f"{by_name['latency_p50_ms'].value:.0f} / {by_name['latency_p99_ms'].value:.0f}",
        f"{by_name['cost_usd'].value:.2f}",
    )


def _share(estimate: Any) -> str:
    if estimate.n == 0:
        return "no votes"
    return f"{estimate.value:.1%} of {estimate.n} [{estimate.low:.1%}, {estimate.high:.1%}]"


def _data(watch: Watch, acknowledged: dict[str, AlertAcknowledged]) -> dict[str, Any]:
    alerts = [plain(a) | {"acknowledged": a.id in acknowledged} for a in watch.alerts]
    return {
        "health": [plain(h) for h in watch.report.health],
        "parts": [plain(h) for h in watch.report.parts],
        "parts_left_out": watch.report.parts_left_out,
        "alerts": alerts,
        "changes": [a.id for a in watch.report.changes],
        "remedy": watch.diagnosis.remedy,
        "reason": watch.diagnosis.reason,
        "plan": watch.plan.id if watch.plan else None,
        "undelivered": watch.undelivered,
    }
