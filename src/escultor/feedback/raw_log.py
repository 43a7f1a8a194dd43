"""From bodies as the log holds them to rows of the index, without making nouns: there may be millions.

What is read of a stretch of the log, and of some answers, depends on nothing else, so several processes may
read at once.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from escultor.feedback import abuse_rules
from escultor.feedback.evidence import IMPLICIT, is_end_user
from escultor.store.feedback import CORRECTION, THUMB, choice_target
from escultor.store.log import Log
from escultor.types import Feedback, Interaction, Relation, Role

ALONE = 100_000  # entries, prompts or items that are too few to start other processes for: they cost 0.7 s
MOST_WORKERS = 4  # one process writes what they make
PARENT = 7  # the place of the parent in an answer's row
REGENERATED = '"relation":"regenerate"'


class LogBatch:
    """What a stretch of feedback comes to. The law: folded by precedence, `words` and `picks` hold what
    `escultor.store.feedback.live` holds of the same events."""

    def __init__(self) -> None:
        self.words: list[tuple[Any, ...]] = []
        self.picks: list[tuple[Any, ...]] = []
        self.targets: set[str] = set()
        self.rates: Counter[tuple[str, int]] = Counter()  # by person and hour
        self.newest = 0  # entry
        self.children: list[tuple[str, str]] = []  # answers and what regenerates them
        self.first: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def take(self, seq: int, body: dict[str, Any]) -> None:
        variant, subject, time, id = body["_"], body["subject"], body["time"], body["id"]
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
            self.rates[subject, int(time // abuse_rules.HOUR_S)] += 1
            self.first[subject] = min(time, self.first.get(subject, time))

    def regenerations(self, bodies: Sequence[dict[str, Any]]) -> None:
        """Remember which of these answers were made in place of another."""
        for body in bodies:
            lineage = body.get("lineage") or {}
            if lineage.get("relation") == Relation.REGENERATE and lineage.get("parent"):
                self.children.append((lineage["parent"], body["id"]))

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


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the search for cycles: none are made where millions of rows are gone through, and to walk
    through all of them again and again takes a fifth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def workers(n: int) -> int:
    """Between how many processes work on so many is shared."""
    return 1 if n < ALONE else min(MOST_WORKERS, os.cpu_count() or 1)


@uncollected()
def read(log: Log, stretch: tuple[int, int]) -> LogBatch:
    """What was said, and regenerated, between two entries of the log: behind the first, with the last."""
    found = LogBatch()
    for page in log.lean(Feedback, *stretch):
        found.newest = page[-1][0]
        found.counts["feedback events"] += len(page)
        for seq, body in page:
            found.take(seq, body)
    for page in log.lean(Interaction, *stretch, REGENERATED):
        found.regenerations([body for _, body in page])
    return found


@uncollected()
def answers(log: Log, ids: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of these answers, of those that the log holds."""
    return [answer_row(body) for body in log.lean_by_id(Interaction, ids).values()]


def answer_row(body: dict[str, Any]) -> tuple[Any, ...]:
    """The row of an answer."""
    lineage, answer = body.get("lineage") or {}, body["answer"]
    parent = lineage.get("parent") if lineage.get("relation") == Relation.REGENERATE else None
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
        abuse_rules.repeated_share(asked(body), answer),
        body["finish_reason"],
    )


def asked(body: dict[str, Any]) -> str:
    """All that users wrote in the prompt of an interaction's body."""
    return "\n".join(m["content"] for m in body["messages"] if m["role"] == Role.USER)


def text_hash(text: str) -> str:
    """A short name of a text, by which equal answers are known."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def ids_of(shown: str) -> tuple[str, ...]:
    return tuple(json.loads(shown))
