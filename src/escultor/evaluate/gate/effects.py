"""What the gate measures: each metric's paired difference, its test or bound, and what would be enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from escultor import stats
from escultor.config import Gate
from escultor.rng import derive_seed
from escultor.types import Effect, Scale, Scores, Slice

SHOWN = 0.025  # one-sided: every interval that is shown is one of 95 %
RESERVE = 0.9  # of the power that a plan may lack: normal approximations and drawn p-values cost the rest
SLICE_ITEMS = 10  # smaller parts of a suite are counted, not measured

# Of scores that carry no scales: nothing bounds these from above; every other metric is a share.
_UNSCALED = frozenset(
    {"bits_per_byte", "document_bits_per_byte", "perplexity", "nll", "latency_ms", "cost_usd"}
)


def scale_of(scores: Scores, metric: str) -> Scale:
    """What the numbers of a metric mean."""
    if metric in scores.scales:
        return scores.scales[metric]
    return Scale("lower", most=None) if metric in _UNSCALED else Scale()


@dataclass(frozen=True, slots=True)
class Measured:
    """An effect with what the verdict needs beside it."""

    effect: Effect
    p_worse: float  # one-sided, of `the candidate is not worse`; only primaries are tested for it
    needs: stats.Condition  # for this metric to be shown better, or kept


@dataclass(frozen=True, slots=True)
class _Sides:
    """Both sides of one metric, and how far an item can lie."""

    old: stats.Array
    new: stats.Array
    gaps: stats.Array
    groups: stats.Grouping
    floor: float
    ceiling: float
    lower_is_better: bool
    seed: int

    @property
    def binary(self) -> bool:
        """Zeros and ones, each item a cluster of its own."""
        alone = len(self.groups.sizes) == len(self.gaps)
        return alone and bool(np.isin(self.old, (0, 1)).all() and np.isin(self.new, (0, 1)).all())


def measure(
    champion: Scores, candidate: Scores, policy: Gate, level: float, seed: int
) -> tuple[Measured, ...]:
    """All metrics that both sides hold: primaries (p-values Holm-adjusted, tested at `level`), guards, and
    the rest as `info`. Draws are named by seed and metric, so swapped sides meet the same ones."""
    primary = tuple(dict.fromkeys(policy.primary))
    shared = champion.metrics.keys() & candidate.metrics.keys()
    info = sorted(shared - {*primary, *policy.guards})
    groups = stats.grouped(champion.clusters)

    def sides(metric: str) -> _Sides:
        return _sides(champion, candidate, metric, groups, derive_seed(seed, "gate", metric))

    judged = [_primary(sides(m), m, level, len(primary)) for m in primary]
    p_better = stats.holm([m.effect.p_value for m in judged])
    p_worse = stats.holm([m.p_worse for m in judged])
    return (
        *(_stated(m, p, q) for m, p, q in zip(judged, p_better, p_worse, strict=True)),
        *(_guard(sides(m), m, margin, policy.level) for m, margin in policy.guards.items()),
        *(_told(sides(m), m) for m in info),
    )


def _sides(champion: Scores, candidate: Scores, metric: str, groups: stats.Grouping, seed: int) -> _Sides:
    old, new = (np.asarray(s.metrics[metric], dtype=np.float64) for s in (champion, candidate))
    scale = scale_of(champion, metric)
    lower = scale.better == "lower"
    gaps = old - new if lower else new - old
    # The worst an unseen item may bring: the whole of a bounded scale; elsewhere the worst item seen.
    width = 0.0 if scale.least is None or scale.most is None else scale.most - scale.least
    floor, ceiling = min(-width, float(gaps.min())), max(width, float(gaps.max()))
    return _Sides(old, new, gaps, groups, floor, ceiling, lower, seed)


def _effect(s: _Sides, metric: str, role: Literal["primary", "guard", "info"]) -> Effect:
    shown = stats.bootstrap_mean(s.gaps, s.groups, SHOWN, s.seed, floor=s.floor, ceiling=s.ceiling)
    return Effect(
        metric,
        role,
        len(s.gaps),
        len(s.groups.sizes),
        float(s.old.mean()),
        float(s.new.mean()),
        float(s.gaps.mean()),
        shown.low,
        shown.high,
        p_value=1.0,
        margin=0.0,
        state="told",
        lower_is_better=s.lower_is_better,
    )


def _primary(s: _Sides, metric: str, level: float, primaries: int) -> Measured:
    each = level / primaries
    if s.binary:
        wins, losses = int(np.count_nonzero(s.gaps > 0)), int(np.count_nonzero(s.gaps < 0))
        test = stats.SignFlip(stats.mcnemar(wins, losses), stats.mcnemar(losses, wins))
    else:
        test = stats.sign_flip(s.gaps, s.groups, each, s.seed)
    effect = replace(_effect(s, metric, "primary"), p_value=test.better, level=level)
    spread = stats.standard_error_of_one(s.gaps, s.groups)
    per_cluster = effect.n / effect.clusters
    step = stats.score_step(s.gaps)
    needs = stats.Condition(effect.difference, spread, each, 0.0, per_cluster, step, effect.n)
    return Measured(effect, test.worse, needs)


def _stated(m: Measured, p_better: float, p_worse: float) -> Measured:
    level = m.effect.level
    state = "better" if p_better <= level else "worse" if p_worse <= level else "open"
    return replace(m, effect=replace(m.effect, p_value=p_better, state=state), p_worse=p_worse)


def _guard(s: _Sides, metric: str, margin: float, level: float) -> Measured:
    bound = stats.bounded_mean(
        s.gaps, s.groups, level, s.seed, floor=s.floor, ceiling=s.ceiling, null=-margin
    )
    state = "kept" if bound.low > -margin else "broken" if bound.high < -margin else "open"
    effect = replace(
        _effect(s, metric, "guard"),
        p_value=bound.p_value,
        margin=margin,
        level=level,
        bound=bound.low,
        state=state,
    )
    needs = stats.Condition(
        slack=bound.value + margin,
        spread=stats.standard_error_of_one(s.gaps, s.groups),
        alpha=level,
        harm=bound.value - s.floor,
        per_cluster=len(s.gaps) / len(s.groups.sizes),
        seen=len(s.gaps),
    )
    return Measured(effect, 1.0, needs)


def _told(s: _Sides, metric: str) -> Measured:
    return Measured(_effect(s, metric, "info"), 1.0, stats.Condition(0.0, 0.0, SHOWN))


def enough(measured: Sequence[Measured], policy: Gate, n: int) -> int | None:
    """Fresh items with which one primary would be shown better and every guard kept, together with the
    policy's power, if that is how it is: see `stats.Condition`. None: no number would be."""
    guards = [m.needs for m in measured if m.effect.role == "guard"]
    power = 1 - RESERVE * (1 - policy.power)
    hopes = [stats.n_to_meet([m.needs, *guards], power) for m in measured if m.effect.role == "primary"]
    known = [hope for hope in hopes if hope is not None]
    return max(n + 1, policy.min_items, min(known)) if known else None


def slices(champion: Scores, candidate: Scores, policy: Gate, seed: int) -> tuple[Slice, ...]:
    """Every primary on every part of the suite that has at least ten items; 95 % intervals, no verdicts."""
    found = []
    for way, labels in sorted(champion.slices.items()):
        members: dict[str, list[int]] = {}
        for i, label in enumerate(labels):
            members.setdefault(label, []).append(i)
        for name, inside in sorted(members.items()):
            if len(inside) < SLICE_ITEMS:
                continue
            old, new = (_part(s, inside, policy) for s in (champion, candidate))
            groups = stats.grouped(old.clusters)
            for metric in dict.fromkeys(policy.primary):
                sides = _sides(old, new, metric, groups, derive_seed(seed, "slice", metric, way, name))
                e = _effect(sides, metric, "info")
                figures = (e.n, e.champion, e.candidate, e.difference, e.low, e.high)
                found.append(Slice(way, name, metric, *figures))
    return tuple(found)


def _part(scores: Scores, inside: Sequence[int], policy: Gate) -> Scores:
    metrics = {m: tuple(scores.metrics[m][i] for i in inside) for m in policy.primary}
    return replace(scores, clusters=tuple(scores.clusters[i] for i in inside), metrics=metrics)
