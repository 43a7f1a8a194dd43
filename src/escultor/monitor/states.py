"""From readings to alerts: ok, warn, firing, resolved. A state holds until something else is shown, so that
no alert flaps; a rule without data keeps its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from escultor.ids import hash_value
from escultor.monitor.metrics import DAY_S
from escultor.monitor.rules import Past, Reading
from escultor.types import Alert, AlertState

WEEK_S = 7 * DAY_S
PAGE_EVERY_S = 3600.0  # a rule pages at most once in this time
_STATES: dict[AlertState, str] = {
    "firing": "shown to be beyond the limit",
    "warn": "beyond the limit, but within chance variation",
    "resolved": "shown to be well again",
    "ok": "no cause for alarm",
}
RuleKey = tuple[str, str]  # rule and version


@dataclass(frozen=True, slots=True)
class RuleHistory:
    """The recorded changes of one rule, oldest first."""

    changes: tuple[Alert, ...] = ()

    @property
    def state(self) -> AlertState:
        return self.changes[-1].state if self.changes else "ok"

    def past(self, now: float) -> Past:
        """What the rule's readings need to know of it."""
        ok = [a.time for a in self.changes if a.state in ("ok", "resolved")]
        last = self.changes[-1].time if self.changes else Past().changed
        recent = sum(a.time > now - WEEK_S for a in self.changes)
        return Past(max(ok, default=Past().ok_since), last, recent, self.state == "warn")

    def has_paged_since(self, moment: float) -> bool:
        return any(a.state == "firing" and a.time > moment for a in self.changes)


def histories(alerts: Iterable[Alert], now: float) -> dict[RuleKey, RuleHistory]:
    """The recorded alerts until `now` by rule and version, of which every one is a change of state."""
    found: dict[RuleKey, list[Alert]] = {}
    for alert in sorted(alerts, key=lambda a: (a.time, a.id)):
        if alert.time <= now:
            known = found.setdefault((alert.rule, alert.version), [])
            if alert.state != (known[-1].state if known else "ok"):
                known.append(alert)
    return {key: RuleHistory(tuple(known)) for key, known in found.items()}


def next_state(reading: Reading, history: RuleHistory, now: float) -> AlertState:
    """The state that follows. `resolved` is told once and then counts as ok."""
    state = history.state
    if state != "firing" and reading.pages and not history.has_paged_since(now - PAGE_EVERY_S):
        return "firing"
    if state in ("ok", "resolved"):
        return "warn" if reading.warns else state
    if reading.is_clear and not reading.pages:
        return "resolved" if state == "firing" else "ok"
    return state


def alert_of(reading: Reading, history: RuleHistory, now: float) -> Alert:
    """The alert of a reading: a new record where the state changed, else the one that stands."""
    state = next_state(reading, history, now)
    if history.changes and state == history.state:
        return history.changes[-1]
    where = f"version {reading.version}: " if reading.version else ""
    message = f"{where}{reading.message}; {_STATES[state]}"
    figures = (reading.estimate, reading.limit)
    identity = hash_value((reading.rule, reading.version, state, now, message, *figures))
    return Alert(
        id=f"alert-{identity}",
        time=now,
        rule=reading.rule,
        state=state,
        estimate=reading.estimate,
        limit=reading.limit,
        message=message,
        version=reading.version,
    )


def changed(alerts: Iterable[Alert], known: Mapping[RuleKey, RuleHistory]) -> list[Alert]:
    """The alerts whose state is new: the ones to record and to tell."""
    nothing = RuleHistory()
    return [a for a in alerts if a.state != known.get((a.rule, a.version), nothing).state]
