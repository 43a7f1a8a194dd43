"""The figures of a Trinity against the one that its document's author wrote, as metrics of a suite."""

from __future__ import annotations

from functools import lru_cache

from escultor.skills import trinity
from escultor.skills.table import BINARY, SHARE, Metric, answer_metric


@lru_cache(maxsize=4)  # all metrics of one answer are computed one after the other
def _scores(answer: str, reference: str) -> dict[str, float]:
    return trinity.score_trinity(answer, trinity.parse_trinity(reference))


def _metric(name: str) -> Metric:
    about = f"{name} of `escultor.skills.trinity.score_trinity`, against the author's own Trinity"
    scale = BINARY if name in trinity.EXACT else SHARE
    return answer_metric(about, lambda answer, reference: _scores(answer, reference)[name], scale)


METRICS: dict[str, Metric] = {name: _metric(name) for name in trinity.METRICS}
