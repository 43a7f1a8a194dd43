"""Delivery of alerts: each to every receiver, at least once, over restarts; nothing is told twice knowingly.

A receiver is a URL. `http` and `https` get a POST as Alertmanager sends it to a webhook (format version 4);
all others are taken by the library apprise (e-mail, Slack, Teams, …), which the extra `notify` installs.
What was delivered is in the log (`AlertDelivery`): whatever fails is tried again at the next check.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from escultor.errors import ConfigError, EscultorError, IdTaken, InputError
from escultor.ids import hash_value
from escultor.monitor.metrics import DAY_S
from escultor.store import Store
from escultor.store.files import locked
from escultor.types import Alert, AlertDelivery

TOLD = frozenset({"firing", "resolved"})
KEPT_S = 7 * DAY_S  # an alert that no receiver took in this time is given up
KNOWN = "known"  # in the place of an alert: the receiver is told of what comes after
TIMEOUT_S, DEADLINE_S = 10.0, 30.0  # of silence, and of the whole of one message
AT_ONCE = 100  # alerts in one message
_unanswered: dict[str, Thread] = {}
Send = Callable[[str, Sequence[Alert]], None]  # raises OSError where the receiver did not take them


def deliver(store: Store, receivers: Sequence[str], now: float, send: Send | None = None) -> list[str]:
    """Send every firing or resolved alert of the last week that a receiver has not taken yet, oldest first,
    and return one line for each receiver that failed. A receiver that is new gets what fires now, and all
    that comes after.
    """
    # One process at a time: another one waits, and then reads what this one has delivered.
    with locked(store.root / "notify.lock"):
        return _deliver_due(store, receivers, now, send or send_to)


def _deliver_due(store: Store, receivers: Sequence[str], now: float, send: Send) -> list[str]:
    alerts = [a for _, a in store.log.read(Alert, since=now - KEPT_S) if a.state in TOLD and a.time <= now]
    latest = {(a.rule, a.version): a for a in alerts}
    taken = {(d.alert, d.receiver) for _, d in store.log.read(AlertDelivery, since=now - KEPT_S)}
    known_since = {receiver: -math.inf for _, receiver in taken}
    known_since |= {d.receiver: d.time for _, d in store.log.read(AlertDelivery, target=KNOWN)}
    failures = []
    for receiver in receivers:
        name = hash_value(receiver)
        if name not in known_since:
            _record(store, [AlertDelivery(f"delivery-{hash_value((KNOWN, name))}", now, KNOWN, name)])
        since = known_since.get(name, now)
        due = [
            a
            for a in alerts
            if (a.id, name) not in taken
            and (a.time >= since or (a is latest[a.rule, a.version] and a.state == "firing"))
        ][:AT_ONCE]
        if not due:
            continue
        try:
            send(receiver, due)
        except OSError as error:
            failures.append(f"{address(receiver)}: {error}")
            continue
        deliveries = [AlertDelivery(f"delivery-{hash_value((a.id, name))}", now, a.id, name) for a in due]
        _record(store, deliveries)
    return failures


def _record(store: Store, deliveries: Sequence[AlertDelivery]) -> None:
    """Record each delivery unless a process on another machine has recorded the same one, at its own time."""
    for outcome in store.log.append_each([[delivery] for delivery in deliveries]):
        if isinstance(outcome, EscultorError) and not isinstance(outcome, IdTaken):
            raise outcome


def check_receivers(receivers: Sequence[str]) -> None:
    """Raises ConfigError for a receiver that cannot be reached by any means installed."""
    for receiver in receivers:
        scheme = urlsplit(receiver).scheme
        if scheme in ("http", "https"):
            continue
        if not scheme:
            raise ConfigError("a receiver of alerts is no URL", address(receiver), "https://…, mailto://…")
        apprise = _apprise(receiver)
        if not apprise.add(receiver):
            raise ConfigError("a receiver of alerts is not known to apprise", address(receiver))


def address(receiver: str) -> str:
    """A receiver without its secrets: scheme and host."""
    parts = urlsplit(receiver)
    return f"{parts.scheme}://{parts.hostname or ''}/…"


def send_to(receiver: str, alerts: Sequence[Alert]) -> None:
    """Send alerts to one receiver. Raises OSError where it did not take them, or not in `DEADLINE_S`."""
    before = _unanswered.pop(receiver, None)
    if before is not None and before.is_alive():
        _unanswered[receiver] = before
        raise OSError("it has not answered the last message yet")
    errors: list[Exception] = []

    def send() -> None:
        try:
            _send(receiver, alerts)
        except Exception as error:
            errors.append(error)

    # A receiver that answers a byte at a time passes every timeout of a library.
    thread = Thread(target=send, name="alerts", daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    if thread.is_alive():
        _unanswered[receiver] = thread
        raise OSError(f"no answer in {DEADLINE_S:g} s")
    for error in errors:
        raise error


def _send(receiver: str, alerts: Sequence[Alert]) -> None:
    if urlsplit(receiver).scheme in ("http", "https"):
        _post(receiver, alerts)
        return
    apprise = _apprise(receiver)
    apprise.add(receiver)
    title = "; ".join(dict.fromkeys(f"{a.rule} {a.state}" for a in alerts))
    if not apprise.notify(title=f"Escultor: {title}", body="\n\n".join(a.message for a in alerts)):
        raise OSError("apprise could not deliver it")


def _post(url: str, alerts: Sequence[Alert]) -> None:
    import httpx2

    body = json.dumps(webhook_body(alerts)).encode()
    try:
        answer = httpx2.post(
            url, content=body, headers={"content-type": "application/json"}, timeout=TIMEOUT_S
        )
    except httpx2.HTTPError as error:
        raise OSError(str(error) or type(error).__name__) from error
    if not answer.is_success:
        hint = ": redirects are not followed, give the final address" * answer.is_redirect
        raise OSError(f"HTTP {answer.status_code}{hint}")


def webhook_body(alerts: Sequence[Alert]) -> dict[str, Any]:
    """The body of Alertmanager's webhook for these alerts, in its format version 4."""
    is_firing = any(a.state == "firing" for a in alerts)
    entries = [_entry(a) for a in alerts]
    common = set.intersection(*(set(e["labels"].items()) for e in entries)) if entries else set()
    return {
        "version": "4",
        "groupKey": '{}:{service="escultor"}',
        "truncatedAlerts": 0,
        "status": "firing" if is_firing else "resolved",
        "receiver": "escultor",
        "groupLabels": {"service": "escultor"},
        "commonLabels": dict(sorted(common)),
        "commonAnnotations": {},
        "externalURL": "",
        "alerts": entries,
    }


def _entry(alert: Alert) -> dict[str, Any]:
    labels = {"alertname": alert.rule, "service": "escultor", "version": alert.version, "severity": "page"}
    at = datetime.fromtimestamp(alert.time, UTC).isoformat().replace("+00:00", "Z")
    is_firing = alert.state == "firing"
    return {
        "status": "firing" if is_firing else "resolved",
        "labels": {k: v for k, v in labels.items() if v},
        "annotations": {
            "summary": alert.message,
            "value": f"{alert.estimate.value:g}",
            "limit": f"{alert.limit:g}",
        },
        "startsAt": at,
        "endsAt": "0001-01-01T00:00:00Z" if is_firing else at,
        "generatorURL": "",
        "fingerprint": hash_value((alert.rule, alert.version))[:16],
    }


def _apprise(receiver: str) -> Any:
    try:
        import apprise  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(
            "alerts by other means than a webhook need the library apprise",
            address(receiver),
            "http://… or https://…",
            "pip install 'escultor[notify]'",
        ) from error
    return apprise.Apprise()
