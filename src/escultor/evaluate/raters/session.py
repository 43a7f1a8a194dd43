"""Blind comparisons of two models by people: who is shown what next, and what becomes of a choice.

A rater sees the prompt and two answers, in an order drawn for the rater and the item, and says which is
better, or neither. The order is logged with the choice. Nothing on the screen or in the log's ids tells
which model wrote what: an answer's id is a hash.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from escultor.errors import DataError
from escultor.evaluate.predictions import Predictions
from escultor.ids import hash_value, new_id
from escultor.rng import unit
from escultor.skills.suites import EvaluationSuite
from escultor.store.log import Log
from escultor.types import Choice, Feedback, Scores, SourceKind, SuiteItem

CHECK_EVERY = 10  # items: one check of attention in each run of so many, at a place that varies
CHECK = "This is a check of attention, and no answer. Please choose this side."

DisplaySide = Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class ComparisonTask:
    """Two texts to choose between. `first` and `second` are the ids of what is shown."""

    item: SuiteItem
    first: str
    second: str
    texts: tuple[str, str]
    check: bool


@dataclass(frozen=True)
class RatingSession:
    """Two models' answers to the items of one suite. Sides are ordered by checkpoint, so that whoever
    names the models the other way round meets the same session."""

    suite: EvaluationSuite
    checkpoints: tuple[str, str]
    answers: tuple[tuple[str, ...], tuple[str, ...]]
    n_raters: int  # of each item
    seed: int

    @cached_property
    def id(self) -> str:
        return hash_value([self.suite.id, self.checkpoints, self.answers, self.seed])

    @property
    def name(self) -> str:
        """The name of this session's choices in the log."""
        return f"preference/{self.id}"

    @property
    def check_name(self) -> str:
        """The name of the choices at its checks of attention."""
        return f"attention/{self.id}"

    @cached_property
    def open_items(self) -> tuple[int, ...]:
        """The items on which the models differ; equal answers are a tie that nobody need be asked about."""
        pairs = enumerate(zip(*self.answers, strict=True))
        return tuple(at for at, (a, b) in pairs if a.strip() != b.strip())

    def answer_id(self, side: DisplaySide, item: str) -> str:
        return hash_value(["answer", self.id, side, item])

    @cached_property
    def said_by(self) -> dict[str, tuple[DisplaySide, int]]:
        """Side and number of the item, by the id of an answer."""
        sides: tuple[DisplaySide, DisplaySide] = ("a", "b")
        return {
            self.answer_id(side, item.id): (side, at)
            for side in sides
            for at, item in enumerate(self.suite.items)
        }


def session_of(
    suite: EvaluationSuite,
    one: tuple[Scores, Predictions],
    other: tuple[Scores, Predictions],
    n_raters: int,
    seed: int,
) -> RatingSession:
    """The session of two evaluations. Raises DataError where there is nothing to compare."""
    (a, kept_a), (b, kept_b) = sorted((one, other), key=lambda side: side[0].checkpoint)
    if a.checkpoint == b.checkpoint:
        raise DataError("a model cannot be compared with itself", a.checkpoint, "two models")
    if not a.suite == b.suite == suite.id:
        raise DataError("answers to different suites cannot be compared", f"{a.suite}, {b.suite}", suite.id)
    first = [tuple(said[0] for said in kept.answers) for kept in (kept_a, kept_b)]
    if not any(text.strip() for side in first for text in side):
        raise DataError(
            f"nothing was answered to the suite `{suite.record.name}`",
            "no text in any answer",
            "a suite with a metric of answers",
        )
    return RatingSession(suite, (a.checkpoint, b.checkpoint), (first[0], first[1]), n_raters, seed)


