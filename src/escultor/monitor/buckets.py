"""Counts of calls by version, skill, arm and five minutes, exact under merging: sums of whole numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from escultor.types import FAILED, CountedCalls, Interaction

BUCKET_S = 300.0
NANO = 1_000_000_000  # costs are summed in nano-dollars, so that no order of summing matters
_STEP = math.log(1.01)  # latencies are counted in steps of 1 %
SUMS = (
    "calls",
    "failed",
    "prompt_tokens",
    "completion_tokens",
    "cost_nano_usd",
    "cost_nano_usd_squared",
)
TIMES = ("latencies", "first_tokens")
OTHER = "other"  # skills that nobody declared: a client may give any text


class Part(NamedTuple):
    """What a version answers under one skill and arm."""

    version: str
    skill: str
    arm: str


PartKey = tuple[Part, int]  # with the number of the five minutes


@dataclass(slots=True)
class CallCounts:
    """Counts of the calls of one version that began within five minutes, of one skill and arm or of all.
    `latencies` counts the answered calls by the step of their latency (`upper_ms`), `first_tokens` by that of
    their time to the first token: the time of a failed call says nothing about answers."""

    version: str
    number: int  # of the five minutes since the epoch
    calls: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano_usd: int = 0
    cost_nano_usd_squared: int = 0
    latencies: Counter[int] = field(default_factory=Counter)
    first_tokens: Counter[int] = field(default_factory=Counter)
    skill: str = ""  # with `arm`; empty: all
    arm: str = ""

    @property
    def key(self) -> PartKey:
        return Part(self.version, self.skill, self.arm), self.number

    @property
    def cost_usd(self) -> float:
        return self.cost_nano_usd / NANO

    @property
    def cost_squared(self) -> float:
        """The sum of the squared costs of the calls, in dollars²."""
        return self.cost_nano_usd_squared / NANO**2

    def add(self, i: Interaction) -> None:
        """Count one interaction."""
        cost, has_failed = round(i.cost_usd * NANO), i.finish_reason in FAILED
        self.calls += 1
        self.failed += has_failed
        self.prompt_tokens += i.usage.prompt_tokens
        self.completion_tokens += i.usage.completion_tokens
        self.cost_nano_usd += cost
        self.cost_nano_usd_squared += cost * cost
        if not has_failed:
            self.latencies[latency_step(i.latency_ms)] += 1
            if i.ttft_ms is not None:
                self.first_tokens[latency_step(i.ttft_ms)] += 1

    def merged(self, other: CallCounts) -> CallCounts:
        """The counts of both, under this one's key."""
        copies = {name: getattr(self, name).copy() for name in TIMES}
        return replace(self, **copies).absorb(other)

    def absorb(self, other: CallCounts) -> CallCounts:
        """Add the counts of another to this one, and return it."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in TIMES:
            getattr(self, name).update(getattr(other, name))
        return self


def fold_parts(interactions: Iterable[Interaction], skills: Container[str]) -> dict[PartKey, CallCounts]:
    """Count interactions, each given once, by version, skill, arm and five minutes. Skills that are not among
    `skills` count as `OTHER`, so that their number is bounded."""
    window: dict[PartKey, CallCounts] = {}
    for i in interactions:
        key = part_of(i, skills), int(i.time // BUCKET_S)
        if key not in window:
            part, number = key
            window[key] = CallCounts(part.version, number, skill=part.skill, arm=part.arm)
        window[key].add(i)
    return window


def part_of(i: Interaction, skills: Container[str]) -> Part:
    """Under which version, skill and arm an interaction counts."""
    return Part(i.version, i.skill if i.skill in skills else OTHER, i.arm)


def of_versions(parts: Iterable[CallCounts]) -> dict[tuple[str, int], CallCounts]:
    """The counts of all skills and arms together, by version and five minutes."""
    window: dict[tuple[str, int], CallCounts] = {}
    for counts in parts:
        key = counts.version, counts.number
        # Copies only where there is something to add: most versions answer under one skill and arm.
        window[key] = window[key].merged(counts) if key in window else replace(counts, skill="", arm="")
    return window


def slower_than(times: Counter[int], limit_ms: float) -> int:
    """Calls whose time is above a limit, to a step of 1 %."""
    return sum(n for step, n in times.items() if upper_ms(step) > limit_ms)


def as_record(counts: CallCounts) -> CountedCalls:
    """The counts as the log keeps them."""
    times: dict[str, Any] = {name: tuple(sorted(getattr(counts, name).items())) for name in TIMES}
    return CountedCalls(**_same(counts), **times)


def from_record(record: CountedCalls) -> CallCounts:
    """The counts of such a record."""
    times: dict[str, Any] = {name: Counter(dict(getattr(record, name))) for name in TIMES}
    return CallCounts(**_same(record), **times)


def _same(counts: CallCounts | CountedCalls) -> dict[str, Any]:
    """The fields that counts and their record have alike."""
    return {name: getattr(counts, name) for name in ("version", "number", *SUMS, "skill", "arm")}


def latency_step(ms: float) -> int:
    """The step of a latency: the smallest whose `upper_ms` is not below it."""
    return math.ceil(math.log(max(ms, 1e-3)) / _STEP - 1e-9)


def upper_ms(step: int) -> float:
    """The largest latency of a step, in milliseconds."""
    return math.exp(step * _STEP)
