"""From the JSON of a feedback event to its record: pure, and strict about author, target and time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from pydantic import ValidationError

from escultor.config import FeedbackIntake
from escultor.errors import DataError
from escultor.ids import hash_value, new_id
from escultor.serve.auth import TokenGrant
from escultor.serve.intake import forms
from escultor.serve.intake.tenants import prefix_of
from escultor.store.feedback import CORRECTION, REMARK, THUMB, event_name, event_target
from escultor.store.redaction import redact_record
from escultor.types import (
    Choice,
    Correction,
    Feedback,
    Implicit,
    ImplicitEvent,
    Rating,
    Remark,
    Revocation,
    SourceKind,
)

DAY_S = 86_400.0
SCORE = "score"
_MAX_PROBLEMS = 1000  # of one event; listing more would cost more than reading it did
# Older stores may hold `dwell_ms`, which nothing reads: it is no longer accepted.
IMPLICIT_EVENTS = tuple(event for event in ImplicitEvent if event is not ImplicitEvent.DWELL_MS)
TOKEN_NAMES = (THUMB, CORRECTION, REMARK, *IMPLICIT_EVENTS)  # what a browser's token allows
# Names with a meaning of their own: a rating or choice of the same name would replace such an event.
RESERVED = frozenset((CORRECTION, REMARK, *ImplicitEvent))
# Of keys that another form has: how this one says it.
_INSTEAD = {
    "user": '; here the person is named by "source": {"id": …}',
    "source": "; here the person is named by `user`",
    "target": "; here the answer is named by `id`",
}


@dataclass(frozen=True, slots=True)
class FeedbackAuthor:
    """The author of events that name none. With a `grant`, a browser's token, events may only be about one
    answer, by one person and under the names it lists."""

    subject: str  # salted hash
    hash_subject: Callable[[str], str]  # from a user's name to a subject
    grant: TokenGrant | None = None
    may_import: bool = False  # events of any age
    tenant: str = ""  # whose ids the events have
    keys: Collection[str] | None = None  # whose answers they may be about; None: any key's
    may_rate: bool = True  # as a rater, judge or program


@dataclass(frozen=True, slots=True)
class ParsedEvent:
    """An event as it is kept. `dated`: the client gave its time; without it, a repetition may differ in
    time. `not_kept` names the parts of the body that no record has a field for; `remark` is the comment of
    a rating."""

    event: Feedback
    dated: bool
    not_kept: tuple[str, ...] = ()
    remark: Remark | None = None

    @property
    def events(self) -> tuple[Feedback, ...]:
        return (self.event,) if self.remark is None else (self.event, self.remark)


def parse(body: Any, author: FeedbackAuthor, settings: FeedbackIntake, now: float) -> ParsedEvent:
    """The event in a JSON value. Raises DataError with what is wrong, what was got and what is allowed."""
    try:
        form = forms.FORM.validate_python(body)
    except ValidationError as error:
        raise DataError(_problems(error)) from None
    except RecursionError:
        raise DataError("the event is nested too deeply") from None
    form = _long_form(form) if isinstance(form, forms.ShortForm) else form
    time, dated = _time(form.ts, settings, now, author.may_import)
    if author.grant is not None:  # a browser cannot have judged before it had the answer
        time = min(now, max(time, author.grant.until - settings.token_days * DAY_S))
    source, subject, not_kept = _source(form, author)
    common = {"id": _event_id(form, author), "time": time, "subject": subject, "source": source}
    event, remark = _event(form, common, settings), None
    if isinstance(form, forms.RatingForm) and form.comment is not None:
        about = {**common, "id": f"{event.id}.remark", "target": event_target(event)}
        remark = Remark(**about, text=_text("comment", form.comment, settings))
        _check_grant(remark, author.grant)
    _check_grant(event, author.grant)
    if isinstance(form, forms.ComparisonForm) and form.target is not None:
        not_kept.append("target")  # a choice is about its candidates
    if isinstance(form, forms.CommentForm | forms.DemonstrationForm) and form.name != event_name(event):
        not_kept.append("name")
    return ParsedEvent(event, dated, tuple(not_kept), remark)


def without_text(parsed: ParsedEvent) -> ParsedEvent:
    """The event without the text of a correction or remark, where no text may be kept; `not_kept` says so."""
    event = parsed.event
    if parsed.remark is not None:
        bare = cast("Remark", redact_record(parsed.remark, hash_value))
        return replace(parsed, remark=bare, not_kept=(*parsed.not_kept, "comment"))
    if not isinstance(event, Correction | Remark):
        return parsed
    part = "output.content" if isinstance(event, Correction) else "text"
    return replace(parsed, event=redact_record(event, hash_value), not_kept=(*parsed.not_kept, part))


def _long_form(form: forms.ShortForm) -> forms.LongForm:
    value, source = form.value, forms.SourcePart(id=form.user)
    is_score = isinstance(value, float) and value not in forms.THUMBS
    name = form.name or (SCORE if is_score else THUMB)
    common: dict[str, Any] = {"target": form.id, "name": name, "source": source}
    if value is None:
        if form.comment is not None:
            raise DataError("a withdrawal has no comment", None, "a comment beside a value")
        return forms.RevokeForm(kind="revoke", **common)
    common["comment"] = form.comment
    if isinstance(value, float) and name != THUMB:
        return forms.FloatForm(kind="float", value=value, **common)
    return forms.BooleanForm(kind="boolean", value=value, **common)


def _event(form: forms.LongForm, common: dict[str, Any], settings: FeedbackIntake) -> Feedback:
    """The record of a form; `common` are the fields that all records have."""
    if isinstance(form, forms.ComparisonForm):
        return _choice(form, common)
    common = {**common, "target": _interaction_id(form.target)}
    if isinstance(form, forms.FloatForm) and form.name != THUMB:
        return _rating(form.name, form.value, common)
    if isinstance(form, forms.BooleanForm | forms.FloatForm):
        return _rating(form.name, _thumb(form.value), common)
    if isinstance(form, forms.CommentForm):
        return Remark(**common, text=_text("text", form.text, settings))
    if isinstance(form, forms.DemonstrationForm):
        return Correction(**common, text=_text("output.content", form.output.content, settings))
    if isinstance(form, forms.ImplicitForm):
        return Implicit(**common, event=_implicit(form))
    return Revocation(**common, name=form.name)


def _rating(name: str, value: bool | float, common: dict[str, Any]) -> Rating:
    _refuse_reserved(name)
    return Rating(**common, name=name, value=value)


def _thumb(value: bool | float | str) -> bool:
    """Whether a value of one of the usual scales of two is the upper one."""
    said = value.strip().lower() if isinstance(value, str) else value
    if said not in forms.THUMBS:
        raise DataError("a thumb has two values", repr(value)[:60], forms.THUMB_VALUES, "give a score a name")
    return forms.THUMBS[said]


def _choice(form: forms.ComparisonForm, common: dict[str, Any]) -> Choice:
    parts = form.comparison
    candidates, shown, winner = parts.candidates, parts.shown_order, parts.winner
    if len(set(candidates)) < len(candidates):
        raise DataError("a candidate is given twice", candidates, "each answer once")
    if sorted(shown) != sorted(candidates):
        raise DataError("`shown_order` does not show the candidates", shown, sorted(candidates))
    if winner is not None and winner not in candidates:
        raise DataError("the winner is none of the candidates", winner, candidates)
    _refuse_reserved(form.name)
    if form.name == THUMB:
        raise DataError("a choice is no thumb", form.name, "another name")
    return Choice(**common, name=form.name, shown_order=tuple(shown), winner=winner)


def _implicit(form: forms.ImplicitForm) -> ImplicitEvent:
    if form.name not in IMPLICIT_EVENTS:
        allowed = ", ".join(IMPLICIT_EVENTS)
        raise DataError(f"`{form.name}` is not accepted, since nothing reads it", None, allowed)
    if form.value is not None:
        remedy = "send the event without a value"
        raise DataError(f"`{form.name}` has no value", form.value, "no `value`", remedy)
    return form.name


def _interaction_id(target: str | forms.TargetPart) -> str:
    if isinstance(target, str):
        return target
    if target.type == "conversation":
        allowed = '{"type": "interaction", "id": …}'
        raise DataError("this kind of event is about one answer", "a conversation", allowed)
    return target.id


def _refuse_reserved(name: str) -> None:
    if name in RESERVED:
        raise DataError(f"`{name}` is a name with a meaning of its own", None, "another name")


def _text(key: str, text: str, settings: FeedbackIntake) -> str:
    if len(text) > settings.text_characters:
        raise DataError(f"`{key}` is too long", f"{len(text)} characters", settings.text_characters)
    if not text.strip():
        raise DataError(f"`{key}` is blank", None, "text")
    return text


def _time(
    ts: float | str | None, settings: FeedbackIntake, now: float, may_import: bool
) -> tuple[float, bool]:
    """The time of an event, and whether it is the client's own. A clock slightly ahead counts as now, so
    that no event takes precedence over a later one. Who may import brings a history of any age."""
    if ts is None:
        return now, False
    try:
        moment = datetime.fromisoformat(ts) if isinstance(ts, str) else None
        if moment is not None and moment.tzinfo is None:
            raise ValueError("no offset")
        time = float(ts) if moment is None else moment.timestamp()
    except (ValueError, OverflowError):
        allowed = "seconds since the epoch, or ISO 8601 with an offset"
        raise DataError("`ts` is no time", repr(ts)[:60], allowed) from None
    oldest = 0.0 if may_import else now - settings.max_age_days * DAY_S
    if not oldest <= time <= now + settings.clock_skew_s:
        allowed = f"{settings.max_age_days:g} days ago to {settings.clock_skew_s} s ahead"
        remedy = "older events need a key with the scope `admin`, or `escultor data import`"
        raise DataError("`ts` is out of range", f"{time - now:+.10g} s from now", allowed, remedy)
    return min(time, now), time <= now


def _source(form: forms.LongForm, author: FeedbackAuthor) -> tuple[SourceKind, str, list[str]]:
    """Source, subject, and parts not kept; a token's events are of its own subject."""
    kind, user = form.source.kind, form.source.id
    not_kept = [] if form.source.version is None else ["source.version"]
    if kind is not SourceKind.END_USER and not author.may_rate:
        remedy = "a key with the scope `rater`: escultor keys create NAME --scope rater"
        raise DataError("this key gives feedback of end users alone", kind, SourceKind.END_USER, remedy)
    if author.grant is None:
        return kind, author.subject if user is None else author.hash_subject(user), not_kept
    if user is not None or kind is not SourceKind.END_USER:
        raise DataError("a browser's token names the author", "another source", "no source")
    return kind, author.grant.subject, not_kept


