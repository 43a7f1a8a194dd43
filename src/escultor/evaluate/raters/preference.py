"""What raters' choices come to: win rate net of ties, strength, agreement, and whose choices count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from escultor import stats
from escultor.evaluate.raters.session import Ballots, DisplaySide, RatingSession, passed

ALPHA = 0.025  # one-sided: 95 % intervals
MOST_FAILED = 0.25  # of at least two checks of attention: beyond, a rater is left out
SIDE_P_VALUE = 0.001  # two-sided p-value of a fair coin between the sides: below, a rater is left out
RIDGE = 1.0  # prior precision of a rater's own effects
RIDGE_STRENGTH = 1 / 9  # of the strength: sd 3 on the log-odds scale, so that unanimity stays finite


@dataclass(frozen=True, slots=True)
class Vote:
    """One choice: +1 for side b, -1 for side a, 0 for a tie; `b_first` tells which stood first."""

    rater: str
    item: str
    cluster: str
    value: float
    b_first: bool


@dataclass(frozen=True, slots=True)
class RaterRecord:
    """What is known of a rater; `left_out` says why the choices do not count, None where they do."""

    name: str
    votes: int
    ties: int
    first_chosen: int  # of the votes that are no ties
    side_p_value: float
    checks: int
    checks_failed: int
    left_out: str | None


@dataclass(frozen=True, slots=True)
class Strength:
    """Bradley-Terry: log-odds that b is preferred, net of raters' habits, with its 95 % interval, and
    the pull of the side shown first."""

    value: float
    low: float
    high: float
    first_side: float


@dataclass(frozen=True, slots=True)
class Preference:
    """The report of a session. `win_rate` is that of side b; `items_needed` are those that would settle
    it at 80 % power beyond those rated (0: it is settled; None: no number would)."""

    raters: tuple[RaterRecord, ...]
    items: int
    items_alike: int  # equal answers: ties that nobody was asked about
    items_rated: int
    win_rate: stats.WinRate | None
    strength: Strength | None
    alpha: float | None
    items_needed: int | None


def preference(session: RatingSession, ballots: Ballots, seed: int = 0) -> Preference:
    """The report of what was chosen so far; raters who did not attend are left out, by stated rules."""
    votes, records = votes_of(session, ballots), rater_records(session, ballots)
    out = {record.name for record in records if record.left_out}
    counted = [vote for vote in votes if vote.rater not in out]
    alike = len(session.suite.items) - len(session.open_items)
    rated = len({vote.item for vote in counted})
    if not counted:
        return Preference(records, len(session.suite.items), alike, 0, None, None, None, None)
    values, clusters = [v.value for v in counted], [v.cluster for v in counted]
    won = stats.win_rate(values, clusters, ALPHA, seed)
    needed = 0 if won.low > 0.5 or won.high < 0.5 else _needed(counted)
    return Preference(
        records,
        len(session.suite.items),
        alike,
        rated,
        won,
        strength(counted),
        agreement(counted),
        needed,
    )


def rater_records(session: RatingSession, ballots: Ballots) -> tuple[RaterRecord, ...]:
    """Every rater of a session, by name."""
    votes = votes_of(session, ballots)
    names = {rater for rater, _ in (*ballots.votes, *ballots.checks)}
    return tuple(_record(rater, votes, ballots) for rater in sorted(names))


def votes_of(session: RatingSession, ballots: Ballots) -> list[Vote]:
    """The choices of a session as numbers."""
    found = []
    for (rater, item), choice in ballots.votes.items():
        sides: list[DisplaySide] = [session.said_by[id][0] for id in choice.shown_order]
        at = session.said_by[choice.shown_order[0]][1]
        won = None if choice.winner is None else session.said_by[choice.winner][0]
        value = {None: 0.0, "a": -1.0, "b": 1.0}[won]
        found.append(Vote(rater, item, session.suite.items[at].cluster, value, sides[0] == "b"))
    return found


def _record(rater: str, votes: Sequence[Vote], ballots: Ballots) -> RaterRecord:
    from scipy.stats import binomtest

    own = [v for v in votes if v.rater == rater]
    decided = [v for v in own if v.value]
    first = sum((v.value > 0) == v.b_first for v in decided)
    p = float(binomtest(first, len(decided)).pvalue) if decided else 1.0
    checks = [choice for (name, _), choice in ballots.checks.items() if name == rater]
    failed = sum(not passed(choice) for choice in checks)
    why = None
    if len(checks) > 1 and failed > MOST_FAILED * len(checks):
        why = f"failed {failed} of {len(checks)} checks of attention"
    elif p < SIDE_P_VALUE:
        why = f"chose the side shown first {first} of {len(decided)} times (p = {p:.1g})"
    return RaterRecord(rater, len(own), len(own) - len(decided), first, p, len(checks), failed, why)


def strength(votes: Sequence[Vote]) -> Strength:
    """Bradley and Terry's model (1952) of two models, with the side shown first and each rater's own
    leanings (to a model, to a side) as effects under a normal prior.

    logit P(b preferred) = s + u_r + x (f + v_r), x = ±1 as b stands first or second; a tie is half a win
    for each. Interval: sandwich variance by clusters, so that raters of one item are not many items.
    """
    raters = sorted({v.rater for v in votes})
    clusters = sorted({v.cluster for v in votes})
    x = np.array([1.0 if v.b_first else -1.0 for v in votes])  # (N,)
    y = np.array([(v.value + 1) / 2 for v in votes])
    of_rater = np.eye(len(raters))[[raters.index(v.rater) for v in votes]]  # (N, R)
    design = np.column_stack([np.ones(len(votes)), x, of_rater, of_rater * x[:, None]])  # (N, 2 + 2R)
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
    counts = [Counter(vote.value for vote in own) for own in _by_item(votes).values()]
    return stats.krippendorff_alpha([[count[value] for value in values] for count in counts], values)


def item_means(session: RatingSession, ballots: Ballots) -> dict[str, float]:
    """The mean vote on every item, from -1 (side a) to 1 (side b), of the raters whose votes count."""
    out = {record.name for record in rater_records(session, ballots) if record.left_out}
    found = _by_item([vote for vote in votes_of(session, ballots) if vote.rater not in out])
    return {item: sum(v.value for v in own) / len(own) for item, own in found.items()}


def _by_item(votes: Sequence[Vote]) -> dict[str, list[Vote]]:
    found: dict[str, list[Vote]] = {}
    for vote in votes:
        found.setdefault(vote.item, []).append(vote)
    return found


def _needed(votes: Sequence[Vote]) -> int | None:
    """Items more, at the mean preference and spread seen, to tell it from none: 80 % power, two-sided 5 %."""
    by_item = _by_item(votes)
    means = [sum(v.value for v in own) / len(own) for own in by_item.values()]
    clusters = [own[0].cluster for own in by_item.values()]
    needed = stats.n_for_power(means, clusters, abs(sum(means) / len(means)), ALPHA)
    return None if needed is None else max(1, needed - len(means))


def turned(found: Preference) -> Preference:
    """The same report with the sides exchanged."""
    won, s = found.win_rate, found.strength
    return replace(
        found,
        win_rate=won and won._replace(value=1 - won.value, low=1 - won.high, high=1 - won.low),
        strength=None if s is None else Strength(-s.value, -s.high, -s.low, s.first_side),
    )
