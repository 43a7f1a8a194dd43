"""What the gate measures: each metric's paired difference, its test or bound, and how many items would do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from escultor import stats
from escultor.config import Gate
from escultor.evaluate.gate.requirements import scale_of
from escultor.rng import derive_seed
from escultor.types import Effect, Scores, Slice

INTERVAL_ALPHA = 0.025  # every interval that is shown is a 95 % interval
POWER_RESERVE = 0.9  # of the power that a plan may lack: approximations and drawn p-values use up the rest
MIN_SLICE_ITEMS = 10  # smaller parts of a suite are not measured


@dataclass(frozen=True, slots=True)
class MeasuredEffect:
    """An effect, and what the verdict needs beside it."""

    effect: Effect
    p_worse: float  # one-sided, of `the candidate is not worse`; tested for primaries only
    holds_over_items: bool = True  # and not over clusters alone, where they differ in size
    needs: tuple[stats.Condition, ...] = ()  # in clusters: to be shown better, or within its margin


@dataclass(frozen=True, slots=True)
class _Paired:
    """Both sides of one metric as means of clusters, and how far a difference can lie."""

    old: stats.Array  # (G,)
    new: stats.Array
    gaps: stats.Array  # candidate minus champion, in the direction in which more is better
    items: stats.Grouping  # the cluster of each item
    floor: float
    ceiling: float
    lower_is_better: bool
    seed: int

    @property
    def clusters(self) -> stats.Grouping:
        """Each cluster by itself."""
        return stats.Grouping(np.arange(len(self.gaps)), np.ones(len(self.gaps)))

    @property
    def is_binary(self) -> bool:
        """Zeros and ones: a loss is never larger than a win."""
        return bool(np.isin(self.old, (0, 1)).all() and np.isin(self.new, (0, 1)).all())

    def bound(self, alpha: float, null: float) -> stats.Bound:
        """The mean over clusters with distribution-free bounds."""
        return stats.bounded_mean(
            self.gaps, self.clusters, alpha, self.seed, floor=self.floor, ceiling=self.ceiling, null=null
        )

    def bound_of_items(self, alpha: float, null: float, largest: int = 1) -> stats.Bound:
        """The mean over items with such bounds, where no cluster has more items than `largest`."""
        return stats.bounded_mean(
            self.gaps[self.items.codes],
            self.items,
            alpha,
            self.seed,
            floor=self.floor,
            ceiling=self.ceiling,
            null=null,
            largest=largest,
        )

    def holds_over_items(self, of_items: stats.Bound) -> bool:
        """Whether a bound over items holds, were the cluster unseen as large as that of the average item."""
        sizes = self.items.sizes
        return of_items.largest >= float(sizes @ sizes) / len(self.items)

    def largest_cluster(self, of_items: stats.Bound) -> int | None:
        """Up to which size of clusters it holds: 0 where a larger one is among those seen, None for any."""
        if math.isinf(of_items.largest):
            return None
        return int(of_items.largest) if of_items.largest >= self.items.sizes.max() else 0


def measure(
    champion: Scores, candidate: Scores, policy: Gate, alpha: float, seed: int
) -> tuple[MeasuredEffect, ...]:
    """All metrics that both sides have: primaries (p-values Holm-adjusted, tested at `alpha`), guards, and
    the rest as `info`. Draws are seeded by metric, so swapped sides use the same ones."""
    primary = tuple(dict.fromkeys(policy.primary))
    shared = champion.metrics.keys() & candidate.metrics.keys()
    info = sorted(shared - {*primary, *policy.guards})
    groups = stats.grouped(champion.clusters)

    def paired(metric: str) -> _Paired:
        return _paired(champion, candidate, metric, groups, derive_seed(seed, "gate", metric))

    tested = [_primary(paired(m), m, alpha / len(primary), policy.alpha / len(primary)) for m in primary]
    p_better = stats.holm([m.effect.p_value for m in tested])
    p_worse = stats.holm([m.p_worse for m in tested])
    return (
        *(_with_state(m, alpha, p, q) for m, p, q in zip(tested, p_better, p_worse, strict=True)),
        *(_guard(paired(m), m, margin, policy) for m, margin in policy.guards.items()),
        *(_info(paired(m), m) for m in info),
    )


def _paired(champion: Scores, candidate: Scores, metric: str, groups: stats.Grouping, seed: int) -> _Paired:
    sums = [stats.cluster_sums(scores.metrics[metric], groups)[0] for scores in (champion, candidate)]
    old, new = (side / groups.sizes for side in sums)
    scale = scale_of(champion.scales, metric)
    lower = scale.better == "lower"
    gaps = old - new if lower else new - old
    # The worst difference of an unseen item: the whole width of a bounded scale; where it has its worst value
    # alone, from the champion's best to that; else the worst one seen.
    width = 0.0 if scale.least is None or scale.most is None else scale.most - scale.least
    worst, best = (scale.most, old.min()) if lower else (scale.least, old.max())
    loss = 0.0 if worst is None or width else abs(float(best) - worst)
    floor, ceiling = min(-width, -loss, float(gaps.min())), max(width, float(gaps.max()))
    return _Paired(old, new, gaps, groups, floor=floor, ceiling=ceiling, lower_is_better=lower, seed=seed)


def _effect(s: _Paired, metric: str, role: Literal["primary", "guard", "info"]) -> Effect:
    interval = stats.bootstrap_mean(
        s.gaps, s.clusters, INTERVAL_ALPHA, s.seed, floor=s.floor, ceiling=s.ceiling
    )
    return Effect(
        metric=metric,
        role=role,
        n=len(s.items),
        clusters=len(s.gaps),
        champion=float(s.old.mean()),
        candidate=float(s.new.mean()),
        difference=float(s.gaps.mean()),
        low=interval.low,
        high=interval.high,
        p_value=1.0,
        margin=0.0,
        state="told",
        lower_is_better=s.lower_is_better,
    )


def _primary(s: _Paired, metric: str, alpha: float, harm_alpha: float) -> MeasuredEffect:
    effect, clusters = _effect(s, metric, "primary"), len(s.gaps)
    needs = stats.Condition(
        slack=effect.difference,
        spread=stats.standard_error_of_one(s.gaps, s.clusters),
        alpha=alpha,
        step=0.0 if s.is_binary else stats.score_step(s.gaps),
        seen=clusters,
    )
    if s.is_binary:
        wins, losses = int(np.count_nonzero(s.gaps > 0)), int(np.count_nonzero(s.gaps < 0))
        better, worse = stats.mcnemar(wins, losses, clusters), stats.mcnemar(losses, wins, clusters)
        measured = MeasuredEffect(replace(effect, p_value=better), worse, needs=(needs,))
    else:
        # Flipping signs presumes that gains and losses are alike; losses that are rare and large pass unseen.
        test, bound = stats.sign_flip(s.gaps, s.clusters, alpha, s.seed), s.bound(harm_alpha, 0.0)
        harmless = replace(needs, alpha=harm_alpha, step=0.0, harm=effect.difference - s.floor)
        effect = replace(effect, p_value=test.better, bound=bound.low)
        measured = MeasuredEffect(effect, test.worse, needs=(needs, harmless))
    if len(np.unique(s.items.sizes)) == 1:
        return measured
    of_items = s.bound_of_items(harm_alpha, 0.0)
    effect = replace(measured.effect, largest_cluster=s.largest_cluster(of_items))
    return replace(measured, effect=effect, holds_over_items=s.holds_over_items(of_items))


def _with_state(m: MeasuredEffect, alpha: float, p_better: float, p_worse: float) -> MeasuredEffect:
    is_harmless = (m.effect.bound is None or m.effect.bound > 0) and m.holds_over_items
    state = "better" if p_better <= alpha and is_harmless else "worse" if p_worse <= alpha else "open"
    effect = replace(m.effect, p_value=p_better, level=alpha, state=state)
    return replace(m, effect=effect, p_worse=p_worse)


def _guard(s: _Paired, metric: str, margin: float, policy: Gate) -> MeasuredEffect:
    bound, alpha, stated = s.bound(policy.alpha, -margin), policy.alpha, policy.largest_cluster
    is_single = len(s.items) == len(s.gaps) and stated is None
    of_items = bound if is_single else s.bound_of_items(alpha, -margin, stated or 1)
    low, p_value = bound.low, bound.p_value
    if stated is not None:
        low, p_value = min(low, of_items.low), max(p_value, of_items.p_value)
    is_kept = low > -margin and s.holds_over_items(of_items)
    effect = replace(
        _effect(s, metric, "guard"),
        p_value=p_value,
        margin=margin,
        level=alpha,
        bound=low,
        state="kept" if is_kept else "broken" if bound.high < -margin else "open",
        largest_cluster=s.largest_cluster(of_items),
    )
    clusters = len(s.gaps)
    needs = stats.Condition(
        slack=bound.value + margin,
        spread=stats.standard_error_of_one(s.gaps, s.clusters),
        alpha=alpha,
        harm=bound.value - s.floor,
        seen=clusters,
    )
    if stated is None:
        return MeasuredEffect(effect, 1.0, needs=(needs,))
    average = float(s.gaps @ s.items.sizes) / len(s.items)
    spread = stats.standard_error(s.gaps * s.items.sizes, s.items.sizes) * math.sqrt(clusters)
    harm = (average - s.floor) * stated * clusters / len(s.items)
    needs_of_items = replace(needs, slack=average + margin, spread=spread, harm=harm)
    return MeasuredEffect(effect, 1.0, needs=(needs, needs_of_items))


def _info(s: _Paired, metric: str) -> MeasuredEffect:
    return MeasuredEffect(_effect(s, metric, "info"), 1.0)


def items_needed(measured: Sequence[MeasuredEffect], policy: Gate, minimum: int) -> int | None:
    """Fresh items with which one primary would be shown better and every guard within its margin, together
    with the policy's power, if that is so (see `stats.Condition`); at least `minimum`. None where no number
    would be enough."""
    guards = [need for m in measured if m.effect.role == "guard" for need in m.needs]
    power = 1 - POWER_RESERVE * (1 - policy.power)
    enough = []
    for primary in (m for m in measured if m.effect.role == "primary"):
        # Its test and its bound rest on the same mean: the one that needs more items decides.
        numbers = [stats.n_to_meet([need, *guards], power) for need in primary.needs]
        enough += [max(n for n in numbers if n is not None)] if None not in numbers else []
    per_cluster = max((m.effect.n / m.effect.clusters for m in measured), default=1.0)
    return max(minimum, math.ceil(min(enough) * per_cluster)) if enough else None


def slices(champion: Scores, candidate: Scores, policy: Gate, seed: int) -> tuple[Slice, ...]:
    """Every primary on every part of the suite that has at least ten items; 95 % intervals, no verdicts."""
    measured = []
    for way, labels in sorted(champion.slices.items()):
        members: dict[str, list[int]] = {}
        for index, label in enumerate(labels):
            members.setdefault(label, []).append(index)
        for name, indices in sorted(members.items()):
            if len(indices) < MIN_SLICE_ITEMS:
                continue
            old, new = (_part(scores, indices, policy) for scores in (champion, candidate))
            groups = stats.grouped(old.clusters)
            for metric in dict.fromkeys(policy.primary):
                paired = _paired(old, new, metric, groups, derive_seed(seed, "slice", metric, way, name))
                e = _effect(paired, metric, "info")
                figures = (e.n, e.champion, e.candidate, e.difference, e.low, e.high)
                measured.append(Slice(way, name, metric, *figures))
    return tuple(measured)


def _part(scores: Scores, indices: Sequence[int], policy: Gate) -> Scores:
    metrics = {m: tuple(scores.metrics[m][i] for i in indices) for m in policy.primary}
    return replace(scores, clusters=tuple(scores.clusters[i] for i in indices), metrics=metrics)
