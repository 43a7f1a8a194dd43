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
Id = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
Words = Annotated[str, Field(min_length=1)]  # how long they may be is a setting
User = Annotated[str, Field(min_length=1, max_length=256)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Target(Body):
    type: Literal["interaction", "conversation"] = "interaction"
    id: Id


class Source(Body):
    kind: Annotated[SourceKind, Field(strict=False)] = SourceKind.END_USER
    id: User | None = Field(default=None, description="who says it; kept as a salted hash")
    version: User | None = Field(default=None, description="of a judge or program; not kept")


class Output(Body):
    role: Literal["assistant"] = "assistant"
    content: Words


class Comparison(Body):
    candidates: Annotated[list[Id], Field(min_length=2, max_length=MOST_CANDIDATES)]
    winner: Id | None = Field(default=None, description="null: neither is better")
    shown_order: Annotated[list[Id], Field(min_length=2, max_length=MOST_CANDIDATES)]


class Said(Body):
    """What every event of the long form may carry."""

    id: Id | None = Field(default=None, description="repeating an event under its id changes nothing")
    ts: float | str | None = Field(default=None, description="when it was said")
    source: Source = Source()


class ShortForm(Body):
    id: Id = Field(description="of the answer that is judged")
    value: bool | float | None = Field(description="null: what was said before is withdrawn")
    name: Name | None = None
    user: User | None = Field(default=None, description="who says it; kept as a salted hash")


class BooleanForm(Said):
    kind: Literal["boolean"]
    target: Id | Target
    name: Name = "thumb"
    value: bool


class FloatForm(Said):
    kind: Literal["float"]
    target: Id | Target
    name: Name = "score"
    value: float


class CommentForm(Said):
    kind: Literal["comment"]
    target: Id | Target
    name: Name = "remark"
    text: Words


class DemonstrationForm(Said):
    kind: Literal["demonstration"]
    target: Id | Target
    name: Name = "correction"
    output: Output


class ComparisonForm(Said):
    kind: Literal["comparison"]
    target: Id | Target | None = None
    name: Name = "preference"
    comparison: Comparison


class ImplicitForm(Said):
    kind: Literal["implicit"]
    target: Id | Target
    name: Annotated[ImplicitEvent, Field(strict=False)]
    value: float | None = None


class RevokeForm(Said):
    kind: Literal["revoke"]
    target: Id | Target
    name: Name


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
