"""What all importers of events share: whom an import is for, its report, and how records are made."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from escultor.data.importers.scores import ScoreSurvey, Statement
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.ids import hash_value
from escultor.types import Consent, Feedback, FinishReason, Interaction, Message, Role, Sampling, Usage

ImportedRecord = Interaction | Feedback
R = TypeVar("R")
MAX_EXAMPLES = 10  # places kept for each reason
_ID = re.compile(r"[!-~]{1,128}")
_MAX_VERSION = 256  # characters
UNDATED = "without a time: dated as the file is"


@dataclass(slots=True)
class EventReport:
    """What was read of a file by kind of record, and what was left out or is worth knowing: the number of
    each reason and the first places, as line and id."""

    read: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    broken: int = 0
    place: str = ""  # of the record that is being read
    thumbs: frozenset[str] = frozenset()  # names of the scores that were taken for the thumb
    undecided: tuple[str, ...] = ()  # names of those that could have been, if none was

    def count(self, reason: str, place: str | None = None) -> None:
        """Count a reason at a place; by default that of the record being read."""
        self.counts[reason] += 1
        places = self.places.setdefault(reason, [])
        if len(places) < MAX_EXAMPLES:
            places.append(self.place if place is None else place)

    def fault(self, fault: Fault, place: str | None = None) -> None:
        """Count a broken record."""
        self.broken += 1
        self.count(f"broken: {fault}", place)


@dataclass(slots=True)
class ImportSession:
    """One import: how people are named, the consent of what is imported, which scores are thumbs, what the
    log knows, and the report."""

    subject_of: Callable[[str], str]  # from a user's name to a subject
    consent: Consent = Consent.TRAIN
    subject_of_answer: Callable[[str], str | None] = lambda id: None  # of an interaction that is known
    row_of: Callable[[str], Interaction | None] = lambda id: None  # the row with an application's own id
    file_time: float = 0.0  # of records without a time
    survey: ScoreSurvey = field(default_factory=ScoreSurvey)
    report: EventReport = field(default_factory=EventReport)

    def time_of(self, *stamps: Any) -> float:
        """The first time given, as seconds since the epoch: ISO 8601 (UTC where it names no zone), seconds,
        milliseconds or nanoseconds. Raises Fault for what is no time."""
        stamp = next((each for each in stamps if each is not None and each != ""), None)
        if stamp is None:
            self.report.count(UNDATED)
            return self.file_time
        try:
            if isinstance(stamp, str) and not stamp.isdigit():
                time = datetime.fromisoformat(stamp)
                seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
            else:
                seconds = float(stamp)
                while seconds >= 1e11 and math.isfinite(seconds):
                    seconds /= 1e3
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if isinstance(stamp, bool) or not 0 < seconds < 1e11:
            raise Fault("its time cannot be read", short(stamp), "ISO 8601, or seconds since the epoch")
        return seconds

    def each(self, records: Iterator[R]) -> Iterator[R]:
        """The records of a part of a row; what is wrong with it is counted and leaves the others alone."""
        try:
            yield from records
        except Fault as fault:
            self.report.fault(fault)
        except Skip as skip:
            self.report.count(str(skip))

    def score(self, said: Statement, name: str, value: Any, *comments: Any) -> Iterator[Feedback]:
        """The feedback of one score; see `ScoreSurvey.score`."""
        yield from self.survey.score(said, name, value, *comments)

    def subject(self, name: Any, otherwise: str) -> str:
        """The subject of a person's name; of an unknown person, one of their own for each `otherwise`."""
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if isinstance(name, str) and name:
            return self.subject_of(name)
        self.report.count(f"people unknown: kept apart by {otherwise.split(':')[1]}")
        return self.subject_of(f"unknown:{otherwise}")

    def interaction(
        self,
        id: str,
        prompt: tuple[Message, ...],
        answer: Message,
        *,
        time: float,
        subject: str,
        version: Any,
        finish: FinishReason = "stop",
        **known: Any,
    ) -> Interaction:
        """An answer that was given elsewhere. `known` holds further fields of an Interaction. Raises Skip
        for an answer to nothing, or without text or calls."""
        if not prompt or all(m.role in (Role.SYSTEM, Role.DEVELOPER) for m in prompt):
            raise Skip("an answer to nothing")
        if not answer.content.strip() and not answer.tool_calls:
            raise Skip("empty answer")
        return Interaction(
            id=answer_id(id),
            time=time,
            skill="chat",
            subject=subject,
            version=version[:_MAX_VERSION] if isinstance(version, str) and version else "unknown",
            arm="imported",
            propensity=1.0,
            messages=prompt,
            answer=answer.content,
            finish_reason=finish,
            sampling=Sampling(),
            usage=known.pop("usage", Usage(0, 0)),
            latency_ms=known.pop("latency_ms", 0.0),
            ttft_ms=known.pop("ttft_ms", None),
            cost_usd=known.pop("cost_usd", 0.0),
            prompt_hash=hash_value(prompt),
            consent=self.consent,
            reasoning=answer.reasoning,
            tool_calls=answer.tool_calls,
            **known,
        )


def answer_id(id: str) -> str:
    """The id of an imported answer: its own, or a hash of it where it has blanks, other scripts or more
    than 128 characters."""
    return id if _ID.fullmatch(id) else f"imported-{hash_value(id)}"


def part(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object within a row; empty where there is none. Raises Fault for anything else."""
    value = row.get(key)
    if value is not None and not isinstance(value, dict):
        raise Fault(f"`{key}` is of the wrong type", short(value), "an object")
    return value or {}


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none of anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
