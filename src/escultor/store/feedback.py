"""What holds of all that was said: the fold of feedback by (target, subject, name). The last word holds.

Folding is order-free and idempotent, and folds of pieces merge into the fold of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from escultor.ids import hash_value
from escultor.types import Choice, Correction, Feedback, Implicit, Remark, Revocation

THUMB = "thumb"
CORRECTION, REMARK = "correction", "remark"  # the names of what has no name of its own


class FeedbackKey(NamedTuple):
    """One live word of one subject."""

    target: str  # the interaction; of a choice, `choice_target` of the answers it was made from
    subject: str
    name: str


def name_of(event: Feedback) -> str:
    """Under which name an event is folded and withdrawn: its own, `correction`, `remark`, or what was
    done (`copy`, `dwell_ms`, …)."""
    if isinstance(event, Correction):
        return CORRECTION
    if isinstance(event, Remark):
        return REMARK
    return event.event.value if isinstance(event, Implicit) else event.name


def choice_target(answers: Iterable[str]) -> str:
    """What a choice between answers is about, in whatever order they were shown."""
    return f"choice-{hash_value(sorted(answers))}"


def target_of(event: Feedback) -> str:
    """What an event is about: an interaction, or the set of answers of a choice."""
    return choice_target(event.shown_order) if isinstance(event, Choice) else event.target


def key_of(event: Feedback) -> FeedbackKey:
    """What an event says something under; a later one under the same key takes its place."""
    return FeedbackKey(target_of(event), event.subject, name_of(event))


def precedence(event: Feedback) -> tuple[float, bool, str]:
    """Of two events under one key the greater holds: the later; at one time the withdrawal; then by id."""
    return event.time, isinstance(event, Revocation), event.id


def latest(events: Iterable[Feedback]) -> dict[FeedbackKey, Feedback]:
    """The last word under each key, withdrawals included, so that folds merge."""
    held: dict[FeedbackKey, Feedback] = {}
    for event in events:
        key = key_of(event)
        if key not in held or precedence(event) > precedence(held[key]):
            held[key] = event
    return held


def live(events: Iterable[Feedback]) -> dict[FeedbackKey, Feedback]:
    """What holds now: the last word under each key, unless it was withdrawn."""
    return {key: event for key, event in latest(events).items() if not isinstance(event, Revocation)}
