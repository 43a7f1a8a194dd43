"""A candidate on live traffic: shadow, then a growing share of subjects. Pure: a trial in, the next move out.

At every interim analysis, in this order:

rollback   a hard limit is broken in several consecutive windows, or a guard is shown to be worse than the
           champion's by more than its margin, or above its own limit (bounds hold at every analysis, all
           guards share alpha)
hold       the split of subjects is not as configured, or a minimum of time, answers or ratings is not
           reached; before the end, a guard that is above its limit, shown or not
advance    to the next share; after the last one, complete: the candidate becomes the champion

Harm is estimated over all stages of the trial, each compared within itself. A subject keeps their model, so
subjects are the sampling unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from escultor.config import Canary
from escultor.stats import binomial_p_value
from escultor.stats.sequential import Harm, SubjectTally, excess, harm, rate_bounds
from escultor.store import registry
from escultor.types import Deployment

HOUR_S = 3600.0
WINDOW_ALPHA = 0.05  # one-sided: a window breaks a limit when its share is shown to be above
MEANS = frozenset({"cost_usd"})  # guards that are means, not rates

MoveKind = Literal["rollback", "hold", "advance", "complete"]


@dataclass(frozen=True, slots=True)
class CanaryStage:
    """What was observed in one stage of a trial: per guard the tallies of both arms, and the subjects."""

    share: float  # of the subjects that the candidate was to get; 0: shadow
    since: float
    tallies: Mapping[str, tuple[SubjectTally, SubjectTally]]  # champion's, candidate's
    answers: int  # of the candidate
    subjects: tuple[int, int]  # champion's, candidate's


@dataclass(frozen=True, slots=True)
class ErrorWindow:
    """The candidate's answers in one window: how many, how many failed, how many were slow."""

    since: float
    answers: int
    failed: int
    slow: int


@dataclass(frozen=True, slots=True)
class CanaryTrial:
    """A fold of the log: the stages of a trial, the last one in progress, and its whole windows in order."""

    champion: str
    candidate: str
    stages: tuple[CanaryStage, ...]
    windows: tuple[ErrorWindow, ...] = ()

    @property
    def current(self) -> CanaryStage:
        return self.stages[-1]


@dataclass(frozen=True, slots=True)
class CanaryMove:
    """What to do next and why, and the harm of each guard. `share` is the candidate's from now on."""

    kind: MoveKind
    share: float
    reason: str
    guards: Mapping[str, Harm]


def next_move(
    trial: CanaryTrial, policy: Canary, now: float, limits: Mapping[str, float] | None = None
) -> CanaryMove:
    """The next move of a trial; it may be asked for at any time, as often as wanted. `limits`: how high the
    candidate's rate of each of these guards may be, whatever the champion's is."""
    harms = guard_harms(trial, policy, limits or {})
    if why := _broken_limit(trial.windows, policy) or _harm_shown(harms, policy):
        return CanaryMove("rollback", 0.0, why, harms)
    if why := _split_is_off(trial.current, policy) or _too_early(trial, policy, harms, now):
        return CanaryMove("hold", trial.current.share, why, harms)
    share = _next_share(trial, policy)
    figures = "; ".join(figure(name, harm) for name, harm in harms.items())
    if share == 1.0:
        return CanaryMove("complete", share, f"the candidate is promoted: no harm shown; {figures}", harms)
    return CanaryMove("advance", share, f"to {share:.0%} of the subjects: no harm shown; {figures}", harms)


def deployment_of(move: CanaryMove, trial: CanaryTrial, current: Deployment, now: float) -> Deployment | None:
    """The deployment that carries out a move, with its reason; None where nothing changes."""
    because = f"canary: {move.reason}"
    if move.kind == "hold":
        return None
    if move.kind == "advance":
        return registry.trial(because, trial.candidate, move.share, current, now=now)
    winner = trial.champion if move.kind == "rollback" else trial.candidate
    return registry.deployment_for(because, winner, current, now=now)


def guard_harms(trial: CanaryTrial, policy: Canary, limits: Mapping[str, float]) -> dict[str, Harm]:
    """The harm of each guard over all stages; alpha is shared equally among them."""
    harms, alpha = {}, policy.alpha / (len(policy.guards) + len(limits))
    for name in (*policy.guards, *limits):
        pairs = [stage.tallies[name] for stage in trial.stages if name in stage.tallies]
        old, new = [old for old, _ in pairs], [new for _, new in pairs]
        if name in limits:
            harms[name] = excess(new, limits[name], alpha, policy.tuned_ratings)
        else:
            harms[name] = harm(old, new, alpha, policy.tuned_ratings, is_rate=name not in MEANS)
    return harms


