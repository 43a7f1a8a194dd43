"""Short makers of interactions and feedback, and the way from them to items."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from escultor.config import FeedbackRules
from escultor.feedback.index import FeedbackIndex
from escultor.feedback.items import load_items
from escultor.feedback.raw_log import InMemorySource
from escultor.feedback.selection import KINDS, Selection, SelectionQuery, select
from escultor.serve.in_flight import draft_interaction
from escultor.types import (
    Choice,
    Consent,
    Correction,
    Implicit,
    ImplicitEvent,
    Interaction,
    Lineage,
    Message,
    Rating,
    Relation,
    Revocation,
    Role,
    Sampling,
    SourceKind,
)

NOW = 1e9
DAY = 86_400.0


def interaction(
    id: str,
    prompt: str = "p",
    answer: str | None = None,
    parent: str | None = None,
    finish_reason: str = "stop",
    **more,
) -> Interaction:
    messages = (Message(Role.USER, prompt),)
    given = {"subject": "asker", "consent": Consent.TRAIN} | more
    draft = draft_interaction(messages, id=id, version="v", sampling=Sampling(), **given)
    return replace(
        draft,
        answer=f"answer {id}" if answer is None else answer,
        finish_reason=finish_reason,
        lineage=None if parent is None else Lineage(parent, Relation.REGENERATE),
    )


def thumb(target: str, up: bool, subject: str = "asker", time: float = 1.0, **more) -> Rating:
    return Rating(f"t-{target}-{subject}-{time}", time, target, subject, "thumb", up, **more)


def implicit(target: str, event: ImplicitEvent, subject: str = "asker", time: float = 1.0) -> Implicit:
    return Implicit(f"i-{target}-{event}-{subject}", time, target, subject, event)


def correction(target: str, text: str, subject: str = "asker", time: float = 1.0) -> Correction:
    return Correction(f"c-{target}-{subject}-{time}", time, target, subject, text)


def choice(shown: tuple[str, ...], winner: str | None, subject: str = "asker", time: float = 1.0) -> Choice:
    return Choice(f"ab-{'-'.join(shown)}-{subject}", time, subject, "preference", shown, winner)


def revocation(target: str, subject: str = "asker", time: float = 2.0, name: str = "thumb") -> Revocation:
    return Revocation(f"r-{target}-{subject}", time, target, subject, name)


def rater_thumb(target: str, up: bool, subject: str = "rater", time: float = 1.0) -> Rating:
    return thumb(target, up, subject, time, source=SourceKind.RATER)


def selection_of(
    served, events, settings: FeedbackRules | None = None, asked: SelectionQuery | None = None
) -> Selection:
    settings = settings or FeedbackRules()
    with FeedbackIndex(None, settings) as index:
        index.add(served, events)
        return select(index, settings, asked or SelectionQuery(NOW))


def items_of(served, events, settings: FeedbackRules | None = None, asked: SelectionQuery | None = None):
    """(examples, pairs, verdicts), and the counts."""
    found = selection_of(served, events, settings, asked)
    bodies, counts = InMemorySource(served, events), Counter(found.counts)
    return *(list(load_items(found.chosen[kind], bodies, counts)) for kind in KINDS), counts
