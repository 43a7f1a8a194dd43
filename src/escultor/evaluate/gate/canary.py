"""A candidate among people: shadow, then a growing share of subjects. Pure: a trial in, the next step out.

At every look, in this order:

rollback   a hard limit is broken in so many windows in a row, or a guard is shown to be worse than the
           champion by more than its margin: by bounds that hold at every look, all guards sharing the level
hold       the split is not as ordered, or a floor of time, answers or ratings is not reached
advance    to the next share; with the last one, all, the candidate becomes the champion

Harm is looked for over all steps of the trial, each compared within itself. A subject keeps their model,
so subjects are what is counted and what varies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from escultor.config import Canary
from escultor.stats import binomial_p_value
from escultor.stats.sequential import Harm, SubjectTally, harm, rate_bounds
from escultor.store import registry
from escultor.types import Deployment

HOUR_S = 3600.0
WINDOW_LEVEL = 0.05  # one-sided: a window breaks a limit when its share is shown to be above
MEANS = frozenset({"cost_usd"})  # guards that are no rates


@dataclass(frozen=True, slots=True)
class CanaryStage:
    """What one step of a trial has seen: per guard the tallies of both arms, and who was sent where."""

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
    """A fold of the log: the steps of a trial, the last one under way, and its whole windows in order."""

    champion: str
    candidate: str
    steps: tuple[CanaryStage, ...]
    windows: tuple[ErrorWindow, ...] = ()

    @property
    def now(self) -> CanaryStage:
        return self.steps[-1]


@dataclass(frozen=True, slots=True)
class CanaryMove:
    """What to do next, why, and what was seen of each guard. `share` is the candidate's from now on."""

    kind: Literal["rollback", "hold", "advance", "complete"]
    share: float
    reason: str
    guards: Mapping[str, Harm]


def next_move(trial: CanaryTrial, policy: Canary, now: float) -> CanaryMove:
    """The next step of a trial. May be asked as often as one likes."""
    watched = guards(trial, policy)

    def move(
        kind: Literal["rollback", "hold", "advance", "complete"], share: float, reason: str
    ) -> CanaryMove:
        return CanaryMove(kind, share, reason, watched)

    if why := _breach(trial.windows, policy) or _harmed(watched, policy):
        return move("rollback", 0.0, why)
    if why := _crooked(trial.now, policy) or _too_early(trial, policy, watched, now):
        return move("hold", trial.now.share, why)
    share = min(share for share in policy.shares if share > trial.now.share)
    told = "; ".join(figure(name, found) for name, found in watched.items())
    if share == 1.0:
        return move("complete", share, f"the candidate takes over: no harm shown; {told}")
    return move("advance", share, f"to {share:.0%} of the subjects: no harm shown; {told}")


def deployment_of(move: CanaryMove, trial: CanaryTrial, current: Deployment, now: float) -> Deployment | None:
    """The deployment that a move asks for, resting on its reason; None where nothing changes."""
    if move.kind == "hold":
        return None
    if move.kind == "rollback":
        return registry.deployment_for(f"canary: {move.reason}", trial.champion, current, now=now)
    if move.kind == "complete":
        return registry.deployment_for(f"canary: {move.reason}", trial.candidate, current, now=now)
    return registry.trial(f"canary: {move.reason}", trial.candidate, move.share, current, now=now)


def guards(trial: CanaryTrial, policy: Canary) -> dict[str, Harm]:
    """What is known of each guard; the level is shared among them."""
    found = {}
    for name in policy.guards:
        pairs = [step.tallies[name] for step in trial.steps if name in step.tallies]
        old, new = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        level = policy.level / len(policy.guards)
        found[name] = harm(old, new, level, policy.tuned_rated, is_rate=name not in MEANS)
    return found


def figure(name: str, found: Harm) -> str:
    """One guard in words."""
    plain = name.replace("_", " ")
    if not found.candidate.n:
        return f"{plain}: nothing seen of the candidate"
    path = f"{_number(name, found.champion.mean)} to {_number(name, found.candidate.mean)}"
    seen = f"{found.champion.n:,.0f} and {found.candidate.n:,.0f}"
    if found.low == float("-inf"):
        return f"{plain} {path} of {seen}, too few for bounds"
    bounds = f"[{_number(name, found.low)}, {_number(name, found.high)}]"
    return f"{plain} {path} of {seen}, worse by {_number(name, found.difference)} {bounds}"


def _number(name: str, value: float) -> str:
    return f"{value:.2g}" if name in MEANS else f"{value:.1%}"


# --- reasons ----------------------------------------------------------------------------------


def _breach(windows: Sequence[ErrorWindow], policy: Canary) -> str | None:
    """The hard limit that each of the last windows is shown to break."""
    last = windows[-policy.breaches :]
    if len(last) < policy.breaches:
        return None
    for name, limit in (("failed", policy.most_errors), ("slow", policy.most_slow)):
        counts = [(getattr(w, name), w.answers) for w in last]
        if all(_is_above(k, n, limit) for k, n in counts):
            seen = ", ".join(f"{k} of {n}" for k, n in counts)
            return f"{name} answers above the hard limit of {limit:.0%} in {len(last)} windows: {seen}"
    return None


def _is_above(events: int, n: int, limit: float) -> bool:
    """Whether a share is shown to be above a limit, exactly (Clopper & Pearson 1934), however small n is."""
    return events > 0 and binomial_p_value(events, n, limit) < WINDOW_LEVEL


def _harmed(watched: Mapping[str, Harm], policy: Canary) -> str | None:
    broken = [figure(name, h) for name, h in watched.items() if h.low > policy.guards[name]]  # type: ignore[index]
    return f"harm shown: {'; '.join(broken)}" if broken else None


def _crooked(step: CanaryStage, policy: Canary) -> str | None:
    """Sample-ratio check: a split that is not as ordered makes every comparison doubtful."""
    sent, everyone = step.subjects[1], sum(step.subjects)
    if not 0 < step.share < 1:
        return None
    low, high = rate_bounds(sent, everyone, policy.ratio_level)
    if low <= step.share <= high:
        return None
    return (
        f"the split is not as ordered: the candidate has {sent:,} of {everyone:,} subjects, and "
        f"{step.share:.1%} were ordered; find out why before anything is concluded"
    )


def _too_early(trial: CanaryTrial, policy: Canary, watched: Mapping[str, Harm], now: float) -> str | None:
    """What is still short of its floor."""
    step, short = trial.now, []
    if step.share == 0:
        if step.answers < policy.shadow_requests:
            return f"shadow: {step.answers:,} of {policy.shadow_requests:,} answers"
        return None
    hours, whole = (now - step.since) / HOUR_S, (now - trial.steps[0].since) / HOUR_S
    if step.answers < policy.step_requests:
        short.append(f"{step.answers:,} of {policy.step_requests:,} answers in this step")
    if hours < policy.step_hours:
        short.append(f"{hours:.1f} of {policy.step_hours:g} hours in this step")
    if min(share for share in policy.shares if share > step.share) == 1.0:
        rated = watched["thumbs_down"].candidate.n if "thumbs_down" in watched else policy.least_rated
        if rated < policy.least_rated:
            short.append(f"{rated:,.0f} of {policy.least_rated:,} ratings")
        if whole < policy.least_hours:
            short.append(f"{whole:.1f} of {policy.least_hours:g} hours in all")
    return f"no harm shown, but {', '.join(short)}" if short else None