class Ballots:
    """The choices made in a session, by everybody, as they come in."""

    def __init__(self, log: Log, session: RatingSession):
        self.log, self.session = log, session
        self.votes: dict[tuple[str, str], Choice] = {}  # by rater and item
        self.checks: dict[tuple[str, str], Choice] = {}
        self._seen = 0

    def refresh(self) -> None:
        """Take in what was added to the log meanwhile; a rater's first word on an item counts."""
        for seq, event in self.log.read(Feedback, after=self._seen):
            self._seen = seq
            if isinstance(event, Choice) and event.source is SourceKind.RATER:
                if event.name == self.session.name:
                    _, at = self.session.said_by[event.shown_order[0]]
                    self.votes.setdefault((event.subject, self.session.suite.items[at].id), event)
                elif event.name == self.session.check_name:
                    planted = next(id for id in event.shown_order if id.startswith(_PLANTED))
                    self.checks.setdefault((event.subject, planted), event)

    def of(self, rater: str) -> tuple[int, int]:
        """How many items and checks a rater has answered."""
        return sum(r == rater for r, _ in self.votes), sum(r == rater for r, _ in self.checks)


def next_task(
    session: RatingSession, rater: str, ballots: Ballots, left_out: frozenset[str] = frozenset()
) -> ComparisonTask | None:
    """What to show a rater next; None when nothing is left for this one.

    The items with the fewest raters come first, in an order of the rater's own, so that assignment stays
    balanced however many rate at once and whenever they leave. An item that has `n_raters` is done; the
    votes of raters that are `left_out` do not count towards them.
    """
    done, checked = ballots.of(rater)
    if done >= _check_after(session, rater, checked):
        return _check(session, rater, checked)
    rated = Counter(item for who, item in ballots.votes if who not in left_out)
    items = session.suite.items
    left = [
        at
        for at in session.open_items
        if rated[items[at].id] < session.n_raters and (rater, items[at].id) not in ballots.votes
    ]
    if not left:
        return None
    at = min(left, key=lambda i: (rated[items[i].id], unit(session.seed, "rate", rater, items[i].id)))
    order: Sequence[DisplaySide] = _order(session, rater, items[at].id)
    first, second = (session.answer_id(side, items[at].id) for side in order)
    texts = tuple(session.answers["ab".index(side)][at] for side in order)
    return ComparisonTask(items[at], first, second, (texts[0], texts[1]), check=False)


def chosen(session: RatingSession, rater: str, task: ComparisonTask, pick: Literal[1, 2] | None) -> Choice:
    """A rater's choice, to be appended; None is a tie."""
    winner = None if pick is None else (task.first, task.second)[pick - 1]
    return Choice(
        new_id("choice"),
        time.time(),
        rater,
        session.check_name if task.check else session.name,
        (task.first, task.second),
        winner,
        source=SourceKind.RATER,
    )


def passed(choice: Choice) -> bool:
    """Whether a rater chose at a check of attention as it asks."""
    return choice.winner is not None and choice.winner.startswith(_PLANTED)


_PLANTED = "planted-"


def _check(session: RatingSession, rater: str, number: int) -> ComparisonTask:
    """A planted text beside a true answer, on either side by a fair coin."""
    at = session.open_items[int(unit(session.seed, "check", rater, number) * len(session.open_items))]
    item = session.suite.items[at]
    ids = [f"{_PLANTED}{hash_value([session.id, rater, number])}", session.answer_id("a", item.id)]
    texts = [CHECK, session.answers[0][at]]
    if unit(session.seed, "check side", rater, number) < 0.5:
        ids.reverse()
        texts.reverse()
    return ComparisonTask(item, ids[0], ids[1], (texts[0], texts[1]), check=True)


def _check_after(session: RatingSession, rater: str, number: int) -> int:
    """After how many items a rater meets check `number`: in every ten, at a place that varies."""
    within = int(unit(session.seed, "check place", rater, number) * (CHECK_EVERY - 1)) + 1
    return number * CHECK_EVERY + within if session.open_items else 1 << 60


def _order(session: RatingSession, rater: str, item: str) -> tuple[DisplaySide, DisplaySide]:
    return ("a", "b") if unit(session.seed, "side", rater, item) < 0.5 else ("b", "a")
