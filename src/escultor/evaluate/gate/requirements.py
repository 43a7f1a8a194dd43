"""What a policy needs of a suite before anything is measured: how many items, and which metrics. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from escultor.config import Gate
from escultor.evaluate.gate.alpha_spending import alpha_at
from escultor.stats import n_without_event
from escultor.types import Scale, Scores

ALL_RATED = "all_items_rated"  # of a comparison: people rated every item on which the answers differ
# The figures of an evaluation that are not metrics of its suite: speed and cost, and those of a whole suite.
FIGURES = frozenset(
    {
        *("parameters", "tokens_per_s", "hourly_price_usd", "speed_requests", "speed_batch_size"),
        *("cost_usd_per_1k_tokens", "cost_usd_per_request"),
        *(f"{name}_p{q}_ms" for name in ("ttft", "latency", "per_token") for q in (50, 99)),
        *("cut_share", "null_answers", "not_extracted", "calibration_error", "mean_confidence"),
        *("right_without_pressure", "flip_rate_of_right", "perplexity_over_all_tokens", ALL_RATED),
    }
)

# Metrics of scores without scales that have no upper bound; every other one is a share.
_UNSCALED = frozenset(
    {"bits_per_byte", "document_bits_per_byte", "perplexity", "nll", "latency_ms", "cost_usd"}
)


class Requirement(NamedTuple):
    """What one metric of a policy needs: clusters (independent items), whatever the scores may be.

    A guard's number is that for a candidate that equals the champion on it; None where no number is enough
    for such a candidate, since the margin is 0.
    """

    metric: str
    role: Literal["primary", "guard"]
    clusters: int | None
    width: float = 0.0  # of the scale of a guard; 0 where it has no limits


def scale_of(scales: Mapping[str, Scale], metric: str) -> Scale:
    """What the numbers of a metric mean, with a default for those without a scale."""
    if metric in scales:
        return scales[metric]
    return Scale("lower", most=None) if metric in _UNSCALED else Scale()


def scales_of(scores: Scores) -> dict[str, Scale]:
    """What the numbers of each metric of scores mean."""
    return {name: scale_of(scores.scales, name) for name in scores.metrics}


def default_policy(gate: Gate, scales: Mapping[str, Scale]) -> Gate:
    """The policy where neither configuration nor skill names a primary metric: the first that is measured
    and has a direction."""
    first = tuple(n for n, scale in scales.items() if scale.better != "neither" and n not in gate.guards)[:1]
    return gate if gate.primary else gate.model_copy(update={"primary": first})


def requirements(
    policy: Gate, scales: Mapping[str, Scale] | None = None, alpha: float | None = None
) -> tuple[Requirement, ...]:
    """What each metric of a policy needs, primaries first; `scales` are those of the suite, `alpha` that of
    the analysis (default: the first)."""
    # Primaries. With n clusters the smallest p-value of a sign-flip test is 2^-n (all signs equal), as of
    # McNemar's test with n wins; Holm asks 2^-n <= alpha / primaries of the best one.
    # Guards. Where all differences are 0, Gaffke's bound is -width · W with W ~ Beta(1, n), the weight of
    # the unseen cluster: it stays above -margin at alpha when (1 - margin / width)^n <= alpha.
    primaries = tuple(dict.fromkeys(policy.primary))
    alpha = alpha_at(1, policy) if alpha is None else alpha
    flips = math.ceil(math.log2(len(primaries) / alpha)) if primaries else 0
    needs = [Requirement(metric, "primary", flips) for metric in primaries]
    for metric, margin in policy.guards.items():
        scale = scale_of(scales or {}, metric)
        width = math.inf if scale.least is None or scale.most is None else scale.most - scale.least
        # What bounds no score bounds no unseen harm either: such a guard rests on the scores alone.
        width = width if width < math.inf else 0.0
        clusters = n_without_event(margin / width, policy.alpha) if width > 0 else 1
        needs.append(Requirement(metric, "guard", clusters, width))
    return tuple(needs)


def clusters_needed(needs: Iterable[Requirement]) -> int:
    """The clusters that a policy requires: what the most demanding of its metrics needs."""
    return max((need.clusters for need in needs if need.clusters is not None), default=1)


def shortfall(needs: Sequence[Requirement], policy: Gate, items: int, clusters: int) -> str | None:
    """Why a suite of this size is too small to promote anything under a policy; None where it is not."""
    size = f"{items} items" if clusters == items else f"{items} items in {clusters} clusters"
    needed = clusters_needed(needs)
    if clusters < needed and policy.min_items <= needed:
        margins = [
            f"{n.metric} {math.ceil(1000 * n.width * (1 - policy.alpha ** (1 / clusters))) / 1000:g}"
            for n in needs
            if n.role == "guard" and n.clusters is not None and n.clusters > clusters > 0
        ]
        could = f"; margins that this size could show: {', '.join(margins)}" if margins else ""
        return f"{size}, and the policy requires at least {needed} ({described(needs, policy)}){could}"
    if clusters < needed or items < policy.min_items:
        return f"{size}, and the policy requires at least {policy.min_items}"
    return None


def described(needs: Sequence[Requirement], policy: Gate) -> str:
    """What each metric needs, in words: guards with their margin, then primaries."""
    guards = [
        f"guard {n.metric} within {policy.guards[n.metric]:g} "
        + ("a gain" if n.clusters is None else f"{n.clusters:,}")
        for n in needs
        if n.role == "guard"
    ]
    primaries = [n for n in needs if n.role == "primary"]
    return ", ".join([*guards, *(f"primary {n.metric} {n.clusters:,}" for n in primaries)])


def unknown_vetoes(policy: Gate, measured: Collection[str]) -> list[str]:
    """One line for each veto on a name that is neither among the measured metrics and figures nor a figure
    that an evaluation may have (`FIGURES`)."""
    known = {*measured, *FIGURES}
    return [
        f"the policy's veto on {name!r} names nothing that is measured; known: {', '.join(sorted(known))}"
        for name in policy.vetoes
        if name not in known
    ]
