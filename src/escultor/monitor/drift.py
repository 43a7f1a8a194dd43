"""The rules `prompt_drift` and `answer_drift`: whether the shares of a trait's categories have shifted.

The last day is compared with the seven days before it, and the last week with the three before it, in which
slow drift adds up. People are the unit: each counts once in each of the two windows, with the answer whose
draw is smallest. A warning needs a permutation test at `LEVEL`, and of a day also a larger shift than any of
the days before it shows against the others, since weekends differ. There are 120 looks in 30 days at some 20
traits and windows: at 2e-5 each, chance warns in fewer than 5 % of months whatever the looks have in common.
Drift is nobody's fault by itself, so it never pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from escultor.monitor.metrics import DAY_S
from escultor.monitor.rules import Reading
from escultor.stats.shift import psi, shift_p_value
from escultor.types import AnswerTraits, Estimate

LEVEL = 2e-5
CALM = 0.01  # p-value of every trait above which a drift is over
LOOK_S = 6 * 3600.0
MIN_PEOPLE = 30  # in each window
WINDOWS = ((1, 7), (7, 21))  # days: the recent ones, and those before them
PROMPTS, ANSWERS = "prompt_", "answer_"


class TraitShift(NamedTuple):
    """One trait, compared between two windows."""

    p_value: float
    trait: str
    days: int
    psi: float
    largest_before: float  # PSI of a single day before against the others; 0 for weeks
    recent: Counter[str]
    before: Counter[str]


def read_drift(rule: str, version: str, rows: Sequence[AnswerTraits], prefix: str, now: float) -> Reading:
    """The reading of one rule at the last full six hours (UTC) before `now`. `rows` are the sample of 28
    days: of one version, or of all (`version` is empty)."""
    end = now // LOOK_S * LOOK_S
    names = sorted({name for row in rows for name in row.traits if name.startswith(prefix)})
    found = [
        shift
        for recent, before in WINDOWS
        if any(row.time < end - (recent + before - 1) * DAY_S for row in rows)
        for shift in _compare(names, rows, end, recent, before)
    ]
    worst = min(found, default=None, key=lambda s: (s.p_value, -s.psi))
    if worst is None:
        return Reading(
            rule,
            version,
            Estimate("psi", 0.0, 0.0, 0.0, 0),
            0.0,
            pages=False,
            warns=False,
            is_clear=False,
            message="too few people or days to compare",
        )
    n = worst.recent.total()
    return Reading(
        rule,
        version,
        Estimate(f"psi_{worst.trait}", worst.psi, worst.psi, worst.psi, n),
        worst.largest_before,
        pages=False,
        warns=any(s.p_value <= LEVEL and s.psi > s.largest_before for s in found),
        is_clear=worst.p_value > CALM,
        message=_message(worst),
    )


def _compare(
    traits: Sequence[str], rows: Sequence[AnswerTraits], end: float, recent_days: int, before_days: int
) -> Iterator[TraitShift]:
    """The shift of each trait of which enough is known."""
    begin = end - recent_days * DAY_S
    oldest = begin - before_days * DAY_S
    recent_rows, rows_before = _within(rows, begin, end), _within(rows, oldest, begin)
    for trait in traits:
        recent, before = _people(recent_rows, trait), _people(rows_before, trait)
        if min(recent.total(), before.total()) < MIN_PEOPLE:
            continue
        p_value, largest = shift_p_value(recent, before, LEVEL, seed=int(end)), 0.0
        if recent_days == 1 and p_value <= LEVEL:
            starts = [oldest + day * DAY_S for day in range(before_days)]
            days = [_people(_within(rows_before, start, start + DAY_S), trait) for start in starts]
            whole = sum(days, Counter[str]())
            enough = [day for day in days if day.total() >= MIN_PEOPLE]
            largest = max((psi(day, whole - day) for day in enough), default=0.0)
        yield TraitShift(
            p_value=p_value,
            trait=trait,
            days=recent_days,
            psi=psi(recent, before),
            largest_before=largest,
            recent=recent,
            before=before,
        )


def _within(rows: Sequence[AnswerTraits], since: float, until: float) -> list[AnswerTraits]:
    """The rows of [since, until), those with the smallest draws last."""
    return sorted((row for row in rows if since <= row.time < until), key=lambda row: -row.draw)


def _people(rows: Sequence[AnswerTraits], trait: str) -> Counter[str]:
    """How many people have each category of a trait."""
    return Counter({row.person: row.traits[trait] for row in rows if trait in row.traits}.values())


def _message(s: TraitShift) -> str:
    n, m = s.recent.total(), s.before.total()
    most = max(s.recent | s.before, key=lambda c: (abs(s.recent[c] / n - s.before[c] / m), c))
    when = "day" if s.days == 1 else "week"
    return (
        f"{s.trait} of the last {when}: {most} {s.recent[most] / n:.1%} of {n} people, "
        f"{s.before[most] / m:.1%} of {m} before (PSI {s.psi:.2f}, p {s.p_value:.1g})"
    )
