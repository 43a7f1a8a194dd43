"""Feedback on answers: a union of event types, append-only; the feedback in force is a fold."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class ImplicitEvent(StrEnum):
    COPY = "copy"
    INSERT_ACCEPT = "insert_accept"
    REGENERATE = "regenerate"
    EDIT = "edit"
    ABANDON = "abandon"
    DWELL_MS = "dwell_ms"
    FOLLOW_UP_REPHRASE = "follow_up_rephrase"
    SHARE = "share"
    ESCALATE_TO_HUMAN = "escalate_to_human"
    UNDO = "undo"


class SourceKind(StrEnum):
    END_USER = "end_user"
    RATER = "rater"
    LLM_JUDGE = "llm_judge"
    CODE = "code"
    SIMULATED = "simulated"  # a simulated rater; stated wherever it is shown


@dataclass(frozen=True, slots=True)
class _About:
    """The fields of every event about one answer. Writer: `serve.intake`."""

    id: str
    time: float
    target: str  # the interaction
    subject: str
    source: SourceKind = field(default=SourceKind.END_USER, kw_only=True)


@dataclass(frozen=True, slots=True)
class Rating(_About):
    """A rating of one answer: a thumb (boolean) or a score (float)."""

    name: str
    value: bool | float


@dataclass(frozen=True, slots=True)
class Correction(_About):
    """The answer that a person would have preferred."""

    text: str


@dataclass(frozen=True, slots=True)
class Remark(_About):
    """A comment for people; never trained on."""

    text: str


@dataclass(frozen=True, slots=True)
class Implicit(_About):
    """A person's action on an answer; `value` is set for events with a measurement (`dwell_ms`)."""

    event: ImplicitEvent
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Revocation(_About):
    """Withdraws the same subject's earlier feedback under `name` about `target`."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice between several answers to one prompt; `winner` is None for a tie."""

    id: str
    time: float
    subject: str
    name: str
    shown_order: tuple[str, ...]
    winner: str | None
    source: SourceKind = field(default=SourceKind.END_USER, kw_only=True)


Feedback = Rating | Choice | Correction | Remark | Implicit | Revocation


@dataclass(frozen=True, slots=True)
class QuarantineOverride:
    """Releases feedback that an abuse rule has quarantined, or trusts a person. Writer: `escultor feedback`.
    `target` is the id of a quarantine entry or of a single piece of feedback, or a subject."""

    id: str
    time: float
    target: str
    reason: str
