"""What clients may say of answers, as JSON: one model for each kind of event, parsed strictly.

    {"id": "chatcmpl-…", "value": true}                                  the short form: a thumb, or
    {"id": "chatcmpl-…", "value": 0.7, "name": "helpful"}                a score; null withdraws it

    {"kind": "boolean", "target": "chatcmpl-…", "name": "thumb", "value": true}
    {"kind": "float", "target": …, "name": "helpful", "value": 0.7}
    {"kind": "comment", "target": …, "text": "…"}
    {"kind": "demonstration", "target": …, "output": {"role": "assistant", "content": "…"}}
    {"kind": "comparison", "comparison": {"candidates": [a, b], "winner": a, "shown_order": [b, a]}}
    {"kind": "implicit", "target": …, "name": "dwell_ms", "value": 5200}
    {"kind": "revoke", "target": …, "name": "thumb"}

`target` may also be {"type": "interaction", "id": "chatcmpl-…"}. All of the long forms take `id` (what makes
a repetition harmless), `ts` (seconds since the epoch, or ISO 8601 with an offset) and `source`
{"kind": "end_user", "id": "who", "version": "of a judge"}.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter

from escultor.types import ImplicitEvent, SourceKind

MOST_CANDIDATES = 32
SHORT = "short"

# Ids become part of urls, log lines and cursors: printable ASCII, no blanks.
EventId = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
EventName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
Words = Annotated[str, Field(min_length=1)]  # how long they may be is a setting
User = Annotated[str, Field(min_length=1, max_length=256)]


class EventPart(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class TargetPart(EventPart):
    type: Literal["interaction", "conversation"] = "interaction"
    id: EventId


class SourcePart(EventPart):
    kind: Annotated[SourceKind, Field(strict=False)] = SourceKind.END_USER
    id: User | None = Field(default=None, description="who says it; kept as a salted hash")
    version: User | None = Field(default=None, description="of a judge or program; not kept")


class OutputPart(EventPart):
    role: Literal["assistant"] = "assistant"
    content: Words


class ComparisonPart(EventPart):
    candidates: Annotated[list[EventId], Field(min_length=2, max_length=MOST_CANDIDATES)]
    winner: EventId | None = Field(default=None, description="null: neither is better")
    shown_order: Annotated[list[EventId], Field(min_length=2, max_length=MOST_CANDIDATES)]


class EventForm(EventPart):
    """What every event of the long form may carry."""

    id: EventId | None = Field(default=None, description="repeating an event under its id changes nothing")
    ts: float | str | None = Field(default=None, description="when it was said")
    source: SourcePart = SourcePart()


class ShortForm(EventPart):
    id: EventId = Field(description="of the answer that is judged")
    value: bool | float | None = Field(description="null: what was said before is withdrawn")
    name: EventName | None = None
    user: User | None = Field(default=None, description="who says it; kept as a salted hash")


class BooleanForm(EventForm):
    kind: Literal["boolean"]
    target: EventId | TargetPart
    name: EventName = "thumb"
    value: bool


class FloatForm(EventForm):
    kind: Literal["float"]
    target: EventId | TargetPart
    name: EventName = "score"
    value: float


class CommentForm(EventForm):
    kind: Literal["comment"]
    target: EventId | TargetPart
    name: EventName = "remark"
    text: Words


class DemonstrationForm(EventForm):
    kind: Literal["demonstration"]
    target: EventId | TargetPart
    name: EventName = "correction"
    output: OutputPart


class ComparisonForm(EventForm):
    kind: Literal["comparison"]
    target: EventId | TargetPart | None = None
    name: EventName = "preference"
    comparison: ComparisonPart


class ImplicitForm(EventForm):
    kind: Literal["implicit"]
    target: EventId | TargetPart
    name: Annotated[ImplicitEvent, Field(strict=False)]
    value: float | None = None


class RevokeForm(EventForm):
    kind: Literal["revoke"]
    target: EventId | TargetPart
    name: EventName


Form = (
    ShortForm
    | BooleanForm
    | FloatForm
    | CommentForm
    | DemonstrationForm
    | ComparisonForm
    | ImplicitForm
    | RevokeForm
)
KINDS = ("boolean", "float", "comment", "demonstration", "comparison", "implicit", "revoke")


def _form(body: Any) -> str | None:
    """Which form a body has: the short one has neither kind nor target."""
    if not isinstance(body, dict):
        return None
    return SHORT if not body.keys() & {"kind", "target"} else str(body.get("kind"))


FORM: TypeAdapter[Form] = TypeAdapter(
    Annotated[
        Annotated[ShortForm, Tag(SHORT)]
        | Annotated[BooleanForm, Tag("boolean")]
        | Annotated[FloatForm, Tag("float")]
        | Annotated[CommentForm, Tag("comment")]
        | Annotated[DemonstrationForm, Tag("demonstration")]
        | Annotated[ComparisonForm, Tag("comparison")]
        | Annotated[ImplicitForm, Tag("implicit")]
        | Annotated[RevokeForm, Tag("revoke")],
        Discriminator(
            _form,
            custom_error_type="unknown_kind",
            custom_error_message=f"an event is an object with a `kind`, one of: {', '.join(KINDS)}; "
            "or the short form with `id` and `value`",
        ),
    ]
)
