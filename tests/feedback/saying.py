"""Short makers of interactions and feedback, and the way from them to items."""

from __future__ import annotations

from collections import Counter

from escultor.config import FeedbackRules
from escultor.feedback.index import FeedbackIndex
from escultor.feedback.selection import KINDS, InMemorySource, Selection, SelectionQuery, items, select
from escultor.ids import hash_value
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
    Usage,
)

NOW = 1e9
DAY = 86_400.0


def said(
    id: str, prompt: str = "p", answer: str | None = None, parent: str | None = None, **more
) -> Interaction:
    messages = (Message(Role.USER, prompt),)
    given = {"subject": "asker", "consent": Consent.TRAIN, "arm": "champion", "propensity": 1.0} | more
    return Interaction(
        id=id,
        time=0.0,
        skill=given.pop("skill", "chat"),
        version="v",
        messages=messages,
        answer=f"answer {id}" if answer is None else answer,
        finish_reason=given.pop("finish_reason", "stop"),
        sampling=Sampling(),
        usage=Usage(1, 1),
        latency_ms=1.0,
        ttft_ms=None,
        cost_usd=0.0,
        prompt_hash=hash_value(messages),
        lineage=None if parent is None else Lineage(parent, Relation.REGENERATE),
        **given,
    )


def thumb(target: str, up: bool, subject: str = "asker", time: float = 1.0, **more) -> Rating:
    return Rating(f"t-{target}-{subject}-{time}", time, target, subject, "thumb", up, **more)


def done(target: str, event: ImplicitEvent, subject: str = "asker", time: float = 1.0) -> Implicit:
    return Implicit(f"i-{target}-{event}-{subject}", time, target, subject, event)


def edit(target: str, text: str, subject: str = "asker", time: float = 1.0) -> Correction:
    return Correction(f"c-{target}-{subject}-{time}", time, target, subject, text)


def pick(shown: tuple[str, ...], winner: str | None, subject: str = "asker", time: float = 1.0) -> Choice:
    return Choice(f"ab-{'-'.join(shown)}-{subject}", time, subject, "preference", shown, winner)


def withdrawn(target: str, subject: str = "asker", time: float = 2.0, name: str = "thumb") -> Revocation:
    return Revocation(f"r-{target}-{subject}", time, target, subject, name)


def rater(target: str, up: bool, subject: str = "rater", time: float = 1.0) -> Rating:
    return thumb(target, up, subject, time, source=SourceKind.RATER)


def selected(
    served, events, settings: FeedbackRules | None = None, asked: SelectionQuery | None = None
) -> Selection:
    settings = settings or FeedbackRules()
    with FeedbackIndex(None, settings) as index:
        index.take(served, events)
        return select(index, InMemorySource(served, events), settings, asked or SelectionQuery(NOW))


def made(served, events, settings: FeedbackRules | None = None, asked: SelectionQuery | None = None):
    """(examples, pairs, verdicts), and the counts."""
    found = selected(served, events, settings, asked)
    bodies, counts = InMemorySource(served, events), Counter(found.counts)
    return *(list(items(found.chosen[kind], bodies, counts)) for kind in KINDS), counts
