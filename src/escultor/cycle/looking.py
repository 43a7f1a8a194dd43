"""What a verdict depends on beside scores and policy, read off the store."""

from __future__ import annotations

from collections.abc import Mapping

from escultor.config import Gate
from escultor.evaluate.gate import policy_hash
from escultor.evaluate.ledger import look_number
from escultor.store import Store
from escultor.types import Checkpoint, Circumstances, Scores, Verdict


def circumstances(
    store: Store,
    champion: Scores,
    candidate: Scores,
    policy: Gate,
    card: Mapping[str, float] | None = None,
    signed_by: str | None = None,
    void: Mapping[str, str] | None = None,
) -> Circumstances:
    """The look that this comparison is, counted over the verdicts of the store, and what else was given."""
    verdicts = (verdict for _, verdict in store.log.read(Verdict))
    parents = {c.id: c.parents for _, c in store.log.read(Checkpoint)}
    look = look_number(verdicts, champion, candidate, policy_hash(policy), parents)
    return Circumstances(look, card, signed_by, void or {})
