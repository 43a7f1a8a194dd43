"""The kinds of entry the log holds: for each, its variants and the columns it is found by."""

from __future__ import annotations

import types as builtin
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from escultor.errors import InputError
from escultor.ids import hash_value
from escultor.store.feedback import target_of
from escultor.types import (
    Alert,
    Checkpoint,
    Choice,
    DatasetVersion,
    Deployment,
    Erasure,
    Feedback,
    Health,
    HeldOut,
    Interaction,
    KeyEvent,
    PendingInteraction,
    Plan,
    QuarantineOverride,
    Review,
    Scores,
    Step,
    Suite,
    Verdict,
)


def _nothing(noun: Any) -> None:
    """The column stays empty."""


def _shown(event: Any) -> tuple[str, ...]:
    """The answers a choice was made from; all other feedback is about its target alone."""
    return event.shown_order if isinstance(event, Choice) else ()


@dataclass(frozen=True)
class RecordKind:
    """How one noun is filed. A column read by `_nothing` stays empty; an empty time is the append's."""

    name: str
    noun: Any  # a class, or a union of classes
    target: Callable[[Any], str | None]  # what the entry is about
    subject: Callable[[Any], str | None] = _nothing  # the person or system it came from
    id: Callable[[Any], str] = lambda noun: noun.id
    time: Callable[[Any], float | None] = lambda noun: noun.time
    mentions: Callable[[Any], tuple[str, ...]] = lambda noun: ()  # what else it is about, and found by

    @property
    def variants(self) -> tuple[type, ...]:
        """The classes of the sum type; the class itself for a plain noun."""
        return self.noun.__args__ if isinstance(self.noun, builtin.UnionType) else (self.noun,)


KINDS = (
    RecordKind("interaction", Interaction, target=lambda n: n.version, subject=lambda n: n.subject),
    RecordKind(
        "pending",
        PendingInteraction,
        target=lambda n: n.interaction.version,
        subject=lambda n: n.interaction.subject,
        id=lambda n: n.interaction.id,
        time=lambda n: n.interaction.time,
    ),
    RecordKind("feedback", Feedback, target=target_of, subject=lambda n: n.subject, mentions=_shown),
    RecordKind("dataset", DatasetVersion, target=lambda n: n.name, id=lambda n: n.hash, time=_nothing),
    RecordKind("held_out", HeldOut, target=lambda n: n.name, time=_nothing),
    RecordKind("review", Review, target=lambda n: n.dataset),
    RecordKind("checkpoint", Checkpoint, target=lambda n: n.name, time=_nothing),
    RecordKind("suite", Suite, target=lambda n: n.name, time=_nothing),
    RecordKind("scores", Scores, target=lambda n: n.checkpoint, time=_nothing),
    RecordKind(
        "verdict",
        Verdict,
        target=lambda n: n.because.candidate,
        id=lambda n: n.because.id,
        time=_nothing,
    ),
    RecordKind("deployment", Deployment, target=lambda n: n.aliases.get("champion")),
    RecordKind("health", Health, target=lambda n: n.version, id=hash_value, time=lambda n: n.until),
    RecordKind("alert", Alert, target=lambda n: n.rule),
    RecordKind("plan", Plan, target=lambda n: n.because),
    RecordKind("erasure", Erasure, target=lambda n: n.subject),
    RecordKind("key", KeyEvent, target=lambda n: getattr(n, "key", None)),
    RecordKind("quarantine_override", QuarantineOverride, target=lambda n: n.target),
    RecordKind("step", Step, target=lambda n: n.name, id=lambda n: n.key),
)
_BY_NOUN = {kind.noun: kind for kind in KINDS}
_BY_VARIANT = {variant: kind for kind in KINDS for variant in kind.variants}


def kind_of(noun: Any) -> RecordKind:
    """The kind of a class or union, such as `Interaction` or `Feedback`.

    Raises InputError for anything the log does not hold, and for a lone variant of a union.
    """
    if (kind := _BY_NOUN.get(noun)) is not None:
        return kind
    known = ", ".join(getattr(each.noun, "__name__", each.name.title()) for each in KINDS)
    name = getattr(noun, "__name__", repr(noun))
    if (whole := _BY_VARIANT.get(noun)) is not None:
        remedy = f"read {whole.name.title()} and keep the {name} entries"
        raise InputError("a single variant is no kind of entry", name, known, remedy)
    raise InputError("the log holds no such noun", name, known)


def kind_of_instance(noun: object) -> RecordKind:
    """The kind under which a noun is filed.

    Raises InputError for an object the log does not hold.
    """
    kind = _BY_VARIANT.get(type(noun))
    if kind is None:
        known = ", ".join(variant.__name__ for variant in _BY_VARIANT)
        raise InputError("the log holds no such noun", type(noun).__name__, known)
    return kind
