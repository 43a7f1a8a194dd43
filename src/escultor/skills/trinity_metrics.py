"""The figures of a Trinity against the one that its document's author wrote, as metrics of a suite."""

from __future__ import annotations

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


def is_brief(answer: str) -> bool:
    """Whether an answer is a Trinity whose summary has two to six words."""
    try:
        words = trinity.parse_trinity(answer).summary.split()
    except DataError:
        return False
    return BRIEF_WORDS[0] <= len(words) <= BRIEF_WORDS[1]


METRICS: dict[str, Metric] = {
    **{name: _metric(name) for name in trinity.METRICS},
    "brief": answer_metric(
        f"a Trinity whose summary has {BRIEF_WORDS[0]} to {BRIEF_WORDS[1]} words",
        lambda answer, reference: float(is_brief(answer)),
        BINARY,
    ),
}
