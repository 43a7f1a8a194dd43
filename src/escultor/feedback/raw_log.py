"""Reads the log as JSON bodies, without building records: it may hold millions of them.

What is read of a range of the log depends on that range alone, so several processes can read at once.
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
from escultor.feedback.evidence import IMPLICIT, ChoiceEvent, FeedbackEvent, RatedAnswer, is_end_user
from escultor.store.feedback import CORRECTION, THUMB, choice_target
from escultor.store.log import Log
from escultor.types import Feedback, Interaction, Relation, Role

MIN_PARALLEL = 100_000  # entries, prompts or items; starting processes costs 0.7 s, which fewer do not repay
MAX_WORKERS = 4  # one process writes the results of all
REGENERATED = '"relation":"regenerate"'


class LogBatch:
    """The feedback and the regenerations in a range of the log, as rows for the tables of the index.

    Law: folded by precedence, `live` and `choices` hold what `escultor.store.feedback.live` holds of the
    same events.
    """

    def __init__(self) -> None:
        self.live: list[FeedbackEvent] = []
        self.choices: list[ChoiceEvent] = []
        self.targets: set[str] = set()
        self.rates: Counter[tuple[str, int]] = Counter()  # events by (end user, hour)
        self.first_seen: dict[str, float] = {}  # by end user
        self.newest = 0  # sequence number in the log
        self.children: list[tuple[str, str]] = []  # (answer, its regeneration)
        self.counts: Counter[str] = Counter()

    def add(self, seq: int, body: dict[str, Any]) -> None:
        """Add one feedback event."""
        variant, subject, time, id = body["_"], body["subject"], body["time"], body["id"]
        if variant == "Remark":
            self.counts["not trained on: remarks"] += 1
            return
        source = body["source"]
        if variant == "Choice":
            shown, winner = body["shown_order"], body["winner"] or ""
            target = choice_target(shown)
            key = (target, subject, body["name"], time, 0, id, seq)
            # A choice among fewer than two answers is kept here too; drafting counts why it makes no pair.
            first = shown[0] if shown else None
            self.choices.append(ChoiceEvent._make((*key, source, first, json.dumps(shown), winner)))
        elif variant == "Revocation":
            target = body["target"]
            key = (target, subject, body["name"], time, 1, id, seq)
            if target.startswith("choice-"):
                self.choices.append(ChoiceEvent._make((*key, source, None, "[]", "")))
            else:
                self.live.append(FeedbackEvent._make((*key, None, source)))
        else:
            target = body["target"]
            name, up = self._polarity(variant, body)
            self.live.append(FeedbackEvent._make((target, subject, name, time, 0, id, seq, up, source)))
        self.targets.add(target)
        if is_end_user(source):
            self.rates[subject, int(time // abuse_rules.HOUR_S)] += 1
            self.first_seen[subject] = min(time, self.first_seen.get(subject, time))

    def add_regenerations(self, bodies: Sequence[dict[str, Any]]) -> None:
        """Add the (parent, answer) of each of these answers that regenerates another."""
        self.children += [(parent, body["id"]) for body in bodies if (parent := _regenerated(body))]

    def _polarity(self, variant: str, body: dict[str, Any]) -> tuple[str, int | None]:
        """The name an event is folded by, and whether it approves (1), disapproves (0) or says nothing that
        a labelling rule uses (None)."""
        if variant == "Correction":
            return CORRECTION, 1
        if variant == "Implicit":
            event = body["event"]
            if event not in IMPLICIT:
                self.counts[f"says nothing by itself: {event}"] += 1
            return event, int(IMPLICIT[event][0]) if event in IMPLICIT else None
        if body["name"] == THUMB and isinstance(body["value"], bool):
            return THUMB, int(body["value"])
        self.counts["not a thumb: ratings by other names or on a scale"] += 1
        return body["name"], None


@contextmanager
def no_cycle_collection() -> Iterator[None]:
    """Switches Python's search for reference cycles off: passes over millions of rows make none, and the
    search takes a fifth of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def worker_count(n: int) -> int:
    """How many processes share the work on `n` entries, prompts or items."""
    return 1 if n < MIN_PARALLEL else min(MAX_WORKERS, os.cpu_count() or 1)


@no_cycle_collection()
def read_range(log: Log, bounds: tuple[int, int]) -> LogBatch:
    """What entries `after` < seq <= `until` of the log hold, where `bounds` = (after, until)."""
    batch = LogBatch()
    for page in log.raw_pages(Feedback, *bounds):
        batch.newest = page[-1][0]
        batch.counts["feedback events"] += len(page)
        for seq, body in page:
            batch.add(seq, body)
    for page in log.raw_pages(Interaction, *bounds, REGENERATED):
        batch.add_regenerations([body for _, body in page])
    return batch


@no_cycle_collection()
def read_answers(log: Log, ids: Sequence[str]) -> list[RatedAnswer]:
    """The rows of those of these answers that the log holds."""
    return [answer_row(body) for body in log.raw_by_id(Interaction, ids).values()]


def answer_row(body: dict[str, Any]) -> RatedAnswer:
    """The row of an interaction."""
    answer = body["answer"]
    return RatedAnswer(
        id=body["id"],
        prompt=body["prompt_hash"],
        subject=body["subject"],
        tenant=body.get("tenant", ""),
        skill=body["skill"],
        arm=body["arm"],
        propensity=body["propensity"],
        parent=_regenerated(body),
        consent=body.get("consent", "train"),
        retain_until=body.get("retain_until"),
        text_hash=text_hash(answer),
        length=len(answer),
        echoed=abuse_rules.echoed_share(user_text(body), answer),
        finish=body["finish_reason"],
    )


def _regenerated(body: dict[str, Any]) -> str | None:
    """The answer that this one regenerates."""
    lineage = body.get("lineage") or {}
    return lineage.get("parent") if lineage.get("relation") == Relation.REGENERATE else None


def user_text(body: dict[str, Any]) -> str:
    """All that users wrote in the prompt of an interaction."""
    return "\n".join(m["content"] for m in body["messages"] if m["role"] == Role.USER)


def text_hash(text: str) -> str:
    """A short hash of a text, by which equal answers are recognised."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
