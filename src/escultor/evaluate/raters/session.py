"""Blind comparisons of two models by people: the assignment of items to raters, and their choices.

A rater sees a prompt and two answers, in an order drawn for the rater and the item, and chooses the better
one or neither. The order is logged with the choice. Neither the screen nor the ids in the log (hashes) reveal
which model wrote what.
"""

from __future__ import annotations

import math
import time
from collections import Counter
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

DisplaySide = Literal["a", "b"]

CHECK_EVERY = 10  # items, among which there is one attention check at a random place
CHECK = "This is a check of attention, and no answer. Please choose this side."
_PLANTED = "planted-"  # begins the ids of texts that are attention checks
SIDES: tuple[DisplaySide, DisplaySide] = ("a", "b")


@dataclass(frozen=True, slots=True)
class ComparisonTask:
    """Two texts to choose between, with their ids; `check`: one of them is an attention check."""

    item: SuiteItem
    ids: tuple[str, str]
    texts: tuple[str, str]
    check: bool


@dataclass(frozen=True)
class RatingSession:
    """Two models' answers to the items of one suite; sides are ordered by checkpoint."""

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
        """The name of the choices at its attention checks."""
        return f"attention/{self.id}"

    @cached_property
    def open_items(self) -> tuple[int, ...]:
        """The indices of items on which the models differ; equal answers are a tie without any rating."""
        pairs = enumerate(zip(*self.answers, strict=True))
        return tuple(index for index, (a, b) in pairs if a.strip() != b.strip())

    def answer_id(self, side: DisplaySide, item: str) -> str:
        return hash_value(["answer", self.id, side, item])

    @cached_property
    def answer_of(self) -> dict[str, tuple[DisplaySide, SuiteItem]]:
        """The side and the item of each answer, by the answer's id."""
        return {self.answer_id(side, item.id): (side, item) for side in SIDES for item in self.suite.items}


def session_of(
    suite: EvaluationSuite,
    one: tuple[Scores, Predictions],
    other: tuple[Scores, Predictions],
    n_raters: int,
    seed: int,
) -> RatingSession:
    """The session of two evaluations. Raises DataError where there is nothing to compare."""
    (a, a_predictions), (b, b_predictions) = sorted((one, other), key=lambda side: side[0].checkpoint)
    if a.checkpoint == b.checkpoint:
        raise DataError("a model cannot be compared with itself", a.checkpoint, "two models")
    if not a.suite == b.suite == suite.id:
        raise DataError("answers to different suites cannot be compared", f"{a.suite}, {b.suite}", suite.id)
    answers = (_first_seed(a_predictions), _first_seed(b_predictions))
    if not any(text.strip() for side in answers for text in side):
        raise DataError(
            f"no model answered anything to the suite `{suite.record.name}`",
            "no text in any answer",
            "a suite with a metric of answers",
        )
    return RatingSession(suite, (a.checkpoint, b.checkpoint), answers, n_raters, seed)


def _first_seed(predictions: Predictions) -> tuple[str, ...]:
    return tuple(answers[0] for answers in predictions.answers)


class RecordedChoices:
    """All choices of a session's raters that are in the log."""

    def __init__(self, log: Log, session: RatingSession):
        self.log, self.session = log, session
        self.votes: dict[tuple[str, str], Choice] = {}  # by rater and item
        self.checks: dict[tuple[str, str], Choice] = {}
        self._read_to = 0

    def refresh(self) -> None:
        """Read what was added to the log; of a rater's choices on one item the first counts."""
        for seq, event in self.log.read(Feedback, after=self._read_to):
            self._read_to = seq
            if isinstance(event, Choice) and event.source is SourceKind.RATER:
                if event.name == self.session.name:
                    _, item = self.session.answer_of[event.shown_order[0]]
                    self.votes.setdefault((event.subject, item.id), event)
                elif event.name == self.session.check_name:
                    planted = next(id for id in event.shown_order if id.startswith(_PLANTED))
                    self.checks.setdefault((event.subject, planted), event)

    def counts(self, rater: str) -> tuple[int, int]:
        """The number of items and of checks that a rater has answered."""
        return sum(r == rater for r, _ in self.votes), sum(r == rater for r, _ in self.checks)


def next_task(
    session: RatingSession, rater: str, choices: RecordedChoices, left_out: frozenset[str] = frozenset()
) -> ComparisonTask | None:
    """The next task of a rater; None when nothing is left.

    The items with the fewest raters come first, in an order of the rater's own, so that assignment stays
    balanced with any number of raters at once and whenever they leave. An item with `n_raters` is done; the
    votes of raters that are `left_out` do not count towards them.
    """
    done, checks = choices.counts(rater)
    if done >= _check_after(session, rater, checks):
        return _check_task(session, rater, checks)
    raters = Counter(item for name, item in choices.votes if name not in left_out)
    items = session.suite.items
    left = [
        index
        for index in session.open_items
        if raters[items[index].id] < session.n_raters and (rater, items[index].id) not in choices.votes
    ]
    if not left:
        return None
    index = min(left, key=lambda i: (raters[items[i].id], unit(session.seed, "rate", rater, items[i].id)))
    item, texts = items[index], (session.answers[0][index], session.answers[1][index])
    ids = (session.answer_id("a", item.id), session.answer_id("b", item.id))
    is_swapped = unit(session.seed, "side", rater, item.id) >= 0.5
    return _task(item, ids, texts, is_swapped, check=False)


def make_choice(
    session: RatingSession, rater: str, task: ComparisonTask, pick: Literal[1, 2] | None
) -> Choice:
    """A rater's choice, to be appended to the log; None is a tie."""
    return Choice(
        id=new_id("choice"),
        time=time.time(),
        subject=rater,
        name=session.check_name if task.check else session.name,
        shown_order=task.ids,
        winner=None if pick is None else task.ids[pick - 1],
        source=SourceKind.RATER,
    )


def passed(choice: Choice) -> bool:
    """Whether a choice at an attention check is the requested one."""
    return choice.winner is not None and choice.winner.startswith(_PLANTED)


def _check_task(session: RatingSession, rater: str, number: int) -> ComparisonTask:
    """A planted text against a real answer, on either side with equal odds."""
    index = session.open_items[int(unit(session.seed, "check", rater, number) * len(session.open_items))]
    item = session.suite.items[index]
    ids = (f"{_PLANTED}{hash_value([session.id, rater, number])}", session.answer_id("a", item.id))
    is_swapped = unit(session.seed, "check side", rater, number) < 0.5
    return _task(item, ids, (CHECK, session.answers[0][index]), is_swapped, check=True)


def _task(
    item: SuiteItem, ids: tuple[str, str], texts: tuple[str, str], is_swapped: bool, check: bool
) -> ComparisonTask:
    if is_swapped:
        ids, texts = (ids[1], ids[0]), (texts[1], texts[0])
    return ComparisonTask(item, ids, texts, check)


def _check_after(session: RatingSession, rater: str, number: int) -> float:
    """The number of rated items after which check `number` comes: at a random place in every ten."""
    within = int(unit(session.seed, "check place", rater, number) * (CHECK_EVERY - 1)) + 1
    return number * CHECK_EVERY + within if session.open_items else math.inf
