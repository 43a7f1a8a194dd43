"""The kinds of record the log holds: for each, its types and the columns it is found by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Any

from escultor import types
from escultor.errors import InputError
from escultor.ids import hash_value
from escultor.store.feedback import event_target

TOOLS, MEDIA = "tools", "media"
DAY_S = 86400


def _empty(record: Any) -> None:
    """An empty column."""


def shared_mention(kind: str, id: str) -> str:
    """What a row that shares a record with others is found by: no id that an application may choose."""
    return f"#{kind} {id}"


def _mentions(row: types.Interaction) -> tuple[str, ...]:
    """The application's own id of an answer, and the records that the row shares with others."""
    media = (id for message in row.messages for id in message.media)
    shared = (*((TOOLS, row.tools),) * bool(row.tools), *((MEDIA, id) for id in media))
    return (*(row.message,) * bool(row.message), *(shared_mention(*each) for each in shared))


def _spent(row: types.Interaction) -> Spending | None:
    """What an answer costs its key; a candidate in shadow answers at nobody's expense."""
    if not row.tenant or row.arm == "shadow":
        return None
    tokens = row.usage.prompt_tokens + row.usage.completion_tokens
    return Spending(row.tenant, int(row.time // DAY_S), tokens, row.cost_usd)


def _shown(event: Any) -> tuple[str, ...]:
    """The answers a choice was made from; all other feedback is about its target alone."""
    return event.shown_order if isinstance(event, types.Choice) else ()


@dataclass(frozen=True, slots=True)
class Spending:
    """What a key spent on a day since the epoch (UTC)."""

    key: str
    day: int
    tokens: int
    usd: float


@dataclass(frozen=True)
class RecordKind:
    """How one type of record is stored: the columns, as functions of a record. A record without a time gets
    the time of its append."""

    name: str
    record_type: Any  # a class, or a union of classes
    target: Callable[[Any], str | None]  # what the record is about
    subject: Callable[[Any], str | None] = _empty  # the person or system it came from
    id: Callable[[Any], str] = lambda record: record.id
    time: Callable[[Any], float | None] = lambda record: record.time
    mentions: Callable[[Any], tuple[str, ...]] = lambda record: ()  # further targets, by which it is found
    spent: Callable[[Any], Spending | None] = _empty
    is_shared: bool = (
        False  # its id is the hash of its content, and it leaves with the last row that names it
    )

    @property
    def variants(self) -> tuple[type, ...]:
        """The classes of a union; otherwise the one class."""
        union = isinstance(self.record_type, UnionType)
        return self.record_type.__args__ if union else (self.record_type,)


KINDS = (
    RecordKind(
        "interaction",
        types.Interaction,
        target=lambda r: r.version,
        subject=lambda r: r.subject,
        mentions=_mentions,
        spent=_spent,
    ),
    RecordKind(
        "pending",
        types.PendingInteraction,
        target=lambda r: r.interaction.version,
        subject=lambda r: r.interaction.subject,
        id=lambda r: r.interaction.id,
        time=lambda r: r.interaction.time,
        mentions=lambda r: _mentions(r.interaction),
    ),
    RecordKind(TOOLS, types.ToolDefinitions, target=_empty, time=_empty, is_shared=True),
    RecordKind(MEDIA, types.Media, target=_empty, time=_empty, is_shared=True),
    RecordKind("feedback", types.Feedback, target=event_target, subject=lambda r: r.subject, mentions=_shown),
    RecordKind("dataset", types.DatasetVersion, target=lambda r: r.name, id=lambda r: r.hash, time=_empty),
    RecordKind("dataset_name", types.DatasetName, target=lambda r: r.name),
    RecordKind("retired_dataset", types.RetiredDataset, target=lambda r: r.successor or None),
    RecordKind("held_out", types.HeldOut, target=lambda r: r.name, time=_empty),
    RecordKind("review", types.Review, target=lambda r: r.dataset),
    RecordKind("checkpoint", types.Checkpoint, target=lambda r: r.name, time=_empty),
    RecordKind("suite", types.Suite, target=lambda r: r.name, time=_empty),
    RecordKind("scores", types.Scores, target=lambda r: r.checkpoint, time=_empty),
    RecordKind(
        "verdict", types.Verdict, target=lambda r: r.because.candidate, id=lambda r: r.because.id, time=_empty
    ),
    RecordKind("deployment", types.Deployment, target=lambda r: r.aliases.get("champion")),
    RecordKind("health", types.Health, target=lambda r: r.version, id=hash_value, time=lambda r: r.until),
    RecordKind("alert", types.Alert, target=lambda r: r.rule),
    RecordKind("alert_delivery", types.AlertDelivery, target=lambda r: r.alert),
    RecordKind("alert_acknowledged", types.AlertAcknowledged, target=lambda r: r.alert),
    RecordKind("call_tally", types.CallTally, target=_empty),
    RecordKind("plan", types.Plan, target=lambda r: r.because),
    RecordKind("cycle_event", types.CycleEvent, target=lambda r: r.cycle),
    RecordKind("cycle_schedule", types.CycleSchedule, target=lambda r: r.skill),
    RecordKind("erasure", types.Erasure, target=lambda r: r.subject),
    RecordKind("key", types.KeyEvent, target=lambda n: getattr(n, "key", None)),
    RecordKind("quarantine_override", types.QuarantineOverride, target=lambda r: r.target),
    RecordKind("step", types.Step, target=lambda r: r.name, id=lambda r: r.key),
)
SHARED = frozenset(kind.name for kind in KINDS if kind.is_shared)
_BY_TYPE = {kind.record_type: kind for kind in KINDS}
_BY_VARIANT = {variant: kind for kind in KINDS for variant in kind.variants}


def kind_of(record_type: Any) -> RecordKind:
    """The kind of a class or union, such as `Interaction` or `Feedback`. Raises InputError for a type the log
    does not hold, and for a single class of a union."""
    if (kind := _BY_TYPE.get(record_type)) is not None:
        return kind
    known = ", ".join(getattr(each.record_type, "__name__", each.name.title()) for each in KINDS)
    name = getattr(record_type, "__name__", repr(record_type))
    if (union := _BY_VARIANT.get(record_type)) is not None:
        remedy = f"read {union.name.title()} and keep the {name} records"
        raise InputError("the log reads whole unions, not one of their types", name, known, remedy)
    raise InputError("the log holds no records of this type", name, known)


def kind_of_instance(record: object) -> RecordKind:
    """The kind of a record. Raises InputError for an object the log does not hold."""
    kind = _BY_VARIANT.get(type(record))
    if kind is None:
        known = ", ".join(variant.__name__ for variant in _BY_VARIANT)
        raise InputError("the log holds no records of this type", type(record).__name__, known)
    return kind
