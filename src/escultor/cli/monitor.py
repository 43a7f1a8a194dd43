"""`monitor`: what the log says of quality, errors, latency, cost and traffic, and the alerts of it."""

from __future__ import annotations

import time
from typing import Annotated, Any

from typer import Option

from escultor.cli.lookup import existing_store
from escultor.cli.output import CommandResult, Shell, local_time
from escultor.cycle.monitoring import Watch, monitor_of, watch_once
from escultor.errors import InputError, StoreError
from escultor.ids import new_id, plain
from escultor.monitor.metrics import DAY_S
from escultor.monitor.outage import StoreOutage
from escultor.store import Store
from escultor.types import Alert, AlertAcknowledged

FIRING = 3  # the exit code where an alert fires


def monitor(
    shell: Shell,
    every: Annotated[float | None, Option(help="Seconds between checks, until interrupted.")] = None,
    acknowledge: Annotated[str | None, Option(metavar="ALERT", help="Say that someone is on it.")] = None,
    by: Annotated[str, Option(help="Who acknowledges.")] = "",
    note: Annotated[str, Option(help="What is being done.")] = "",
) -> CommandResult:
    """Check the alert rules once or again and again, record what changed, and tell the receivers."""
    if every is not None and every <= 0:
        raise InputError("checks need time between them", every, "seconds, above 0")
    with existing_store(shell, "there is nothing to watch") as store:
        if acknowledge is not None:
            return _acknowledge(shell, store, acknowledge, by, note)
        service, outage = monitor_of(store, shell.config), StoreOutage(shell.config.monitor.notify)
        while True:
            now = time.time()
            try:
                outage.end(store, now)
                watch = watch_once(store, shell.config, now, now - DAY_S, service)
            except StoreError as error:
                if every is None:
                    raise
                for line in (str(error), *outage.note(error, now)):
                    shell.print(line, "bold")
                time.sleep(every)
                continue
            acknowledged = {a.alert: a for _, a in store.log.read(AlertAcknowledged)}
            _show(shell, watch, acknowledged)
            if every is None:
                break
            time.sleep(every)
    is_firing = any(a.state == "firing" for a in watch.alerts)
    return CommandResult(_data(watch, acknowledged), FIRING if is_firing else 0)


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


def _show(shell: Shell, watch: Watch, acknowledged: dict[str, AlertAcknowledged]) -> None:
    rows = []
    for health in watch.report.health:
        by_name = {e.name: e for e in health.estimates}
        rows.append(
            (
                health.version,
                f"{by_name['calls'].n:,}",
                f"{by_name['error_share'].value:.1%}",
                _share(by_name["thumbs_down_share"]),
                f"{by_name['latency_p50_ms'].value:.0f} / {by_name['latency_p99_ms'].value:.0f}",
                f"{by_name['cost_usd'].value:.2f}",
            )
        )
    shell.table(
        ["Version, last 24 h", "Calls", "Failed", "Thumbs down", "ms p50 / p99", "USD"], rows, left=(0,)
    )
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


def _share(estimate: Any) -> str:
    if estimate.n == 0:
        return "no votes"
    return f"{estimate.value:.1%} of {estimate.n} [{estimate.low:.1%}, {estimate.high:.1%}]"


def _data(watch: Watch, acknowledged: dict[str, AlertAcknowledged]) -> dict[str, Any]:
    alerts = [plain(a) | {"acknowledged": a.id in acknowledged} for a in watch.alerts]
    return {
        "health": [plain(h) for h in watch.report.health],
        "alerts": alerts,
        "changes": [a.id for a in watch.report.changes],
        "remedy": watch.diagnosis.remedy,
        "reason": watch.diagnosis.reason,
        "plan": watch.plan.id if watch.plan else None,
        "undelivered": watch.undelivered,
    }
