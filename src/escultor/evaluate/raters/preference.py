"""The result of a rating session: win rate, strength, agreement, and which raters' choices count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from escultor import stats
from escultor.evaluate.raters.session import RatingSession, RecordedChoices, passed

ALPHA = 0.025  # one-sided: 95 % intervals
MAX_FAILED_SHARE = 0.25  # of at least two attention checks: beyond, a rater is left out
SIDE_P_VALUE = 0.001  # two-sided, of an even choice between the sides: below, a rater is left out
RIDGE = 1.0  # prior precision of a rater's own effects
RIDGE_STRENGTH = 1 / 9  # of the strength: sd 3 in log-odds, so that it stays finite when all agree


@dataclass(frozen=True, slots=True)
class Vote:
    """One choice: +1 for side b, -1 for side a, 0 for a tie; `b_first`: side b was shown first."""

    rater: str
    item: str
    cluster: str
    value: float
    b_first: bool


@dataclass(frozen=True, slots=True)
class RaterRecord:
    """Figures of a rater; `left_out` is the reason why the choices do not count, None where they do."""

    name: str
    votes: int
    ties: int
    first_chosen: int  # votes for the side shown first
    side_p_value: float
    checks: int
    checks_failed: int
    left_out: str | None


@dataclass(frozen=True, slots=True)
class Strength:
    """Bradley-Terry strength: log-odds that b is preferred, adjusted for raters' habits, with its 95 %
    interval, and the log-odds of the side shown first."""

    value: float
    low: float
    high: float
    first_side: float


@dataclass(frozen=True, slots=True)
class Preference:
    """The result of a session. `win_rate` is that of side b; `items_needed` is the number of further items
    that would decide it at 80 % power (0: it is decided; None: no number would)."""

    raters: tuple[RaterRecord, ...]
    items: int
    items_alike: int  # equal answers: ties without any rating
    items_rated: int
    win_rate: stats.WinRate | None
    strength: Strength | None
    alpha: float | None
    items_needed: int | None


def preference(session: RatingSession, choices: RecordedChoices, seed: int = 0) -> Preference:
    """The result of the choices so far, without inattentive raters (`MAX_FAILED_SHARE`, `SIDE_P_VALUE`)."""
    records, votes = rater_records(session, choices), counted_votes(session, choices)
    items = len(session.suite.items)
    won = needed = None
    if votes:
        won = stats.win_rate([v.value for v in votes], [v.cluster for v in votes], ALPHA, seed)
        needed = 0 if won.low > 0.5 or won.high < 0.5 else _items_needed(votes)
    return Preference(
        raters=records,
        items=items,
        items_alike=items - len(session.open_items),
        items_rated=len({vote.item for vote in votes}),
        win_rate=won,
        strength=strength(votes) if votes else None,
        alpha=agreement(votes) if votes else None,
        items_needed=needed,
    )


def rater_records(session: RatingSession, choices: RecordedChoices) -> tuple[RaterRecord, ...]:
    """Every rater of a session, by name."""
    votes = session_votes(session, choices)
    names = {rater for rater, _ in (*choices.votes, *choices.checks)}
    return tuple(_record(rater, votes, choices) for rater in sorted(names))


def session_votes(session: RatingSession, choices: RecordedChoices) -> list[Vote]:
    """The choices of a session as numbers."""
    votes = []
    for (rater, item_id), choice in choices.votes.items():
        first_side, item = session.answer_of[choice.shown_order[0]]
        winner = None if choice.winner is None else session.answer_of[choice.winner][0]
        value = {None: 0.0, "a": -1.0, "b": 1.0}[winner]
        votes.append(Vote(rater, item_id, item.cluster, value, first_side == "b"))
    return votes


def counted_votes(session: RatingSession, choices: RecordedChoices) -> list[Vote]:
    """The votes of the raters who are not left out."""
    left_out = {record.name for record in rater_records(session, choices) if record.left_out}
    return [vote for vote in session_votes(session, choices) if vote.rater not in left_out]


def _record(rater: str, votes: Sequence[Vote], choices: RecordedChoices) -> RaterRecord:
    from scipy.stats import binomtest

    own = [v for v in votes if v.rater == rater]
    decided = [v for v in own if v.value]
    first = sum((v.value > 0) == v.b_first for v in decided)
    p = float(binomtest(first, len(decided)).pvalue) if decided else 1.0
    checks = [choice for (name, _), choice in choices.checks.items() if name == rater]
    failed = sum(not passed(choice) for choice in checks)
    reason = None
    if len(checks) > 1 and failed > MAX_FAILED_SHARE * len(checks):
        reason = f"failed {failed} of {len(checks)} checks of attention"
    elif p < SIDE_P_VALUE:
        reason = f"chose the side shown first {first} of {len(decided)} times (p = {p:.1g})"
    return RaterRecord(
        name=rater,
        votes=len(own),
        ties=len(own) - len(decided),
        first_chosen=first,
        side_p_value=p,
        checks=len(checks),
        checks_failed=failed,
        left_out=reason,
    )


def strength(votes: Sequence[Vote]) -> Strength:
    """Bradley and Terry's model (1952) of two models, with the side shown first and each rater's own
    preferences (for a model, for a side) as effects under a normal prior.

    logit P(b preferred) = s + u_r + x (f + v_r), x = ±1 as b is shown first or second; a tie is half a win
    for each. Interval: sandwich variance by clusters, so that several raters of one item are no more items.
    """
    raters = sorted({v.rater for v in votes})
    clusters = sorted({v.cluster for v in votes})
    x = np.array([1.0 if v.b_first else -1.0 for v in votes])  # (N,)
    y = np.array([(v.value + 1) / 2 for v in votes])
    rater = np.eye(len(raters))[[raters.index(v.rater) for v in votes]]  # (N, R)
    design = np.column_stack([np.ones(len(votes)), x, rater, rater * x[:, None]])  # (N, 2 + 2R)
    ridge = np.full(design.shape[1], RIDGE)
    ridge[:2] = RIDGE_STRENGTH
    weights, hessian, residuals = stats.fit_logistic(design, y, ridge)
    scores = np.zeros((len(clusters), design.shape[1]))
    np.add.at(scores, [clusters.index(v.cluster) for v in votes], design * residuals[:, None])
    bread = np.linalg.inv(hessian)
    g = len(clusters)
    meat = scores.T @ scores * (g / max(1, g - 1))
    error = float(np.sqrt((bread @ meat @ bread)[0, 0])) if g > 1 else np.inf
    half = NormalDist().inv_cdf(1 - ALPHA) * error
    value = float(weights[0])
    return Strength(value, value - half, value + half, float(weights[1]))


def agreement(votes: Sequence[Vote]) -> float | None:
    """Krippendorff's alpha over items, with a win, a tie and a loss one step apart (interval distance)."""
    values = sorted({vote.value for vote in votes})
    counts = [Counter(vote.value for vote in item_votes) for item_votes in _by_item(votes).values()]
    return stats.krippendorff_alpha([[count[value] for value in values] for count in counts], values)


