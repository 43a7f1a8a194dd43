"""Under which terms a request is recorded: whose it is, what it continues, what may be done with it.

Each is a header `x-escultor-…`, or a key `escultor_…` of OpenAI's `metadata`; the header goes first.

    subject      the user's name; OpenAI's `safety_identifier` or `user` will do as well
    skill        what the answer is filed under
    parent       id of the answer that this request continues, with
    relation     regenerate | edit_prompt | continue (where a parent is given alone)
    consent      train | eval_only | none
    retain-days  the row may be purged after so many days
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from escultor.serve.auth import Caller
from escultor.serve.subjects import SubjectHasher
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.requests import ParsedRequest
from escultor.types import Consent, Lineage, Relation

PREFIX = "x-escultor-"
NAMES = ("subject", "skill", "parent", "relation", "consent", "retain-days")
E = TypeVar("E", bound=StrEnum)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_DAY_S = 86400.0
_MOST_DAYS = 36500.0


@dataclass(frozen=True, slots=True)
class RequestMetadata:
    """Whose request it is and what may be done with its row."""

    subject: str  # salted hash
    named: bool  # whether the caller said who asks; a request of nobody in particular is not sticky
    skill: str
    lineage: Lineage | None
    consent: Consent
    retain_until: float | None
    tenant: str  # the key that asked; empty where the gateway has none
    ignored: tuple[str, ...] = ()  # given, and not acted on: reported back


def read_terms(
    headers: Iterable[tuple[bytes, bytes]],
    call: ParsedRequest,
    caller: Caller,
    subjects: SubjectHasher,
    *,
    skill: str,
    consent: Consent,
) -> RequestMetadata:
    """The terms of a request; `skill` and `consent` hold where it gives none.

    Raises Refusal for a value that is not allowed, InputError for a user's name that cannot be hashed.
    """
    given, ignored = _gather(headers, call.metadata)
    name = given.get("subject") or call.user
    # Nobody in particular is still somebody's application: its key stands for it.
    subject = subjects.subject(name if name else f"key:{caller.key}")
    fallback = consent if call.store else Consent.NONE
    return RequestMetadata(
        subject=subject,
        named=bool(name),
        skill=_word("skill", given.get("skill", skill)),
        lineage=_lineage(given.get("parent"), given.get("relation")),
        consent=_one_of("consent", Consent, given["consent"]) if "consent" in given else fallback,
        retain_until=_retain(given.get("retain-days")),
        tenant=caller.key or "",
        ignored=tuple(ignored),
    )


def _gather(
    headers: Iterable[tuple[bytes, bytes]], metadata: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    given: dict[str, str] = {}
    ignored: list[str] = []
    for key, value in metadata.items():
        name = key.removeprefix("escultor_").replace("_", "-")
        if key.startswith("escultor_") and name in NAMES:
            given[name] = value
        else:
            ignored.append(f"metadata.{key}")
    for raw, value in headers:
        key = raw.decode("latin-1")
        if key.startswith(PREFIX):
            if (name := key.removeprefix(PREFIX)) in NAMES:
                given[name] = _text(value)
            else:
                ignored.append(key)
    return given, ignored


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _lineage(parent: str | None, relation: str | None) -> Lineage | None:
    if parent is None:
        if relation is not None:
            raise ApiError(400, "a relation needs the parent it relates to", param="relation")
        return None
    how = Relation.CONTINUE if relation is None else _one_of("relation", Relation, relation)
    return Lineage(_word("parent", parent), how)


def _one_of(name: str, kind: type[E], given: str) -> E:
    try:
        return kind(given)
    except ValueError:
        raise ApiError(400, f"`{name}` {given[:40]!r} is not one of {', '.join(kind)}", param=name) from None


def _word(name: str, given: str) -> str:
    if not _WORD.fullmatch(given):
        message = f"`{name}` cannot be used; allowed: letters, digits and . _ : / -, at most 128"
        raise ApiError(400, message, param=name)
    return given


def _retain(days: str | None) -> float | None:
    if days is None:
        return None
    try:
        number = float(days)
    except ValueError:
        number = -1.0
    if not 0 < number <= _MOST_DAYS:
        message = f"`retain-days` {days[:40]!r} is no number of days; allowed: up to {_MOST_DAYS:.0f}"
        raise ApiError(400, message, param="retain-days")
    return time.time() + number * _DAY_S