def _event_id(form: forms.LongForm, author: FeedbackAuthor) -> str:
    """The id to keep an event under, its tenant's own. A browser's are hashed with its grant: none can take
    another's."""
    grant = author.grant
    if form.id is None or grant is None:
        return prefix_of(author.tenant) + (form.id or new_id("fb"))
    return f"fb-{hash_value([grant.target, grant.subject, form.id])}"


def _check_grant(event: Feedback, grant: TokenGrant | None) -> None:
    if grant is None:
        return
    if isinstance(event, Choice) or event.target != grant.target:
        raise DataError("the token is for another answer", getattr(event, "target", "a choice"), grant.target)
    if event_name(event) not in grant.names:
        raise DataError("the token is not for this", event_name(event), grant.names)


def _problems(error: ValidationError) -> str:
    if error.error_count() > _MAX_PROBLEMS:
        return f"the event has {error.error_count()} problems"
    return "; ".join(_problem(each) for each in error.errors(include_url=False)[:5])


def _problem(error: Any) -> str:
    """One validation error of a body: where, what is wrong, and what was got."""
    path = ".".join(str(part)[:100] for part in error["loc"] if part not in (forms.SHORT, *forms.KINDS))
    message, got = str(error["msg"]).removeprefix("Value error, "), error["input"]
    if error["type"] == "extra_forbidden":
        return f"`{path}` is not a part of this kind of event{_INSTEAD.get(path, '')}"
    shown = (
        ""
        if isinstance(got, dict | list)
        else f"; got: {ascii(got[:60] if isinstance(got, str) else got)[:60]}"
    )
    return f"`{path}`: {message}{shown}" if path else message
