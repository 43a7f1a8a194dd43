"""From what a client says to the noun that is kept: pure, and strict about who may say what, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from escultor.config import FeedbackIntake
from escultor.errors import DataError
from escultor.ids import hash_value, new_id
from escultor.serve.intake.tokens import TokenGrant
from escultor.serve.intake.wire import (
    FORM,
    KINDS,
    SHORT,
    BooleanForm,
    CommentForm,
    ComparisonForm,
    DemonstrationForm,
    FloatForm,
    Form,
    ImplicitForm,
    ShortForm,
    TargetPart,
)
from escultor.store.feedback import CORRECTION, REMARK, THUMB, name_of
from escultor.store.redaction import redacted
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
MEASURED = (ImplicitEvent.DWELL_MS, ImplicitEvent.EDIT)  # events that carry a value: ms, distance
# Names that mean something of their own: a rating or choice under one of them would take its place.
RESERVED = frozenset((CORRECTION, REMARK, *ImplicitEvent))


@dataclass(frozen=True, slots=True)
class FeedbackAuthor:
    """Whose words are taken in: `subject` where an event names nobody; a browser's token allows one
    person, one answer and some names, and nothing else."""

    subject: str  # salted hash
    hashed: Callable[[str], str]  # from a user's name to a subject
    grant: TokenGrant | None = None


@dataclass(frozen=True, slots=True)
class ParsedEvent:
    """An event as it is kept. `dated` tells whether the client said when: without, a repetition is known
    by all but its time. `not_kept` are parts of what was said that no noun has a place for."""

    event: Feedback
    dated: bool
    not_kept: tuple[str, ...] = ()


def parse(body: Any, speaker: FeedbackAuthor, settings: FeedbackIntake, now: float) -> ParsedEvent:
    """The event that a JSON value says.

    Raises DataError that says what is wrong, what was got and what is allowed.
    """
    try:
        form = FORM.validate_python(body)
    except ValidationError as error:
        raise DataError("; ".join(_problem(p) for p in error.errors(include_url=False)[:5])) from None
    except RecursionError:
        raise DataError("the event is nested too deeply") from None
    time, dated = (now, False) if isinstance(form, ShortForm) else _time(form.ts, settings, now)
    if speaker.grant is not None:  # a browser cannot have judged before it had the answer
        time = min(now, max(time, speaker.grant.until - settings.token_days * DAY_S))
    source, subject, not_kept = _speaker(form, speaker)
    id = _id(form, speaker)
    event = _event(form, id, time, subject, source, settings)
    _check_grant(event, speaker.grant)
    if isinstance(form, ComparisonForm) and form.target is not None:
        not_kept.append("target")  # a choice is about its candidates
    if isinstance(form, CommentForm | DemonstrationForm) and form.name != name_of(event):
        not_kept.append("name")
    return ParsedEvent(event, dated, tuple(not_kept))


def without_text(parsed: ParsedEvent) -> ParsedEvent:
    """The event without a word of what was written, where text may not be kept; told to the client."""
    event = parsed.event
    if not isinstance(event, Correction | Remark):
        return parsed
    part = "output.content" if isinstance(event, Correction) else "text"
    return replace(parsed, event=redacted(event, hash_value), not_kept=(*parsed.not_kept, part))


def _event(
    form: Form, id: str, time: float, subject: str, source: SourceKind, settings: FeedbackIntake
) -> Feedback:
    if isinstance(form, ComparisonForm):
        return _choice(form, id, time, subject, source)
    if isinstance(form, ShortForm):
        return _short(form, id, time, subject, source)
    about = (id, time, _target(form.target), subject)
    if isinstance(form, BooleanForm | FloatForm):
        _free(form.name)
        if form.name == THUMB and isinstance(form, FloatForm):
            raise DataError("a thumb is true or false", form.value, "kind boolean, or another name")
        return Rating(*about, form.name, form.value, source=source)
    if isinstance(form, CommentForm):
        return Remark(*about, _text("text", form.text, settings), source=source)
    if isinstance(form, DemonstrationForm):
        return Correction(*about, _text("output.content", form.output.content, settings), source=source)
    if isinstance(form, ImplicitForm):
        return Implicit(*about, form.name, _measure(form.name, form.value), source=source)
    return Revocation(*about, form.name, source=source)


def _short(form: ShortForm, id: str, time: float, subject: str, source: SourceKind) -> Feedback:
    name = form.name or (SCORE if isinstance(form.value, float) else THUMB)
    if form.value is None:
        return Revocation(id, time, form.id, subject, name, source=source)
    _free(name)
    if name == THUMB and not isinstance(form.value, bool):
        raise DataError("a thumb is true or false", form.value, "true, false, or another name")
    return Rating(id, time, form.id, subject, name, form.value, source=source)


def _choice(form: ComparisonForm, id: str, time: float, subject: str, source: SourceKind) -> Choice:
    given = form.comparison
    if len(set(given.candidates)) < len(given.candidates):
        raise DataError("a candidate is given twice", given.candidates, "each answer once")
    if sorted(given.shown_order) != sorted(given.candidates):
        raise DataError(
            "`shown_order` does not show the candidates", given.shown_order, sorted(given.candidates)
        )
    if given.winner is not None and given.winner not in given.candidates:
        raise DataError("the winner is none of the candidates", given.winner, given.candidates)
    _free(form.name)
    if form.name == THUMB:
        raise DataError("a choice is no thumb", form.name, "another name")
    return Choice(id, time, subject, form.name, tuple(given.shown_order), given.winner, source=source)


def _measure(event: ImplicitEvent, value: float | None) -> float | None:
    if value is not None and event not in MEASURED:
        raise DataError(f"`{event}` measures nothing", value, f"a value of {', '.join(MEASURED)}")
    if value is None and event is ImplicitEvent.DWELL_MS:
        raise DataError(f"`{event}` needs a value", None, "milliseconds")
    if value is not None and value < 0:
        raise DataError(f"`{event}` has a value below 0", value, "0 or more")
    return value


def _target(given: str | TargetPart) -> str:
    if isinstance(given, str):
        return given
    if given.type == "conversation":
        raise DataError(
            "this kind of event is about one answer", "a conversation", '{"type": "interaction", "id": …}'
        )
    return given.id


def _free(name: str) -> None:
    if name in RESERVED:
        raise DataError(f"`{name}` is a name with a meaning of its own", None, "another name")


def _text(key: str, text: str, settings: FeedbackIntake) -> str:
    if len(text) > settings.text_characters:
        raise DataError(f"`{key}` is too long", f"{len(text)} characters", settings.text_characters)
    if not text.strip():
        raise DataError(f"`{key}` says nothing", None, "text")
    return text


def _time(given: float | str | None, settings: FeedbackIntake, now: float) -> tuple[float, bool]:
    """When an event was said, and whether the client's own time was taken. A clock that is a little ahead
    is set to now, so that no event outlasts what is said after it."""
    if given is None:
        return now, False
    try:
        time = _epoch(given) if isinstance(given, str) else float(given)
    except (ValueError, OverflowError):
        raise DataError(
            "`ts` is no time", repr(given)[:60], "seconds since the epoch, or ISO 8601 with an offset"
        ) from None
    if not now - settings.max_age_days * DAY_S <= time <= now + settings.clock_skew_s:
        allowed = f"{settings.max_age_days:g} days ago to {settings.clock_skew_s} s ahead"
        raise DataError("`ts` is out of range", f"{time - now:+.10g} s from now", allowed)
    return min(time, now), time <= now


def _epoch(text: str) -> float:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no offset")
    return moment.timestamp()


def _speaker(form: Form, speaker: FeedbackAuthor) -> tuple[SourceKind, str, list[str]]:
    """Source and subject; a browser speaks for the person of its token alone."""
    if isinstance(form, ShortForm):
        kind, name, not_kept = SourceKind.END_USER, form.user, []
    else:
        kind, name = form.source.kind, form.source.id
        not_kept = [] if form.source.version is None else ["source.version"]
    if speaker.grant is None:
        return kind, speaker.subject if name is None else speaker.hashed(name), not_kept
    if name is not None or kind is not SourceKind.END_USER:
        raise DataError("a browser's token says who speaks", "another source", "no source")
    return kind, speaker.grant.subject, not_kept


def _id(form: Form, speaker: FeedbackAuthor) -> str:
    """The id an event is known by. What browsers send may not take ids of others: theirs are their own."""
    given = None if isinstance(form, ShortForm) else form.id
    if given is None:
        return new_id("fb")
    grant = speaker.grant
    return given if grant is None else f"fb-{hash_value([grant.target, grant.subject, given])}"


def _check_grant(event: Feedback, grant: TokenGrant | None) -> None:
    if grant is None:
        return
    if isinstance(event, Choice) or event.target != grant.target:
        raise DataError("the token is for another answer", getattr(event, "target", "a choice"), grant.target)
    if name_of(event) not in grant.names:
        raise DataError("the token is not for this", name_of(event), grant.names)


def _problem(problem: Any) -> str:
    """One problem of a body: where, what is wrong, and what was got."""
    at = ".".join(str(part) for part in problem["loc"] if part not in _TAGS)
    said, got = str(problem["msg"]).removeprefix("Value error, "), problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"`{at}` is not a part of this kind of event"
    shown = "" if isinstance(got, dict | list) else f"; got: {ascii(got)[:60]}"
    return f"`{at}`: {said}{shown}" if at else said


_TAGS = frozenset((SHORT, *KINDS))
