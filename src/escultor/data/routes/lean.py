"""From bodies as the log holds them to rows of the index, without making nouns: there may be millions."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

from escultor.data.routes import standing
from escultor.data.routes.evidence import IMPLICIT, is_end_user
from escultor.store.feedback import CORRECTION, THUMB, choice_target
from escultor.types import Relation, Role

_SPANS = tuple(standing.SPANS.items())


class Taken:
    """What a page of feedback comes to. The law: folded by precedence, `words` and `picks` hold what
    `escultor.store.feedback.live` holds of the same events."""

    def __init__(self) -> None:
        self.words: list[tuple[Any, ...]] = []
        self.picks: list[tuple[Any, ...]] = []
        self.targets: set[str] = set()
        self.rates: Counter[tuple[str, str, int]] = Counter()
        self.first: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def take(self, seq: int, body: dict[str, Any]) -> None:
        variant, subject, time, id = body["_"], body["subject"], body["time"], body["id"]
        self.counts["feedback events"] += 1
        if variant == "Remark":
            self.counts["not trained on: remarks"] += 1
            return
        source = body["source"]
        if variant == "Choice":
            shown = body["shown_order"]
            target = choice_target(shown)
            key = (target, subject, body["name"], time, 0, id, seq)
            # A choice between fewer than two is about nothing; it is folded, and says so later.
            first, winner = (shown[0] if shown else None), body["winner"] or ""
            self.picks.append((*key, source, first, json.dumps(shown), winner))
        elif variant == "Revocation":
            target, key = body["target"], (body["target"], subject, body["name"], time, 1, id, seq)
            if target.startswith("choice-"):
                self.picks.append((*key, source, None, "[]", ""))
            else:
                self.words.append((*key, None, source))
        else:
            target = body["target"]
            name, up = self._said(variant, body)
            self.words.append((target, subject, name, time, 0, id, seq, up, source))
        self.targets.add(target)
        if is_end_user(source):
            self._busy(subject, time)

    def _said(self, variant: str, body: dict[str, Any]) -> tuple[str, int | None]:
        """The name an event is folded by, and what it says: 1, 0, or None for nothing that a route takes."""
        if variant == "Correction":
            return CORRECTION, 1
        if variant == "Implicit":
            rule = IMPLICIT.get(body["event"])
            if rule is None:
                self.counts[f"says nothing by itself: {body['event']}"] += 1
            return body["event"], None if rule is None else int(rule[0])
        if body["name"] == THUMB and isinstance(body["value"], bool):
            return THUMB, int(body["value"])
        self.counts["not a thumb: ratings by other names or on a scale"] += 1
        return body["name"], None

    def _busy(self, subject: str, time: float) -> None:
        for span, seconds in _SPANS:
            self.rates[subject, span, int(time // seconds) * seconds] += 1
        self.first[subject] = min(time, self.first.get(subject, time))


def answer_row(body: dict[str, Any]) -> tuple[Any, ...]:
    """The row of an answer."""
    lineage, answer = body.get("lineage") or {}, body["answer"]
    parent = lineage.get("parent") if lineage.get("relation") == Relation.REGENERATE else None
    said = "\n".join(m["content"] for m in body["messages"] if m["role"] == Role.USER)
    return (
        body["id"],
        body["prompt_hash"],
        body["subject"],
        body.get("tenant", ""),
        body["skill"],
        body["arm"],
        body["propensity"],
        parent,
        body.get("consent", "train"),
        body.get("retain_until"),
        text_hash(answer),
        len(answer),
        standing.repeated_share(said, answer),
        body["finish_reason"],
    )


def text_hash(text: str) -> str:
    """A short name of a text, by which equal answers are known."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def ids_of(shown: str) -> tuple[str, ...]:
    return tuple(json.loads(shown))
