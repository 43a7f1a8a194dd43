"""The figures of a Trinity against the one that its document's author wrote, as metrics of a suite."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from escultor.errors import DataError
from escultor.skills import trinity
from escultor.skills.table import BINARY, SHARE, Metric, answer_metric

BRIEF_WORDS = (2, 6)


@lru_cache(maxsize=4)  # all metrics of one answer are computed one after the other
def _scores(answer: str, reference: str) -> dict[str, float]:
    return trinity.score_trinity(answer, trinity.parse_trinity(reference))


def _metric(name: str) -> Metric:
    about = f"{name} of `escultor.skills.trinity.score_trinity`, against the author's own Trinity"
    scale = BINARY if name in trinity.EXACT else SHARE
    return answer_metric(about, lambda answer, reference: _scores(answer, reference)[name], scale)


def _is_valid(answer: str) -> bool:
    try:
        trinity.parse_trinity(answer)
    except DataError:
        return False
    return True


def is_brief(answer: str) -> bool:
    """Whether an answer is a Trinity whose summary has two to six words."""
    if not _is_valid(answer):
        return False
    words = trinity.parse_trinity(answer).summary.split()
    return BRIEF_WORDS[0] <= len(words) <= BRIEF_WORDS[1]


def _of_answer(about: str, holds: Callable[[str], bool]) -> Metric:
    """A metric that needs no reference, so that live answers can be measured by it, too."""
    return Metric(about, frozenset(("answer",)), BINARY, lambda output, item: float(holds(output.answer)))


METRICS: dict[str, Metric] = {
    **{name: _metric(name) for name in trinity.METRICS},
    "valid": _of_answer("the answer is a Trinity", _is_valid),
    "brief": _of_answer(f"a Trinity whose summary has {BRIEF_WORDS[0]} to {BRIEF_WORDS[1]} words", is_brief),
}
