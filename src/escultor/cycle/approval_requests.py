"""The people who may approve are sent a link of their own to a candidate that waits for one."""

from __future__ import annotations

from escultor.config import Config
from escultor.ids import hash_value
from escultor.monitor.notify import Send, address, send_to
from escultor.serve.approval_links import LINK_S, approval_link, approvers
from escultor.store import Store
from escultor.store.cycles import RecordedCycle
from escultor.types import Alert, AlertDelivery, Estimate


def ask_approvers(
    store: Store, config: Config, cycle: RecordedCycle, now: float, send: Send = send_to
) -> list[str]:
    """Send each person of `cycle.approvers` a link of their own to a waiting candidate, once, and return one
    line for each who could not be told: they are asked again at the next call."""
    keys, lines, asked = approvers(store, now).values(), [], cycle.last.id
    told = {delivery.receiver for _, delivery in store.log.read(AlertDelivery, target=asked)}
    for name, receiver in config.cycle.approvers.items():
        who = hash_value([name, receiver])
        key = next((key for key in keys if key.name == name), None)
        if who in told:
            continue
        if key is None:
            lines.append(f"{name} is asked to approve, and has no key of the scope `approve`")
            continue
        link = approval_link(store.root, str(config.cycle.public_url), cycle.id, key.id, now)
        text = f"{cycle.id} waits for {name}: {cycle.last.reason}. For {LINK_S / 86_400:g} days: {link}"
        try:
            send(receiver, [_alert(asked, now, text)])
        except OSError as error:
            lines.append(f"{name} could not be asked to approve: {address(receiver)}: {error}")
            continue
        store.log.append(AlertDelivery(f"delivery-{hash_value((asked, who))}", now, asked, who))
    return lines


def _alert(id: str, now: float, text: str) -> Alert:
    waits = Estimate("waiting", 1.0, 1.0, 1.0, 1)
    return Alert(id, now, "approval", "firing", estimate=waits, limit=0.0, message=text)
