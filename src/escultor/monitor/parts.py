"""Health by skill and arm, of the versions that answered under more than one."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

from escultor.monitor.buckets import BUCKET_S, CallCounts, Part
from escultor.monitor.metrics import MetricsWindow, ThumbVote, health
from escultor.types import AnswerTraits, Health


@dataclass(slots=True)
class _Window:
    """A window in the making."""

    calls: dict[tuple[str, int], CallCounts] = field(default_factory=dict)
    votes: list[ThumbVote] = field(default_factory=list)
    quality: list[ThumbVote] = field(default_factory=list)
    sample: list[AnswerTraits] = field(default_factory=list)


def split(window: MetricsWindow, since: float, until: float) -> dict[Part, MetricsWindow]:
    """The windows of each version, skill and arm that answered in [since, until), `since` taken from the
    beginning of its five minutes. Their sum is what the window has of that time."""
    begin = since // BUCKET_S * BUCKET_S
    found: defaultdict[Part, _Window] = defaultdict(_Window)
    for (part, number), counts in window.parts.items():
        if begin <= number * BUCKET_S < until:
            found[part].calls[part.version, number] = counts
    for name in ("votes", "quality"):
        for vote in getattr(window, name):
            if begin <= vote.answer.time < until and vote.answer.part in found:
                getattr(found[vote.answer.part], name).append(vote)
    for row in window.sample:
        if begin <= row.time < until and (part := Part(row.version, row.skill, row.arm)) in found:
            found[part].sample.append(row)
    return {part: MetricsWindow(w.calls, w.votes, w.quality, w.sample) for part, w in found.items()}


def health_of_parts(
    window: MetricsWindow, since: float, until: float, limit: int
) -> tuple[list[Health], int]:
    """The health of each skill and arm of the versions that answered under more than one in [since, until),
    those with most calls first, and how many beyond `limit` were left out."""
    windows = split(window, since, until)
    of_version = Counter(part.version for part in windows)
    calls = {part: _calls(w) for part, w in windows.items() if of_version[part.version] > 1}
    shown = sorted(calls, key=lambda part: (-calls[part], part))
    healths = [
        replace(health(part.version, windows[part], since, until), skill=part.skill, arm=part.arm)
        for part in shown[:limit]
    ]
    return healths, max(0, len(shown) - limit)


def _calls(window: MetricsWindow) -> int:
    return sum(counts.calls for counts in window.calls.values())
