"""Metrics of time windows: mergeable folds of the log, and the health computed from them.

Calls are counted by version and five minutes (`CallWindow`): memory grows with time, not with traffic. Votes
are kept one by one, since a later vote replaces an earlier one. Both folds are free of order, and the folds
of two parts of a log merge into that of the whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from escultor import stats
from escultor.errors import DataError
from escultor.monitor.buckets import BUCKET_S, CallCounts, Part, PartKey, fold_parts, of_versions, upper_ms
from escultor.monitor.traits import VALID
from escultor.store.feedback import THUMB, latest, precedence
from escultor.types import AnswerTraits, Estimate, Feedback, Health, Interaction, Rating, SourceKind

DAY_S = 86_400.0
ALPHA = 0.025  # one-sided: 95 % intervals
Z = 1.959963984540054  # of ALPHA
QUALITY = "quality"  # name of the ratings by judges and programs that the rule `quality` reads
GOOD = 0.5  # from which value on such a rating says that the answer is good
JUDGES = frozenset({SourceKind.LLM_JUDGE, SourceKind.CODE, SourceKind.RATER})

K = TypeVar("K")
CallWindow = Mapping[tuple[str, int], CallCounts]  # by version and the number of the five minutes


class Thumb(NamedTuple):
    """The latest vote of one subject on one answer; thumbs compare by precedence first."""

    precedence: tuple[float, bool, str]
    vote: int  # +1 up, -1 down, 0 withdrawn


Thumbs = Mapping[tuple[str, str], Thumb]  # by answer and subject


class AnswerRef(NamedTuple):
    """Which version gave an answer, when, to whom, and under which skill and arm."""

    version: str
    time: float
    subject: str = ""
    skill: str = ""
    arm: str = ""

    @property
    def part(self) -> Part:
        return Part(self.version, self.skill, self.arm)


class ThumbVote(NamedTuple):
    """A vote in force on an answer of a version."""

    time: float
    target: str
    subject: str
    is_down: bool
    answer: AnswerRef


@dataclass(frozen=True, slots=True)
class MetricsWindow:
    """What is known of a stretch of time: counts of calls, the votes in force on their answers, the votes of
    judges on their quality, and a sample of the answers' traits. `parts` are the counts by skill and arm of
    its last day."""

    calls: CallWindow = field(default_factory=dict)
    votes: Sequence[ThumbVote] = ()
    quality: Sequence[ThumbVote] = ()
    sample: Sequence[AnswerTraits] = ()
    parts: Mapping[PartKey, CallCounts] = field(default_factory=dict)


def fold_calls(interactions: Iterable[Interaction]) -> dict[tuple[str, int], CallCounts]:
    """Count interactions, each given once, by version and five minutes."""
    return of_versions(fold_parts(interactions, ()).values())


def merge_calls(a: Mapping[K, CallCounts], b: Mapping[K, CallCounts]) -> dict[K, CallCounts]:
    """The counts, by the same keys, of two logs that share no interaction."""
    return {
        key: a[key].merged(b[key]) if key in a and key in b else a.get(key) or b[key]
        for key in a.keys() | b.keys()
    }


def fold_thumbs(feedback: Iterable[Feedback], name: str = THUMB) -> dict[tuple[str, str], Thumb]:
    """The latest vote of each subject on each answer. Thumbs are boolean Ratings named `thumb`; those named
    `quality` are by judges and programs, from 0 to 1. A Revocation of that name withdraws an earlier one.
    Other feedback does not count."""
    thumbs: dict[tuple[str, str], Thumb] = {}
    for (target, subject, event_name), event in latest(feedback).items():
        if event_name == name:
            vote = 0
            if isinstance(event, Rating) and (isinstance(event.value, bool) or name == QUALITY):
                vote = 1 if float(event.value) >= GOOD else -1
            if name == QUALITY and event.source not in JUDGES:
                continue
            thumbs[target, subject] = Thumb(precedence(event), vote)
    return thumbs


def merge_thumbs(a: Thumbs, b: Thumbs) -> dict[tuple[str, str], Thumb]:
    """The latest thumbs of two logs together."""
    merged = dict(a)
    for key, thumb in b.items():
        merged[key] = max(merged.get(key, thumb), thumb)
    return merged


def votes_on(thumbs: Thumbs, answers: Mapping[str, AnswerRef]) -> list[ThumbVote]:
    """The thumbs in force on known answers, in the order they were given."""
    return sorted(
        ThumbVote(thumb.precedence[0], target, subject, thumb.vote < 0, answers[target])
        for (target, subject), thumb in thumbs.items()
        if thumb.vote and target in answers
    )


def fold(interactions: Iterable[Interaction], feedback: Iterable[Feedback] = ()) -> MetricsWindow:
    """The window of a whole log: each interaction once, and all feedback on them."""
    known = list(interactions)
    answers = {i.id: AnswerRef(i.version, i.time, i.subject) for i in known}
    return MetricsWindow(fold_calls(known), votes_on(fold_thumbs(feedback), answers))


def counts_between(window: MetricsWindow, version: str | None, since: float, until: float) -> CallCounts:
    """The counts of all five minutes that begin within [since, until), of one version or (None) of all."""
    first, last = math.ceil(since / BUCKET_S), math.ceil(until / BUCKET_S)
    total = CallCounts(version or "", first)
    if version is not None and last - first < len(window.calls):
        keys: Iterable[tuple[str, int]] = ((version, number) for number in range(first, last))
    else:
        keys = ((v, n) for v, n in window.calls if version in (None, v) and first <= n < last)
    for key in keys:
        if key in window.calls:
            total.absorb(window.calls[key])
    return total


def health(version: str, window: MetricsWindow, since: float, until: float) -> Health:
    """Estimates for the calls a version answered in [since, until), in seconds since the epoch. `since` is
    taken from the beginning of its five minutes.

    Shares have Wilson intervals, latencies (in steps of 1 %) bounds by order statistics (an upper bound of
    inf: too few calls), the daily cost the interval of a compound Poisson sum. Totals are counted, so their
    bounds are the totals. A vote belongs to the call that it rates, whenever it was given. Estimates with `n`
    0 carry no information, and their bounds say so. Raises DataError when the window has no length.
    """
    if not since < until:
        raise DataError("a window has no length", f"since {since}, until {until}", "since < until")
    begin = since // BUCKET_S * BUCKET_S
    calls = counts_between(window, version, begin, until)
    votes = [v for v in window.votes if v.answer.version == version and begin <= v.answer.time < until]
    n = calls.calls
    estimates = (
        _total("calls", n, n),
        _share("error_share", calls.failed, n),
        _share("rated_share", min(len({vote.target for vote in votes}), n), n),
        _share("thumbs_down_share", sum(vote.is_down for vote in votes), len(votes)),
        _latency("latency_p50_ms", calls.latencies, 0.5),
        _latency("latency_p99_ms", calls.latencies, 0.99),
        _latency("ttft_p50_ms", calls.first_tokens, 0.5),
        _latency("ttft_p99_ms", calls.first_tokens, 0.99),
        _total("prompt_tokens", calls.prompt_tokens, n),
        _total("completion_tokens", calls.completion_tokens, n),
        _total("cost_usd", calls.cost_usd, n),
        _daily_cost(calls, until - begin),
        *_sampled(window, version, begin, until),
    )
    return Health(version, since, until, estimates)


def _sampled(window: MetricsWindow, version: str, since: float, until: float) -> Iterable[Estimate]:
    """Shares of the sampled answers: refusals, valid calls of tools, and the quality that programs see."""
    rows = [r.traits for r in window.sample if r.version == version and since <= r.time < until]
    for name, trait, wanted in (
        ("refusal_share", "answer_refusal", "yes"),
        ("valid_calls_share", "answer_calls", VALID),
        ("valid_form_share", "answer_form", VALID),
    ):
        found = [traits[trait] for traits in rows if trait in traits]
        yield _share(name, found.count(wanted), len(found))
    judged = [v for v in window.quality if v.answer.version == version and since <= v.answer.time < until]
    yield _share("quality", sum(not v.is_down for v in judged), len(judged))


def _total(name: str, value: float, n: int) -> Estimate:
    return Estimate(name, float(value), float(value), float(value), n)


def _share(name: str, count: int, n: int) -> Estimate:
    low, high = stats.wilson(count, n, ALPHA)
    return Estimate(name, count / n if n else 0.0, low, high, n)


def _latency(name: str, latencies: Counter[int], q: float) -> Estimate:
    if not latencies:
        return Estimate(name, 0.0, 0.0, math.inf, 0)
    at_q = stats.quantile_of_counts({upper_ms(step): n for step, n in latencies.items()}, q, ALPHA)
    low = 0.0 if at_q.low is None else at_q.low
    return Estimate(name, at_q.value, low, math.inf if at_q.high is None else at_q.high, at_q.n)


def _daily_cost(calls: CallCounts, seconds: float) -> Estimate:
    """The cost of a day at this rate, in dollars. For calls at random times (Poisson) the variance of the sum
    of their costs is the sum of their squares."""
    spent, days = calls.cost_usd, seconds / DAY_S
    half = Z * math.sqrt(calls.cost_squared)
    # A whole day costs at least what a part of it has cost already.
    low = max(spent if days <= 1 else 0.0, (spent - half) / days)
    high = (spent + half) / days if calls.calls else math.inf
    return Estimate("cost_usd_per_day", spent / days, low, high, calls.calls)
