"""How many items a policy and a wished effect need, before anything is measured. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from escultor import stats
from escultor.config import Gate
from escultor.errors import InputError
from escultor.evaluate.gate.alpha_spending import alpha_at
from escultor.evaluate.gate.effects import POWER_RESERVE
from escultor.evaluate.gate.requirements import clusters_needed, requirements, scale_of
from escultor.types import Scale


@dataclass(frozen=True, slots=True)
class ExpectedComparison:
    """What is expected of a comparison, on scales of width 1.

    effect        wished gain on a primary
    differing     of 0/1 scores: the share of items that one side alone gets right; None for other scores
    spread        of other scores: the standard deviation of an item's difference
    decodings     answers of either side to an item, averaged
    noise         share of the variance of an item's difference that another decoding draws anew
    cluster_size  items of a cluster
    correlation   of the differences of two items of a cluster
    failing       share of items on which either side fails a guard, by itself
    """

    effect: float
    differing: float | None = None
    spread: float | None = None
    decodings: int = 1
    noise: float = 0.0
    cluster_size: int = 1
    correlation: float = 0.0
    failing: float = 0.0

    @property
    def is_binary(self) -> bool:
        return self.differing is not None and self.decodings == self.cluster_size == 1

    def spread_of_clusters(self) -> float:
        """The standard deviation of a cluster's mean difference."""
        variance = self.spread**2 if self.spread is not None else (self.differing or 0.0) - self.effect**2
        variance *= self.noise / self.decodings + 1 - self.noise
        return math.sqrt(variance * self._shared())

    def _shared(self) -> float:
        return (1 + (self.cluster_size - 1) * self.correlation) / self.cluster_size

    def spread_of_guards(self) -> float:
        return math.sqrt(2 * self.failing * (1 - self.failing) * self._shared())


class Needed(NamedTuple):
    """The clusters that one metric needs by itself; None where no number is enough."""

    metric: str
    role: Literal["primary", "guard"]
    clusters: int | None


class ItemPlan(NamedTuple):
    """The items and clusters with which a promotion has the policy's power, and the answers of either side;
    None where no number is enough."""

    items: int | None
    clusters: int | None
    answers: int | None
    metrics: tuple[Needed, ...]


def check_expected(e: ExpectedComparison) -> None:
    """Raises InputError where the figures contradict each other."""
    if (e.differing is None) == (e.spread is None):
        raise InputError(
            "the spread of the scores is stated in one way", "both or none", "differing or spread"
        )
    if e.effect <= 0:
        raise InputError("the wished effect is not a gain", e.effect, "a number above 0")
    if e.differing is not None and not e.effect <= e.differing <= 1:
        what = "a gain needs at least as many items that differ"
        raise InputError(what, f"effect {e.effect}, differing {e.differing}", "effect <= differing <= 1")
    if e.decodings > 1 and e.noise == 0:
        raise InputError(
            "several decodings gain nothing without noise", f"{e.decodings} decodings", "a noise above 0"
        )


def plan(policy: Gate, expected: ExpectedComparison, scales: Mapping[str, Scale] | None = None) -> ItemPlan:
    """What a first analysis of a suite needs. Guards are planned for a candidate that equals the champion on
    them; those without an upper limit of their scale have no number."""
    check_expected(expected)
    primaries = policy.primary or ("primary",)
    power = 1 - POWER_RESERVE * (1 - policy.power)
    test = stats.Condition(
        slack=expected.effect,
        spread=expected.spread_of_clusters(),
        alpha=alpha_at(1, policy) / len(primaries),
    )
    harm_alpha = policy.alpha / len(primaries)
    bound = replace(test, alpha=harm_alpha, harm=1 + expected.effect)
    guards = {}
    for metric, margin in policy.guards.items():
        scale = scale_of(scales or {}, metric)
        if scale.least is not None and scale.most is not None:
            width = scale.most - scale.least
            spread = width * expected.spread_of_guards()
            guards[metric] = stats.Condition(margin, spread, policy.alpha, harm=width)
    own = [test] if expected.is_binary else [test, bound]
    least = clusters_needed(requirements(policy.model_copy(update={"primary": primaries}), scales))
    least = max(least, math.ceil(policy.min_items / expected.cluster_size))

    def needed(*conditions: stats.Condition) -> int | None:
        return stats.n_to_meet(conditions, power)

    def most(numbers: list[int | None]) -> int | None:
        known = [n for n in numbers if n is not None]
        return max([*known, least]) if len(known) == len(numbers) else None

    clusters = most([needed(condition, *guards.values()) for condition in own])
    alone = most([needed(condition) for condition in own])
    items = None if clusters is None else clusters * expected.cluster_size
    return ItemPlan(
        items=items,
        clusters=clusters,
        answers=None if items is None else items * expected.decodings,
        metrics=(
            *(Needed(metric, "primary", alone) for metric in primaries),
            *(Needed(metric, "guard", most([needed(condition)])) for metric, condition in guards.items()),
        ),
    )
