"""What the gate asks before it measures: can these be compared, can they tell, is there a veto?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from escultor.config import Gate
from escultor.config.evaluation import Limit
from escultor.errors import DataError
from escultor.evaluate.gate.alpha_spending import is_used_up
from escultor.evaluate.gate.effects import scale_of
from escultor.types import GateContext, Scale, Scores, Veto

ROUNDING = 1e-9


def check(champion: Scores, candidate: Scores, policy: Gate, around: GateContext) -> None:
    """Raises DataError, all problems at once, when the scores cannot be compared under this policy."""
    found = [] if policy.primary else ["the policy names no primary metric"]
    if around.look < 1:
        found.append(f"look {around.look} is no number of a look, counted from 1")
    found += [
        f"the policy's veto on {name!r} compares by worse_by, which needs a score per item"
        for name, limit in policy.vetoes.items()
        if limit.worse_by is not None and name in champion.summary and name not in champion.metrics
    ]
    found += _together(champion, candidate)
    for side, scores in (("champion", champion), ("candidate", candidate)):
        found += [f"{side}: {problem}" for problem in _alone(scores, policy)]
    if found:
        raise DataError(
            "the scores cannot be compared: " + "; ".join(found),
            f"scores {champion.id!r} and {candidate.id!r}",
            "finite scores for the same items, in the same order, of the same suite",
            "evaluate both checkpoints on one suite, with the metrics that the policy names",
        )


def _together(champion: Scores, candidate: Scores) -> list[str]:
    found = []
    if champion.suite != candidate.suite:
        found.append(f"different suites, {champion.suite!r} and {candidate.suite!r}")
    if champion.items != candidate.items:
        ours, theirs = Counter(champion.items), Counter(candidate.items)
        if ours == theirs:
            found.append("the same items in a different order")
        else:
            only = [sum(((ours - theirs), (theirs - ours))[side].values()) for side in (0, 1)]
            found.append(f"different items: {only[0]} of the champion's alone, {only[1]} of the candidate's")
    elif champion.clusters != candidate.clusters:
        found.append("the same items in different clusters")
    elif champion.slices != candidate.slices:
        found.append("the same items in different slices")
    if bad := sorted(
        m
        for m in champion.scales.keys() & candidate.scales.keys()
        if champion.scales[m] != candidate.scales[m]
    ):
        found.append(f"different scales of {', '.join(bad)}")
    return found


def _alone(scores: Scores, policy: Gate) -> list[str]:
    found, n = [], len(scores.items)
    if twice := [item for item, count in Counter(scores.items).items() if count > 1]:
        found.append(f"{len(twice)} duplicate items, such as {twice[0]!r}")
    if len(scores.clusters) != n:
        found.append(f"{len(scores.clusters)} clusters for {n} items")
    for way, labels in scores.slices.items():
        if len(labels) != n:
            found.append(f"{len(labels)} labels of {way!r} for {n} items")
    has, decide = ", ".join(sorted(scores.metrics)) or "none", (*policy.primary, *policy.guards)
    for metric in dict.fromkeys(decide):
        if metric not in scores.metrics:
            found.append(f"no metric {metric!r}, it has {has}")
        elif scale_of(scores, metric).better == "neither":
            found.append(f"of {metric!r} neither more nor less is better, so it can decide nothing")
    for metric, values in scores.metrics.items():
        if len(values) != n:
            found.append(f"{len(values)} scores of {metric!r} for {n} items")
        if bad := [value for value in values if not math.isfinite(value)]:
            found.append(f"{len(bad)} scores of {metric!r} are not finite, the first {bad[0]}")
        elif metric in scores.scales or metric in decide:
            found += _off_scale(metric, values, scale_of(scores, metric))
    return found


def _off_scale(metric: str, values: Sequence[float], scale: Scale) -> list[str]:
    """Bounds rest on where a score can lie: one that lies elsewhere makes them worth nothing."""
    least = -math.inf if scale.least is None else scale.least - ROUNDING
    most = math.inf if scale.most is None else scale.most + ROUNDING
    if not (off := [value for value in values if not least <= value <= most]):
        return []
    lies = (
        f"{'-inf' if scale.least is None else scale.least} to {'inf' if scale.most is None else scale.most}"
    )
    return [f"{len(off)} scores of {metric!r} lie off its scale, {lies}, the first {off[0]}"]


def cannot_tell(champion: Scores, candidate: Scores, policy: Gate, around: GateContext) -> str | None:
    """Why this comparison can show nothing, whatever its figures; None: it can."""
    n, clusters = len(champion.items), len(set(champion.clusters))
    if gone := [item for item in champion.items if item in around.void]:
        why = ", ".join(sorted({around.void[item] for item in gone}))
        return f"the comparison is void: {len(gone)} of {n} items may not be used ({why}); make a new suite"
    if champion.checkpoint == candidate.checkpoint:
        return "candidate and champion are equal: one and the same checkpoint"
    if is_used_up(around.look, policy):
        return (
            f"the suite is used up: this is look {around.look}, and the policy allows {policy.most_looks}; "
            "make a new suite from fresh items"
        )
    if n < policy.min_items:
        return f"{n} items, and the policy asks for {policy.min_items} at least"
    if clusters < 2:
        return f"all {n} items are one cluster, so nothing tells how far the figures would vary"
    if all(champion.metrics[m] == candidate.metrics[m] for m in (*policy.primary, *policy.guards)):
        return f"candidate and champion have equal scores on all {n} items"
    return None


# --- vetoes -----------------------------------------------------------------------------------


def vetoes(champion: Scores, candidate: Scores, policy: Gate, around: GateContext) -> tuple[Veto, ...]:
    """Every limit of the policy that no gain makes up for, with what was seen. A figure that is not there
    is `missing`: nothing is known against the candidate, and nothing for it."""
    found = [
        _limited(name, limit, _mean(champion, name), _mean(candidate, name), scale_of(candidate, name).better)
        for name, limit in policy.vetoes.items()
    ]
    for name, most in policy.card.items():
        seen = None if around.card is None else around.card.get(name)
        state = "missing" if seen is None else "kept" if seen <= most else "broken"
        found.append(Veto(f"dataset card: {name}", seen, f"at most {most:g}", state))
    if policy.sign_off:
        state = "kept" if around.signed_by else "missing"
        found.append(Veto("sign-off", None, around.signed_by or "by a person", state))
    return tuple(found)


def _limited(name: str, limit: Limit, old: float | None, new: float | None, better: str) -> Veto:
    words, kept = [], []
    if limit.at_least is not None:
        words.append(f"at least {limit.at_least:g}")
        kept.append(new is not None and new >= limit.at_least)
    if limit.at_most is not None:
        words.append(f"at most {limit.at_most:g}")
        kept.append(new is not None and new <= limit.at_most)
    known = new is not None
    if limit.worse_by is not None:
        words.append(f"not worse than the champion by more than {limit.worse_by:g}")
        known = known and old is not None
        gap = 0.0 if new is None or old is None else new - old
        kept.append(known and (gap if better == "lower" else -gap) <= limit.worse_by)
    state = "missing" if not known else "kept" if all(kept) else "broken"
    return Veto(name, new, ", ".join(words), state)


def _mean(scores: Scores, name: str) -> float | None:
    """The mean of a metric, or the figure of that name that is not per item."""
    values: Sequence[float] | None = scores.metrics.get(name)
    if values is None:
        return scores.summary.get(name)
    return math.fsum(values) / len(values) if values else None
