"""Request metadata: whose request it is, what it continues, and what may be done with its row.

Each is a header `x-escultor-…`, or a key `escultor_…` of OpenAI's `metadata`; the header takes precedence.

    subject      the user's name; OpenAI's `safety_identifier` or `user` are read as well
    skill        the skill that the answer is filed under
    parent       id of the answer that this request continues, with
    relation     regenerate | edit_prompt | continue (the default where a parent is given)
    consent      train | eval_only | none
    message      the application's own id of the answer, by which its feedback finds the row
    task         what the application asks for on its own behalf, such as a title of the chat: the row is
                 neither trained on nor counted as the quality of a model
    retain-days  the row is purged after so many days
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from escultor.serve.auth import Caller
from escultor.serve.deployments import EnginePick
from escultor.serve.in_flight import draft_interaction, prompt_messages
from escultor.serve.protocol import GenerationRequest
from escultor.serve.subjects import SubjectHasher
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.requests import ParsedRequest
from escultor.types import Consent, Interaction, Lineage, Message, Relation, Role

PREFIX = "x-escultor-"
NAMES = ("subject", "skill", "parent", "relation", "consent", "message", "task", "retain-days")
E = TypeVar("E", bound=StrEnum)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
TASK_PREFIXES = (  # how applications' own prompts begin
    "### Task:",  # Open WebUI: titles, tags, follow-up questions
    "Provide a concise, 5-word-or-less title for the conversation",  # LibreChat
    "Analyze this conversation and provide:\n1. The detected language",  # LibreChat
    "You are asked to generate a concise chat title by decomposing",  # Dify
    'You need to decompose the user\'s input into "subject" and "intention"',  # Dify
)
_TEMPLATE = re.compile(r"\{\{.*\}\}")  # of an application that does not fill it in
_DAY_S = 86400.0
_MAX_DAYS = 36500.0


@dataclass(frozen=True, slots=True)
class RequestMetadata:
    """Whose request it is and what may be done with its row."""

    subject: str  # salted hash
    named: bool  # whether the request names its user; requests without a user are not sticky to a version
    skill: str
    lineage: Lineage | None
    consent: Consent
    retain_until: float | None  # seconds since the epoch
    tenant: str  # the caller's key; empty where the gateway has none
    message: str = ""  # the application's own id of the answer
    task: str = ""  # what the application asks for on its own behalf
    tools: str = ""  # id of the definitions of tools
    parameters: str = ""  # JSON of what is asked for beside messages and tools
    ignored: tuple[str, ...] = ()  # given without effect: reported back

    def draft(self, id: str, request: GenerationRequest, pick: EnginePick) -> Interaction:
        """The draft of the row of one answer to this request."""
        return draft_interaction(
            prompt_messages(request.prompt),
            id=id,
            subject=self.subject,
            version=pick.handle.version,
            sampling=request.sampling,
            skill=self.skill,
            arm=pick.arm,
            propensity=pick.propensity,
            lineage=self.lineage,
            consent=self.consent,
            retain_until=self.retain_until,
            tenant=self.tenant,
            tools=self.tools,
            parameters=self.parameters,
            message=self.message,
            task=self.task,
        )


def parse_metadata(
    headers: Iterable[tuple[bytes, bytes]],
    parsed: ParsedRequest,
    caller: Caller,
    subjects: SubjectHasher,
    *,
    skill: str,
    consent: Consent,
) -> RequestMetadata:
    """The metadata of a request; `skill` and `consent` are used where it gives none. Raises ApiError for a
    value that is not allowed, InputError for a user's name that cannot be hashed."""
    values, ignored = _collect(headers, parsed.metadata)
    user = values.get("subject") or parsed.user
    # A request without a user belongs to its application, which its key identifies.
    subject = subjects.subject(user if user else f"key:{caller.key}", caller.tenant)
    task = _task(values.get("task"), parsed)
    default_consent = Consent.NONE if task or not parsed.store else consent
    return RequestMetadata(
        subject=subject,
        named=bool(user),
        skill=_word("skill", values.get("skill", skill)),
        lineage=_lineage(values.get("parent"), values.get("relation")),
        consent=_one_of("consent", Consent, values["consent"]) if "consent" in values else default_consent,
        retain_until=_retain_until(values.get("retain-days")),
        tenant=caller.key or "",
        message=_word("message", values["message"]) if "message" in values else "",
        task=task,
        tools=parsed.tools.id if parsed.tools else "",
        parameters=parsed.parameters,
        ignored=(*ignored, *parsed.ignored),
    )


def _collect(
    headers: Iterable[tuple[bytes, bytes]], metadata: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """The values by name, and what else was given."""
    values: dict[str, str] = {}
    ignored: list[str] = []
    for key, value in metadata.items():
        name = key.removeprefix("escultor_").replace("_", "-")
        if key.startswith("escultor_") and name in NAMES:
            values |= {name: value} if value.strip() else {}
        else:
            ignored.append(f"metadata.{key}")
    for raw_key, raw_value in headers:
        key = raw_key.decode("latin-1")
        if key.startswith(PREFIX):
            if (name := key.removeprefix(PREFIX)) in NAMES:
                # A template of an application may be empty, or unknown to it: that is no header.
                value = _decode(raw_value).strip()
                is_template = _TEMPLATE.fullmatch(value) is not None
                ignored += [key] if is_template else []
                values |= {name: value} if value and not is_template else {}
            else:
                ignored.append(key)
    return values, ignored


def _decode(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _task(given: str | None, parsed: ParsedRequest) -> str:
    """What the application asks for on its own behalf: as it says, or as the prompt's first words say."""
    if given is not None:
        return _word("task", given)
    prompt = parsed.generations[0].prompt
    last = prompt[-1] if isinstance(prompt, tuple) else None
    is_task = isinstance(last, Message) and last.role is Role.USER and last.content.startswith(TASK_PREFIXES)
    return "application" if is_task else ""


def _lineage(parent: str | None, relation: str | None) -> Lineage | None:
    if parent is None and relation is not None:
        raise ApiError(400, "a `relation` needs a `parent`", param="relation")
    if parent is None:
        return None
    kind = Relation.CONTINUE if relation is None else _one_of("relation", Relation, relation)
    return Lineage(_word("parent", parent), kind)


def _one_of(name: str, kind: type[E], value: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise ApiError(400, f"`{name}` {value[:40]!r} is not one of {', '.join(kind)}", param=name) from None


def _word(name: str, value: str) -> str:
    if not _WORD.fullmatch(value):
        message = f"`{name}` cannot be used; allowed: letters, digits and . _ : / -, at most 128"
        raise ApiError(400, message, param=name)
    return value


def _retain_until(days: str | None) -> float | None:
    if days is None:
        return None
    try:
        number = float(days)
    except ValueError:
        number = -1.0
    if not 0 < number <= _MAX_DAYS:
        message = f"`retain-days` {days[:40]!r} is not a number of days; allowed: up to {_MAX_DAYS:.0f}"
        raise ApiError(400, message, param="retain-days")
    return time.time() + number * _DAY_S
