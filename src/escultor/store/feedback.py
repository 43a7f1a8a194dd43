"""The feedback in force: a fold of events by (target, subject, name), in which the latest event wins.

The fold does not depend on order or repetition, and the folds of parts merge into the fold of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from escultor.ids import hash_value
from escultor.types import Choice, Correction, Feedback, Implicit, ImplicitEvent, Rating, Remark, Revocation

THUMB = "thumb"
CORRECTION, REMARK = "correction", "remark"  # names of events that carry no name field
# The implicit events that the labelling rules read (`feedback.raw_log` says how).
TELLING_EVENTS = frozenset(
    (
        ImplicitEvent.COPY,
        ImplicitEvent.INSERT_ACCEPT,
        ImplicitEvent.SHARE,
        ImplicitEvent.REGENERATE,
        ImplicitEvent.UNDO,
        ImplicitEvent.ESCALATE_TO_HUMAN,
        ImplicitEvent.FOLLOW_UP_REPHRASE,
    )
)


class FeedbackKey(NamedTuple):
    """What identifies an event in the fold: a later event with the same key replaces it."""

    target: str  # an interaction id; for a choice, `choice_target` of the answers shown
    subject: str
    name: str


def event_name(event: Feedback) -> str:
    """The name an event is folded and revoked under: its `name`, `correction`, `remark`, or the implicit
    event (`copy`, `dwell_ms`, …)."""
    if isinstance(event, Correction):
        return CORRECTION
    if isinstance(event, Remark):
        return REMARK
    return event.event.value if isinstance(event, Implicit) else event.name


def choice_target(answers: Iterable[str]) -> str:
    """The target of a choice between answers, independent of the order in which they were shown."""
    return f"choice-{hash_value(sorted(answers))}"


def event_target(event: Feedback) -> str:
    """The id of the interaction an event is about, or of the set of answers of a choice."""
    return choice_target(event.shown_order) if isinstance(event, Choice) else event.target


def why_not_trained_on(event: Feedback) -> str | None:
    """Why no labelling rule learns from an event by itself; None where one may, and for a withdrawal."""
    if isinstance(event, Remark):
        return "a remark is kept for people to read"
    if isinstance(event, Rating) and not (event.name == THUMB and isinstance(event.value, bool)):
        return "a rating by another name than `thumb`, or on a scale, is kept for people to read"
    if isinstance(event, Implicit) and event.event not in TELLING_EVENTS:
        return f"`{event.event}` says nothing by itself"
    return "a tie says nothing" if isinstance(event, Choice) and event.winner is None else None


def feedback_key(event: Feedback) -> FeedbackKey:
    """The key of an event in the fold."""
    return FeedbackKey(event_target(event), event.subject, event_name(event))


def precedence(event: Feedback) -> tuple[float, bool, str]:
    """The order of events with one key, of which the greatest wins: by time, then revocations, then id."""
    return event.time, isinstance(event, Revocation), event.id


def latest(events: Iterable[Feedback]) -> dict[FeedbackKey, Feedback]:
    """The latest event of each key, revocations included, so that folds merge."""
    held: dict[FeedbackKey, Feedback] = {}
    for event in events:
        key = feedback_key(event)
        if key not in held or precedence(event) > precedence(held[key]):
            held[key] = event
    return held


def live(events: Iterable[Feedback]) -> dict[FeedbackKey, Feedback]:
    """The feedback in force: the latest event of each key, unless it is a revocation."""
    return {key: event for key, event in latest(events).items() if not isinstance(event, Revocation)}
