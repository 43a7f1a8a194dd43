"""The gate: paired statistics, three verdicts, nothing promoted on a hunch. Pure: scores in, verdict out.

Promote   one primary metric shown better, none shown worse, every guard shown within its margin.
Reject    a guard shown broken, or a primary shown worse while none is shown better.
Hold      the rest, with the items that would be enough; also when the comparison cannot tell: too few
          items, one cluster, equal checkpoints or scores.

A primary is judged by a permutation test that flips whole clusters (0/1 scores with one item per cluster:
exact McNemar), one-sided, Holm across primaries; its interval is a studentised cluster bootstrap. A guard
is judged by distribution-free bounds, because harm is rare and a bootstrap is blind to what it never saw;
all guards must hold, so none is corrected for (Berger 1982). Both are monotone: an item that gets worse
never helps a candidate.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from escultor.config import Gate
from escultor.errors import DataError
from escultor.evaluate import stats
from escultor.ids import hash_value
from escultor.rng import derive_seed
from escultor.types import Comparison, Effect, Hold, Promote, Reject, Scores, Verdict

# Lower is better, and nothing bounds them from above; every other metric is better when higher.
LOWER_IS_BETTER = frozenset(
    {
        "bits_per_byte",
        "document_bits_per_byte",
        "perplexity",
        "nll",
        "latency",
        "latency_ms",
        "ttft_ms",
        "cost_usd",
    }
)


@dataclass(frozen=True, slots=True)
class Measured:
    """An effect with what the verdict needs beside it."""

    effect: Effect
    p_worse: float  # one-sided, of `the candidate is not worse`; only primaries are tested for it
    n_needed: int | None  # for this metric alone


def decide(champion: Scores, candidate: Scores, policy: Gate, seed: int) -> Verdict:
    """Compare two checkpoints on one suite and decide; the same arguments give the same verdict.

    Metrics that both hold and the policy does not name are measured as `info` and decide nothing. A
    primary's p-value is Holm-adjusted: it is shown better exactly when that is at most `policy.level`.
    Raises DataError, all problems at once, when the scores cannot be compared.
    """
    if problems := _problems(champion, candidate, policy):
        raise DataError(
            "the scores cannot be compared: " + "; ".join(problems),
            f"scores {champion.id!r} and {candidate.id!r}",
            "finite scores for the same items, in the same order, of the same suite",
            "evaluate both checkpoints on one suite",
        )
    measured = _measure(champion, candidate, policy, seed) if champion.items else ()
    primaries = [m for m in measured if m.effect.role == "primary"]
    guards = [m for m in measured if m.effect.role == "guard"]
    better = {m.effect.metric for m in primaries if m.effect.p_value <= policy.level}
    worse = {m.effect.metric for m in primaries if m.p_worse <= policy.level}
    safe = all(_kept(m.effect) for m in guards)
    figures = "; ".join(_figure(m.effect, better, worse) for m in (*primaries, *guards))

    def because(reason: str) -> Comparison:
        return _comparison(champion, candidate, policy, seed, measured, reason)

    needed = _needed(measured, bool(better), policy, len(champion.items))
    if why := _cannot_tell(champion, candidate, policy):
        same = champion.checkpoint == candidate.checkpoint
        return Hold(because(f"Hold: {why}."), None if same else needed)
    if any(_broken(m.effect) for m in guards) or (worse and not better):
        return Reject(because(f"Reject: {figures}."))
    if better and not worse and safe:
        return Promote(because(f"Promote: {figures}."))
    if better and worse:
        return Hold(because(f"Hold: the primary metrics disagree: {figures}."), None)
    enough = (
        "no number of items would be enough at this effect"
        if needed is None
        else f"about {needed} items needed"
    )
    return Hold(because(f"Hold: not enough evidence, {enough}: {figures}."), needed)


# --- may these be compared, and can the comparison tell? --------------------------------------


def _problems(champion: Scores, candidate: Scores, policy: Gate) -> list[str]:
    found = []
    if not policy.primary:
        found.append("the policy names no primary metric")
    if champion.suite != candidate.suite:
        found.append(f"different suites, {champion.suite!r} and {candidate.suite!r}")
    if champion.items != candidate.items:
        same = Counter(champion.items) == Counter(candidate.items)
        found.append("the same items in a different order" if same else "different items")
    elif champion.clusters != candidate.clusters:
        found.append("the same items in different clusters")
    for side, scores in (("champion", champion), ("candidate", candidate)):
        if twice := [item for item, count in Counter(scores.items).items() if count > 1]:
            found.append(f"{side}: {len(twice)} duplicate items, such as {twice[0]!r}")
        if len(scores.clusters) != len(scores.items):
            found.append(f"{side}: {len(scores.clusters)} clusters for {len(scores.items)} items")
        for metric in dict.fromkeys((*policy.primary, *policy.guards)):
            if metric not in scores.metrics:
                found.append(
                    f"{side}: no metric {metric!r}, it has {', '.join(sorted(scores.metrics)) or 'none'}"
                )
        for metric, values in scores.metrics.items():
            if len(values) != len(scores.items):
                found.append(f"{side}: {len(values)} scores of {metric!r} for {len(scores.items)} items")
            if bad := [i for i, value in enumerate(values) if not math.isfinite(value)]:
                found.append(
                    f"{side}: {len(bad)} scores of {metric!r} are not finite, the first {values[bad[0]]}"
                )
    return found


def _cannot_tell(champion: Scores, candidate: Scores, policy: Gate) -> str | None:
    n, clusters = len(champion.items), len(set(champion.clusters))
    if champion.checkpoint == candidate.checkpoint:
        return "candidate and champion are equal: one and the same checkpoint"
    if n < policy.min_items:
        return f"{n} items, and the policy asks for {policy.min_items} at least"
    if clusters < 2:
        return f"all {n} items are one cluster, so nothing tells how far the figures would vary"
    if all(champion.metrics[m] == candidate.metrics[m] for m in (*policy.primary, *policy.guards)):
        return f"candidate and champion have equal scores on all {n} items"
    return None


# --- effects ----------------------------------------------------------------------------------


def _measure(champion: Scores, candidate: Scores, policy: Gate, seed: int) -> tuple[Measured, ...]:
    primary = tuple(dict.fromkeys(policy.primary))
    named = {*primary, *policy.guards}
    info = sorted((champion.metrics.keys() & candidate.metrics.keys()) - named)
    judged = [_compare(champion, candidate, m, "primary", policy, seed) for m in primary]
    p_better = stats.holm([m.effect.p_value for m in judged])
    p_worse = stats.holm([m.p_worse for m in judged])
    return (
        *(
            replace(m, effect=replace(m.effect, p_value=p), p_worse=q)
            for m, p, q in zip(judged, p_better, p_worse, strict=True)
        ),
        *(_compare(champion, candidate, m, "guard", policy, seed) for m in policy.guards),
        *(_compare(champion, candidate, m, "info", policy, seed) for m in info),
    )


def _compare(
    champion: Scores,
    candidate: Scores,
    metric: str,
    role: Literal["primary", "guard", "info"],
    policy: Gate,
    seed: int,
) -> Measured:
    """One metric. The seed is derived from the metric alone, so swapped sides meet the same draws."""
    old, new = np.asarray(champion.metrics[metric]), np.asarray(candidate.metrics[metric])
    gaps = old - new if metric in LOWER_IS_BETTER else new - old
    clusters, own = champion.clusters, derive_seed(seed, "gate", metric)
    n, groups, margin = len(gaps), len(set(clusters)), policy.guards[metric] if role == "guard" else 0.0
    # The worst an unseen item may bring: the whole scale of a share; beyond that, the worst item seen.
    scale = 0.0 if metric in LOWER_IS_BETTER else 1.0
    floor, ceiling = min(-scale, float(gaps.min())), max(scale, float(gaps.max()))
    level = policy.level
    if role == "guard":
        bound = stats.bounded_mean(gaps, clusters, level, own, floor, ceiling, null=-margin)
        low, high, p, p_worse = bound.low, bound.high, bound.p_value, 1.0
        needed = _needed_for_guard(gaps, clusters, bound.value, margin, floor, level)
    else:
        interval = stats.bootstrap_mean(gaps, clusters, level, own, floor, ceiling)
        low, high, each = interval.low, interval.high, level / len(set(policy.primary))
        binary = groups == n and bool(np.isin(old, (0, 1)).all() and np.isin(new, (0, 1)).all())
        p, p_worse = (_p_superior(sign * gaps, clusters, binary, each, own) for sign in (1, -1))
        needed = stats.n_for_power(gaps, clusters, float(gaps.mean()), each)
    effect = Effect(
        metric,
        role,
        n,
        groups,
        float(old.mean()),
        float(new.mean()),
        float(gaps.mean()),
        low,
        high,
        p,
        margin,
    )
    return Measured(effect, p_worse, needed)


def _p_superior(gaps: stats.Array, clusters: tuple[str, ...], binary: bool, level: float, seed: int) -> float:
    if binary:
        return stats.mcnemar(int(np.count_nonzero(gaps > 0)), int(np.count_nonzero(gaps < 0)))
    return stats.sign_flip(gaps, clusters, level, seed)


def _kept(guard: Effect) -> bool:
    return guard.low > -guard.margin


def _broken(guard: Effect) -> bool:
    return guard.high < -guard.margin


# --- how many items would be enough -----------------------------------------------------------


def _needed_for_guard(
    gaps: stats.Array, clusters: tuple[str, ...], mean: float, margin: float, floor: float, level: float
) -> int | None:
    """Enough for the spread seen, and enough to rule out the harm not seen; None: the slack is used up."""
    slack = mean + margin
    spread = stats.n_for_power(gaps, clusters, slack, level)
    unseen = stats.n_without_event(slack / (mean - floor) if mean > floor else 1.0, level)
    if spread is None or unseen is None:
        return None
    return max(spread, math.ceil(unseen * len(gaps) / len(set(clusters))))


def _needed(measured: tuple[Measured, ...], better: bool, policy: Gate, n: int) -> int | None:
    """Items for one primary to be shown better and every open guard to be shown kept, at 80 % power."""
    wanted = [m.n_needed for m in measured if m.effect.role == "guard" and not _kept(m.effect)]
    if not better:
        hopes = [m.n_needed for m in measured if m.effect.role == "primary" and m.n_needed is not None]
        wanted.append(min(hopes, default=None))
    known = [w for w in wanted if w is not None]
    return max(n + 1, policy.min_items, *known) if len(known) == len(wanted) else None


# --- words ------------------------------------------------------------------------------------


def _comparison(
    champion: Scores,
    candidate: Scores,
    policy: Gate,
    seed: int,
    measured: tuple[Measured, ...],
    reason: str,
) -> Comparison:
    comparison = Comparison(
        id="",
        champion=champion.checkpoint,
        candidate=candidate.checkpoint,
        champion_scores=champion.id,
        candidate_scores=candidate.id,
        suite=champion.suite,
        policy=hash_value(policy.model_dump(mode="json")),
        effects=tuple(m.effect for m in measured),
        reason=reason,
        n=len(champion.items),
    )
    return replace(comparison, id=hash_value((comparison, seed)))


def _figure(e: Effect, better: set[str], worse: set[str]) -> str:
    """One effect in words; differences are positive where the candidate is better."""
    name = f"{e.metric} (lower is better)" if e.metric in LOWER_IS_BETTER else e.metric
    path = f"{_number(e.champion)} to {_number(e.candidate)}"
    if e.role == "guard":
        if _kept(e):
            return f"{name} within {e.margin:g} ({path}, at worst {_signed(e.low)})"
        if _broken(e):
            return f"{name} worse by more than {e.margin:g} ({path}, at best {_signed(e.high)})"
        return f"{name} not shown to be within {e.margin:g} ({path}, at worst {_signed(e.low)})"
    shown = "better" if e.metric in better else "worse" if e.metric in worse else "not shown to be better"
    where = "" if e.clusters == e.n else f" in {e.clusters} clusters"
    return (
        f"{name} {_signed(e.difference)} [{_number(e.low)}, {_number(e.high)}] on {e.n} items{where}, "
        f"{shown} ({path}, p = {e.p_value:.2g})"
    )


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "") + _number(value)
