"""The JSON of feedback events: one strict model for each kind; `docs/feedback.md` shows an example of each.

`target` is the id of an answer, or {"type": "interaction", "id": …}. All long forms take `id` (a repeated
event of the same id is kept once), `ts` (seconds since the epoch, or ISO 8601 with an offset) and `source`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter

from escultor.ids import GIVEN_ID
from escultor.types import ImplicitEvent, SourceKind

MAX_CANDIDATES = 32
# Scales of two values, down and up, are -1 and 1 or 0 and 1: so 1 is up, and both others are down.
THUMBS: dict[bool | float | str, bool] = {
    **dict.fromkeys((True, 1, "up", "thumbs_up", "like", "good"), True),
    **dict.fromkeys((False, 0, -1, "down", "thumbs_down", "dislike", "bad"), False),
}
THUMB_VALUES = 'up: true, 1 or "up"; down: false, 0, -1 or "down"'
SHORT = "short"

EventId = Annotated[str, Field(pattern=GIVEN_ID)]
# Of answers, which other programs named: printable ASCII without blanks.
AnswerId = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
EventName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
NonEmpty = Annotated[str, Field(min_length=1, pattern=r"\S")]  # the limit of its length is a setting
User = Annotated[str, Field(min_length=1, max_length=256)]


class EventPart(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class TargetPart(EventPart):
    type: Literal["interaction", "conversation"] = "interaction"
    id: AnswerId


class SourcePart(EventPart):
    kind: Annotated[SourceKind, Field(strict=False)] = SourceKind.END_USER
    id: User | None = Field(default=None, description="the author; kept as a salted hash")
    version: User | None = Field(default=None, description="of a judge or program; not kept")


class OutputPart(EventPart):
    role: Literal["assistant"] = "assistant"
    content: NonEmpty


class ComparisonPart(EventPart):
    candidates: Annotated[list[AnswerId], Field(min_length=2, max_length=MAX_CANDIDATES)]
    winner: AnswerId | None = Field(default=None, description="null: neither is better")
    shown_order: Annotated[list[AnswerId], Field(min_length=2, max_length=MAX_CANDIDATES)]


class EventForm(EventPart):
    """The keys that every long form may have."""

    id: EventId | None = Field(default=None, description="repeating an event under its id changes nothing")
    ts: float | Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = Field(
        default=None, description="when the feedback was given"
    )
    source: SourcePart = SourcePart()


class TargetForm(EventForm):
    target: AnswerId | TargetPart


class ShortForm(EventPart):
    id: AnswerId = Field(description="of the rated answer")
    value: bool | float | str | None = Field(description=f"{THUMB_VALUES}; null: withdrawn; else a score")
    name: EventName | None = None
    comment: NonEmpty | None = Field(default=None, description="a remark beside the rating")
    user: User | None = Field(default=None, description="the author; kept as a salted hash")


class RatingForm(TargetForm):
    comment: NonEmpty | None = Field(default=None, description="a remark beside the rating")


class BooleanForm(RatingForm):
    kind: Literal["boolean"]
    name: EventName = "thumb"
    value: bool | float | str = Field(description=THUMB_VALUES)


class FloatForm(RatingForm):
    kind: Literal["float"]
    name: EventName = "score"
    value: float


class CommentForm(TargetForm):
    kind: Literal["comment"]
    name: EventName = "remark"
    text: NonEmpty


class DemonstrationForm(TargetForm):
    kind: Literal["demonstration"]
    name: EventName = "correction"
    output: OutputPart


class ComparisonForm(EventForm):
    kind: Literal["comparison"]
    target: AnswerId | TargetPart | None = None
    name: EventName = "preference"
    comparison: ComparisonPart


class ImplicitForm(TargetForm):
    kind: Literal["implicit"]
    name: Annotated[ImplicitEvent, Field(strict=False)]
    value: float | None = Field(default=None, description="not accepted: no implicit event has a value")


class RevokeForm(TargetForm):
    kind: Literal["revoke"]
    name: EventName


KINDS = ("boolean", "float", "comment", "demonstration", "comparison", "implicit", "revoke")


def _tag_of(body: Any) -> str | None:
    """The form of a body; the short form has neither kind nor target."""
    if not isinstance(body, dict):
        return None
    return str(body.get("kind")) if body.keys() & {"kind", "target"} else SHORT


LongForm = (
    BooleanForm | FloatForm | CommentForm | DemonstrationForm | ComparisonForm | ImplicitForm | RevokeForm
)
Form = Annotated[
    Annotated[ShortForm, Tag(SHORT)]
    | Annotated[BooleanForm, Tag("boolean")]
    | Annotated[FloatForm, Tag("float")]
    | Annotated[CommentForm, Tag("comment")]
    | Annotated[DemonstrationForm, Tag("demonstration")]
    | Annotated[ComparisonForm, Tag("comparison")]
    | Annotated[ImplicitForm, Tag("implicit")]
    | Annotated[RevokeForm, Tag("revoke")],
    Discriminator(
        _tag_of,
        custom_error_type="unknown_kind",
        custom_error_message=f"an event is an object with a `kind`, one of: {', '.join(KINDS)}; "
        "or the short form with `id` and `value`",
    ),
]
FORM: TypeAdapter[Form] = TypeAdapter(Form)
