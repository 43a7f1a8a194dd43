"""Alerts about the store itself: while it cannot be read or written nothing can be recorded, so receivers are
told at once, and what they were told is recorded when the store is back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from escultor.errors import StoreError
from escultor.ids import hash_value
from escultor.monitor import notify
from escultor.store import Store
from escultor.types import Alert, AlertDelivery, Estimate

RULE = "store"


@dataclass(slots=True)
class StoreOutage:
    """Tells each receiver once that the store fails, and in the log that it did and that it is over."""

    receivers: Sequence[str]
    _alert: Alert | None = None
    _deliveries: list[AlertDelivery] = field(default_factory=list)

    def note(self, error: StoreError, now: float) -> list[str]:
        """Tell the receivers that were not told yet; returns a line for each that could not be."""
        if self._alert is None:
            failed = Estimate("store_failures", 1.0, 1.0, 1.0, 1)
            id = f"alert-{hash_value((RULE, now, str(error)))}"
            self._alert = Alert(
                id, now, RULE, "firing", failed, limit=0.0, message=f"the store fails: {error}"
            )
        told, failures = {d.receiver for d in self._deliveries}, []
        for receiver in self.receivers:
            name = hash_value(receiver)
            if name in told:
                continue
            try:
                notify.send_to(receiver, [self._alert])
            except OSError as reason:
                failures.append(f"{notify.address(receiver)}: {reason}")
                continue
            delivery = f"delivery-{hash_value((self._alert.id, name))}"
            self._deliveries.append(AlertDelivery(delivery, now, self._alert.id, name))
        return failures

    def end(self, store: Store, now: float) -> None:
        """Record an outage that was noted, and its end. Raises StoreError where it is not over."""
        if self._alert is None:
            return
        passed = f"the store is back after {now - self._alert.time:.0f} s"
        over = Alert(
            id=f"alert-{hash_value((RULE, 'resolved', self._alert.id))}",
            time=now,
            rule=RULE,
            state="resolved",
            estimate=self._alert.estimate,
            limit=0.0,
            message=passed,
        )
        store.log.append(self._alert, over, *self._deliveries)
        self._alert, self._deliveries = None, []
