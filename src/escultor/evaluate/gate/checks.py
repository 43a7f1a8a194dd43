"""What the gate checks before it tests: whether scores can be compared and show anything, and vetoes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from escultor.config import Gate
from escultor.config.evaluation import Limit
from escultor.errors import DataError
from escultor.evaluate.gate.requirements import scale_of, unknown_vetoes
from escultor.types import GateContext, Scale, Scores, Veto

ROUNDING = 1e-9


def check(champion: Scores, candidate: Scores, policy: Gate, context: GateContext) -> None:
    """Raises DataError with all problems at once when the scores cannot be compared under this policy."""
    problems = [] if policy.primary else ["the policy names no primary metric"]
    if context.look < 1:
        problems.append(f"analysis {context.look} is out of range: analyses are counted from 1")
    problems += unknown_vetoes(policy, {*candidate.metrics, *candidate.summary})
    problems += [
        f"the policy's veto on {name!r} uses worse_by, which needs a score per item"
        for name, limit in policy.vetoes.items()
        if limit.worse_by is not None and name in champion.summary and name not in champion.metrics
    ]
    problems += _problems_of_both(champion, candidate)
    problems += _too_large_clusters(champion, policy)
    for side, scores in (("champion", champion), ("candidate", candidate)):
        problems += [f"{side}: {problem}" for problem in _problems_of(scores, policy)]
    if problems:
        raise DataError(
            "the scores cannot be compared: " + "; ".join(problems),
            f"scores {champion.id!r} and {candidate.id!r}",
            "finite scores for the same items, in the same order, of the same suite",
            "evaluate both checkpoints on one suite, with the metrics that the policy names",
        )


def _problems_of_both(champion: Scores, candidate: Scores) -> list[str]:
    problems = []
    if champion.suite != candidate.suite:
        problems.append(f"different suites, {champion.suite!r} and {candidate.suite!r}")
    if champion.items != candidate.items:
        ours, theirs = Counter(champion.items), Counter(candidate.items)
        if ours == theirs:
            problems.append("the same items in a different order")
        else:
            ours_only, theirs_only = (ours - theirs).total(), (theirs - ours).total()
            problems.append(
                f"different items: {ours_only} only of the champion, {theirs_only} only of the candidate"
            )
    elif champion.clusters != candidate.clusters:
        problems.append("the same items in different clusters")
    elif champion.slices != candidate.slices:
        problems.append("the same items in different slices")
    shared = champion.metrics.keys() & candidate.metrics.keys()
    if different := sorted(m for m in shared if _stated(champion, m) != _stated(candidate, m)):
        problems.append(f"different scales of {', '.join(different)}")
    return problems


def _stated(scores: Scores, metric: str) -> tuple[str, float | None, float | None]:
    """What decides of a scale; scores without one have the default."""
    scale = scale_of(scores.scales, metric)
    return scale.better, scale.least, scale.most


def _too_large_clusters(scores: Scores, policy: Gate) -> list[str]:
    counts = Counter(scores.clusters).most_common(1)
    if policy.largest_cluster is None or not counts or counts[0][1] <= policy.largest_cluster:
        return []
    name, size = counts[0]
    return [f"cluster {name!r} has {size} items, and the policy's largest_cluster {policy.largest_cluster}"]


def _problems_of(scores: Scores, policy: Gate) -> list[str]:
    problems, n = [], len(scores.items)
    if duplicates := [item for item, count in Counter(scores.items).items() if count > 1]:
        problems.append(f"{len(duplicates)} duplicate items, such as {duplicates[0]!r}")
    if len(scores.clusters) != n:
        problems.append(f"{len(scores.clusters)} clusters for {n} items")
    for way, labels in scores.slices.items():
        if len(labels) != n:
            problems.append(f"{len(labels)} labels of {way!r} for {n} items")
    available, deciding = ", ".join(sorted(scores.metrics)) or "none", (*policy.primary, *policy.guards)
    for metric in dict.fromkeys(deciding):
        if metric not in scores.metrics:
            problems.append(f"no metric {metric!r}, it has {available}")
        elif scale_of(scores.scales, metric).better == "neither":
            problems.append(f"{metric!r} cannot decide: neither more nor less of it is better")
    for metric, values in scores.metrics.items():
        if len(values) != n:
            problems.append(f"{len(values)} scores of {metric!r} for {n} items")
        if not_finite := [value for value in values if not math.isfinite(value)]:
            problems.append(
                f"{len(not_finite)} scores of {metric!r} are not finite, the first {not_finite[0]}"
            )
        elif metric in scores.scales or metric in deciding:
            problems += _outside_scale(metric, values, scale_of(scores.scales, metric))
    return problems


def _outside_scale(metric: str, values: Sequence[float], scale: Scale) -> list[str]:
    """Scores outside the limits of their scale, which would invalidate the bounds."""
    least = -math.inf if scale.least is None else scale.least
    most = math.inf if scale.most is None else scale.most
    outside = [value for value in values if not least - ROUNDING <= value <= most + ROUNDING]
    if not outside:
        return []
    return [f"{len(outside)} scores of {metric!r} are outside {least} to {most}, such as {outside[0]}"]


def cannot_tell(champion: Scores, candidate: Scores, policy: Gate, context: GateContext) -> str | None:
    """Why this comparison cannot lead to a promotion, whatever its figures; None where it can."""
    n, clusters = len(champion.items), len(set(champion.clusters))
    if void := [item for item in champion.items if item in context.void]:
        why = ", ".join(sorted({context.void[item] for item in void}))
        return f"the comparison is void: {len(void)} of {n} items may not be used ({why}); make a new suite"
    if champion.checkpoint == candidate.checkpoint:
        return "candidate and champion are the same checkpoint"
    if context.look > policy.max_analyses:
        return (
            f"the suite is used up: this is analysis {context.look} of it, and the policy allows "
            f"{policy.max_analyses}; make a new suite from fresh items"
        )
    if n < policy.min_items:
        return f"{n} items, and the policy requires at least {policy.min_items}"
    if clusters < 2:
        return f"all {n} items are in one cluster, so the variation of the figures cannot be estimated"
    if all(champion.metrics[m] == candidate.metrics[m] for m in (*policy.primary, *policy.guards)):
        return f"candidate and champion have equal scores on all {n} items"
    return None


# --- vetoes -----------------------------------------------------------------------------------


def vetoes(champion: Scores, candidate: Scores, policy: Gate, context: GateContext) -> tuple[Veto, ...]:
    """Every limit of the policy that no gain offsets, with the measured value. A figure that was not measured
    is `missing`: nothing is known against the candidate, and nothing for it."""
    results = [_limited(name, limit, champion, candidate) for name, limit in policy.vetoes.items()]
    for name, most in policy.card.items():
        seen = None if context.card is None else context.card.get(name)
        state = "missing" if seen is None else "kept" if seen <= most else "broken"
        results.append(Veto(f"dataset card: {name}", seen, f"at most {most:g}", state))
    if policy.sign_off:
        state = "kept" if context.signed_by else "missing"
        results.append(Veto("sign-off", None, context.signed_by or "by a person", state))
    return tuple(results)


def _limited(name: str, limit: Limit, champion: Scores, candidate: Scores) -> Veto:
    old, new = _mean(champion, name), _mean(candidate, name)
    better = scale_of(candidate.scales, name).better
    words, kept = [], []
    if limit.at_least is not None:
        words.append(f"at least {limit.at_least:g}")
        kept.append(new is not None and new >= limit.at_least)
    if limit.at_most is not None:
        words.append(f"at most {limit.at_most:g}")
        kept.append(new is not None and new <= limit.at_most)
    is_known = new is not None
    if limit.worse_by is not None:
        words.append(f"not worse than the champion by more than {limit.worse_by:g}")
        is_known = is_known and old is not None
        gap = 0.0 if new is None or old is None else new - old
        kept.append(is_known and (gap if better == "lower" else -gap) <= limit.worse_by)
    state = "missing" if not is_known else "kept" if all(kept) else "broken"
    return Veto(name, new, ", ".join(words), state)


def _mean(scores: Scores, name: str) -> float | None:
    """The mean of a metric, or the figure of that name that is not per item."""
    values: Sequence[float] | None = scores.metrics.get(name)
    if values is None:
        return scores.summary.get(name)
    return math.fsum(values) / len(values) if values else None
