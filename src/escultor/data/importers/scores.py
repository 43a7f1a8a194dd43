"""Scores of tracing and labelling tools as feedback: which one is the thumb, and what the others become.

A person's yes or no about an answer is a thumb, under whatever name. A file rarely says which of its scores
is that, so it is found: a boolean, or a number that is only ever 1, 0 and -1, or a word such as `good`. If
there are several, those whose name says that a person voted; if that does not decide, none, which is
reported.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from escultor.data.jsonl_rows import Fault, short
from escultor.store.feedback import THUMB
from escultor.types import Correction, Feedback, Rating, Remark, SourceKind

_NUMBER = re.compile(r"[+-]?\d{1,9}(?:\.\d{1,9})?")
_PEOPLE = (SourceKind.END_USER, SourceKind.RATER)
_GOOD = (
    "good correct right up thumbs_up thumbsup positive like liked helpful yes true accept accepted 👍 pass"
)
_BAD = "bad incorrect wrong down thumbs_down thumbsdown negative dislike disliked unhelpful no false reject "
_VERDICTS = {
    **dict.fromkeys(_GOOD.split(), True),
    **dict.fromkeys((_BAD + "rejected 👎 fail").split(), False),
}
_VOTE_WORDS = {
    "thumb",
    "thumbs",
    "user",
    "feedback",
    "vote",
    "like",
    "liked",
    "upvote",
    "satisfaction",
    "helpful",
}
_FAULT_WORDS = [
    "toxic",
    "harm",
    "unsafe",
    "hallucinat",
    "bias",
    "pii",
    "leak",
    "error",
    "fail",
    "refus",
    "jailbreak",
    "injection",
    "violat",
    "offens",
    "spam",
    "wrong",
    "bad",
    "incorrect",
    "flag",
    "issue",
    "problem",
]


class Statement(NamedTuple):
    """Who said something about an answer, when, and under which id."""

    id: str
    time: float
    target: str
    subject: str
    source: SourceKind = SourceKind.END_USER

    def remark(self, *texts: Any) -> list[Feedback]:
        """A remark of the texts that are not blank; none if all are."""
        said = "\n".join(text for text in texts if isinstance(text, str) and text.strip())
        return [Remark(f"{self.id}-remark", *self[1:4], said, source=self.source)] if said else []

    def correction(self, text: str) -> list[Feedback]:
        """The answer that should have been given; none if it is blank."""
        blank = not text.strip()
        return [] if blank else [Correction(f"{self.id}-correction", *self[1:4], text, source=self.source)]

    def rating(self, name: str, value: bool | float) -> list[Feedback]:
        """A thumb or a score."""
        return [Rating(self.id, *self[1:4], name, value, source=self.source)]


@dataclass(slots=True)
class ScoreSurvey:
    """What is known of the scores of a file: the values that each name has, and with them the thumbs."""

    values: dict[str, set[tuple[str, Any] | None]] = field(default_factory=dict)  # by name, see `_sign`
    chosen: frozenset[str] | None = None  # the names of the thumb, once they are decided

    def score(self, said: Statement, name: str, value: Any, *comments: Any) -> list[Feedback]:
        """The feedback of one score: a thumb, a rating, or a remark, with its comments as a remark. Raises
        Fault for a value of no kind that scores have."""
        if isinstance(value, str) and is_number(value):
            value = float(value)
        verdict = verdict_of(value)
        if value is not None and not isinstance(value, bool | int | float | str):
            raise Fault(
                f"the value of `{name}` is of the wrong type", short(value), "a number, truth or text"
            )
        if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < 1e300):
            raise Fault(f"the value of `{name}` is not finite", short(value), "a finite number")
        signs = self.values.setdefault(name, set())
        if said.source in _PEOPLE and self.chosen is None and value is not None:
            signs.add(_sign(value, verdict))
        if said.source in _PEOPLE and self.chosen and name in self.chosen and verdict is not None:
            is_neutral = value == 0 and ("number", -1) in signs
            return [*([] if is_neutral else said.rating(THUMB, verdict)), *said.remark(*comments)]
        if isinstance(value, str) and verdict is not None:
            value = verdict
        if isinstance(value, str):
            return said.remark(f"{name}: {value}" if value.strip() else None, *comments)
        own = name if name != THUMB or isinstance(value, bool) else "score"
        rating = [] if value is None else said.rating(own, value if isinstance(value, bool) else float(value))
        return [*rating, *said.remark(*comments)]

    def labelled(self, said: Statement, name: str, label: Any, number: Any, *comments: Any) -> list[Feedback]:
        """The feedback of a score that has a number and a word for it: of a word that is a verdict, or of
        one without a number, the word; otherwise the number, with the word as a remark."""
        if verdict_of(label) is not None and (
            number is None or verdict_of(number) in (None, verdict_of(label))
        ):
            return self.score(said, name, label, *comments)
        if number is None:
            return self.score(said, name, label, *comments)
        word = f"{name}: {label}" if isinstance(label, str) and label.strip() else None
        return self.score(said, name, number, word, *comments)

    def decide(self, named: str | None) -> None:
        """Decide which names are the thumb: the one that is named, or those found (see above)."""
        if named is not None:
            self.chosen = frozenset([named] if named else [])
            return
        found = [name for name, values in self.values.items() if _may_be_thumb(name, values)]
        votes = [name for name in found if _words(name) & _VOTE_WORDS]
        kinds = {"".join(sorted(_words(name))) for name in votes or found}
        self.chosen = frozenset(votes or found) if len(kinds) == 1 else frozenset()

    def undecided(self) -> list[str]:
        """The names of which any could be the thumb, if none was taken."""
        return (
            [] if self.chosen else sorted(n for n, values in self.values.items() if _may_be_thumb(n, values))
        )


def is_number(text: str) -> bool:
    """Whether a text is a plain number, as tables give scores."""
    return _NUMBER.fullmatch(text.strip()) is not None


def verdict_of(value: Any) -> bool | None:
    """Whether a value says good or bad; None if it says neither."""
    if isinstance(value, str):
        return _VERDICTS.get(value.strip().lower().replace("-", "_").replace(" ", "_"))
    if isinstance(value, bool):
        return value
    return value > 0 if isinstance(value, int | float) and value in (-1, 0, 1) else None


def _sign(value: Any, verdict: bool | None) -> tuple[str, Any] | None:
    """A value as the survey keeps it: a verdict, a number that can be one, or None."""
    if isinstance(value, bool | str):
        return None if verdict is None else ("verdict", verdict)
    return None if verdict is None else ("number", int(value))


def _may_be_thumb(name: str, signs: set[tuple[str, Any] | None]) -> bool:
    """Whether a score with these values can be a thumb. A number is one if it is 1 or another sign; a mere
    1 could be the lowest of five, unless the name says that it is a vote."""
    is_fault = any(word in name.lower() for word in _FAULT_WORDS)
    is_verdict = any(sign and sign[0] == "verdict" for sign in signs)
    is_vote = is_verdict or len(signs) > 1 or bool(_words(name) & _VOTE_WORDS)
    return bool(signs) and None not in signs and not is_fault and is_vote


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))