def figure(name: str, harm: Harm) -> str:
    """One guard in words."""
    label = name.replace("_", " ")
    if not harm.candidate.n:
        return f"{label}: nothing observed of the candidate"
    if harm.limit is not None:
        seen = f"{harm.candidate.mean:.1%} of {harm.candidate.n:,.0f}, where {harm.limit:.1%} is the limit"
        return f"{label}: {seen}, above it by {harm.difference:.1%} [{harm.low:.1%}, {harm.high:.1%}]"
    path = f"{_number(name, harm.champion.mean)} to {_number(name, harm.candidate.mean)}"
    counts = f"{harm.champion.n:,.0f} and {harm.candidate.n:,.0f}"
    if math.isinf(harm.low):
        return f"{label} {path} of {counts}, too few for bounds"
    bounds = f"[{_number(name, harm.low)}, {_number(name, harm.high)}]"
    return f"{label} {path} of {counts}, worse by {_number(name, harm.difference)} {bounds}"


def _number(name: str, value: float) -> str:
    return f"{value:.2g}" if name in MEANS else f"{value:.1%}"


def _next_share(trial: CanaryTrial, policy: Canary) -> float:
    return min(share for share in policy.shares if share > trial.current.share)


# --- reasons ----------------------------------------------------------------------------------


def _broken_limit(windows: Sequence[ErrorWindow], policy: Canary) -> str | None:
    """The hard limit that each of the last windows is shown to break."""
    last = windows[-policy.breach_windows :]
    if len(last) < policy.breach_windows:
        return None
    for name, limit in (("failed", policy.max_error_share), ("slow", policy.max_slow_share)):
        counts = [(getattr(window, name), window.answers) for window in last]
        # Exact (Clopper & Pearson 1934), so it holds for windows of any size.
        if all(k > 0 and binomial_p_value(k, n, limit) < WINDOW_ALPHA for k, n in counts):
            shares = ", ".join(f"{k} of {n}" for k, n in counts)
            return f"{name} answers above the hard limit of {limit:.0%} in {len(last)} windows: {shares}"
    return None


def _harm_shown(harms: Mapping[str, Harm], policy: Canary) -> str | None:
    margins: dict[str, float] = dict(policy.guards.items())
    broken = [figure(name, harm) for name, harm in harms.items() if harm.low > margins.get(name, 0.0)]
    return f"harm shown: {'; '.join(broken)}" if broken else None


def _split_is_off(stage: CanaryStage, policy: Canary) -> str | None:
    """Sample-ratio check: a split that is not as configured makes every comparison doubtful."""
    candidates, total = stage.subjects[1], sum(stage.subjects)
    if not 0 < stage.share < 1:
        return None
    low, high = rate_bounds(candidates, total, policy.split_two_sided_alpha)
    if low <= stage.share <= high:
        return None
    return (
        f"the split is not as configured: the candidate has {candidates:,} of {total:,} subjects instead of "
        f"{stage.share:.1%}; find out why before drawing conclusions"
    )


def _too_early(trial: CanaryTrial, policy: Canary, harms: Mapping[str, Harm], now: float) -> str | None:
    """Which minimum is not reached yet."""
    stage, missing = trial.current, []
    if stage.share == 0:
        if stage.answers < policy.shadow_requests:
            return f"shadow: {stage.answers:,} of {policy.shadow_requests:,} answers"
        return None
    hours, total_hours = (now - stage.since) / HOUR_S, (now - trial.stages[0].since) / HOUR_S
    if stage.answers < policy.stage_requests:
        missing.append(f"{stage.answers:,} of {policy.stage_requests:,} answers in this stage")
    if hours < policy.stage_hours:
        missing.append(f"{hours:.1f} of {policy.stage_hours:g} hours in this stage")
    if _next_share(trial, policy) == 1.0:
        ratings = harms["thumbs_down"].candidate.n if "thumbs_down" in harms else policy.min_ratings
        if ratings < policy.min_ratings:
            missing.append(f"{ratings:,.0f} of {policy.min_ratings:,} ratings")
        if total_hours < policy.min_hours:
            missing.append(f"{total_hours:.1f} of {policy.min_hours:g} hours in total")
        missing += [figure(n, h) for n, h in harms.items() if h.limit is not None and h.difference > 0]
    return f"no harm shown, but {', '.join(missing)}" if missing else None
