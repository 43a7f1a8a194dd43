"""What the gate measures: each metric's paired difference, its test or bound, and how many items would do."""

from __future__ import annotations

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
    needs: stats.Condition  # for this metric to be shown better, or within its margin


@dataclass(frozen=True, slots=True)
class _Paired:
    """Both sides of one metric, item by item, and how far a difference can lie."""

    old: stats.Array  # (N,)
    new: stats.Array
    gaps: stats.Array  # candidate minus champion, in the direction in which more is better
    groups: stats.Grouping
    floor: float
    ceiling: float
    lower_is_better: bool
    seed: int

    @property
    def is_binary(self) -> bool:
        """Zeros and ones, each item a cluster of its own."""
        alone = len(self.groups.sizes) == len(self.gaps)
        return alone and bool(np.isin(self.old, (0, 1)).all() and np.isin(self.new, (0, 1)).all())

    @property
    def per_cluster(self) -> float:
        return len(self.gaps) / len(self.groups.sizes)


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

    tested = [_primary(paired(m), m, alpha, len(primary)) for m in primary]
    p_better = stats.holm([m.effect.p_value for m in tested])
    p_worse = stats.holm([m.p_worse for m in tested])
    return (
        *(_with_state(m, p, q) for m, p, q in zip(tested, p_better, p_worse, strict=True)),
        *(_guard(paired(m), m, margin, policy.alpha) for m, margin in policy.guards.items()),
        *(_info(paired(m), m) for m in info),
    )


def _paired(champion: Scores, candidate: Scores, metric: str, groups: stats.Grouping, seed: int) -> _Paired:
    old, new = (np.asarray(s.metrics[metric], dtype=np.float64) for s in (champion, candidate))
    scale = scale_of(champion.scales, metric)
    lower = scale.better == "lower"
    gaps = old - new if lower else new - old
    # The worst difference of an unseen item: the whole width of a bounded scale; else the worst one seen.
    width = 0.0 if scale.least is None or scale.most is None else scale.most - scale.least
    floor, ceiling = min(-width, float(gaps.min())), max(width, float(gaps.max()))
    return _Paired(old, new, gaps, groups, floor=floor, ceiling=ceiling, lower_is_better=lower, seed=seed)


def _effect(s: _Paired, metric: str, role: Literal["primary", "guard", "info"]) -> Effect:
    interval = stats.bootstrap_mean(
        s.gaps, s.groups, INTERVAL_ALPHA, s.seed, floor=s.floor, ceiling=s.ceiling
    )
    return Effect(
        metric=metric,
        role=role,
        n=len(s.gaps),
        clusters=len(s.groups.sizes),
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


def _primary(s: _Paired, metric: str, alpha: float, primaries: int) -> MeasuredEffect:
    each = alpha / primaries
    if s.is_binary:
        wins, losses = int(np.count_nonzero(s.gaps > 0)), int(np.count_nonzero(s.gaps < 0))
        test = stats.SignFlip(stats.mcnemar(wins, losses), stats.mcnemar(losses, wins))
    else:
        test = stats.sign_flip(s.gaps, s.groups, each, s.seed)
    effect = replace(_effect(s, metric, "primary"), p_value=test.better, level=alpha)
    needs = stats.Condition(
        slack=effect.difference,
        spread=stats.standard_error_of_one(s.gaps, s.groups),
        alpha=each,
        per_cluster=s.per_cluster,
        step=stats.score_step(s.gaps),
        seen=effect.n,
    )
    return MeasuredEffect(effect, test.worse, needs)


def _with_state(m: MeasuredEffect, p_better: float, p_worse: float) -> MeasuredEffect:
    alpha = m.effect.level
    state = "better" if p_better <= alpha else "worse" if p_worse <= alpha else "open"
    return replace(m, effect=replace(m.effect, p_value=p_better, state=state), p_worse=p_worse)


def _guard(s: _Paired, metric: str, margin: float, alpha: float) -> MeasuredEffect:
    bound = stats.bounded_mean(
        s.gaps, s.groups, alpha, s.seed, floor=s.floor, ceiling=s.ceiling, null=-margin
    )
    state = "kept" if bound.low > -margin else "broken" if bound.high < -margin else "open"
    effect = replace(
        _effect(s, metric, "guard"),
        p_value=bound.p_value,
        margin=margin,
        level=alpha,
        bound=bound.low,
        state=state,
    )
    needs = stats.Condition(
        slack=bound.value + margin,
        spread=stats.standard_error_of_one(s.gaps, s.groups),
        alpha=alpha,
        harm=bound.value - s.floor,
        per_cluster=s.per_cluster,
        seen=len(s.gaps),
    )
    return MeasuredEffect(effect, 1.0, needs)


def _info(s: _Paired, metric: str) -> MeasuredEffect:
    return MeasuredEffect(_effect(s, metric, "info"), 1.0, stats.Condition(0.0, 0.0, INTERVAL_ALPHA))


def items_needed(measured: Sequence[MeasuredEffect], policy: Gate, minimum: int) -> int | None:
    """Fresh items with which one primary would be shown better and every guard within its margin, together
    with the policy's power, if that is so (see `stats.Condition`); at least `minimum`. None where no number
    would be enough."""
    guards = [m.needs for m in measured if m.effect.role == "guard"]
    power = 1 - POWER_RESERVE * (1 - policy.power)
    numbers = [stats.n_to_meet([m.needs, *guards], power) for m in measured if m.effect.role == "primary"]
    enough = [number for number in numbers if number is not None]
    return max(minimum, min(enough)) if enough else None


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