def item_means(votes: Sequence[Vote]) -> dict[str, float]:
    """The mean vote on every item, from -1 (side a) to 1 (side b)."""
    return {item: sum(v.value for v in own) / len(own) for item, own in _by_item(votes).items()}


def _by_item(votes: Sequence[Vote]) -> dict[str, list[Vote]]:
    by_item: dict[str, list[Vote]] = {}
    for vote in votes:
        by_item.setdefault(vote.item, []).append(vote)
    return by_item


def _items_needed(votes: Sequence[Vote]) -> int | None:
    """Further items needed to distinguish a preference of the observed mean and spread from none (80 % power,
    two-sided 5 %)."""
    means = list(item_means(votes).values())
    clusters = [item_votes[0].cluster for item_votes in _by_item(votes).values()]
    needed = stats.n_for_power(means, clusters, abs(sum(means) / len(means)), ALPHA)
    return None if needed is None else max(1, needed - len(means))


def swapped(result: Preference) -> Preference:
    """The same result with the sides exchanged."""
    won, s = result.win_rate, result.strength
    return replace(
        result,
        win_rate=won and won._replace(value=1 - won.value, low=1 - won.high, high=1 - won.low),
        strength=None if s is None else Strength(-s.value, -s.high, -s.low, s.first_side),
    )
