"""Of all drafts, what is trained on: weights, then caps, then balance. Pure, and decided by hashes."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from escultor.rng import unit

KTO_BALANCE = (1.0, 4 / 3)  # weight of the good over weight of the bad (KTO, arXiv:2402.01306)
LIMIT_ROUNDS = 100


def propensity_weights(chances: Sequence[float], clip: float) -> list[float]:
    """One over the chance with which each item could be seen, `clip` at most; their mean is 1, since what
    is trained on is a self-normalised mean. A chance that is none counts as the smallest."""
    return normalised([min(clip, 1 / p) if p > 0 else clip for p in chances])


def normalised(weights: Sequence[float]) -> list[float]:
    """The weights times what makes their mean 1."""
    total = math.fsum(weights)
    return [w * len(weights) / total for w in weights] if total > 0 else list(weights)


def effective_size(weights: Sequence[float]) -> float:
    """Kish's effective sample size, (sum w)^2 / sum w^2; 0 of nothing."""
    squares = math.fsum(w * w for w in weights)
    return math.fsum(weights) ** 2 / squares if squares else 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What an item takes of its owners' room: its weight, but no less than 1, shared among them alike."""

    id: str
    weight: float
    owners: tuple[Hashable, ...]

    @property
    def each(self) -> float:
        return max(1.0, self.weight) / len(self.owners)


def capped(
    items: Sequence[Cost], share: float, floor: Callable[[Hashable], float]
) -> tuple[list[bool], dict[Hashable, int]]:
    """Which items stay so that no owner holds more than max(floor, share of what stays), and how many each
    owner lost. Items go in an order by hash that nobody can choose; one without owners always stays.

    Law: of the n items that stay, every owner's cost is at most max(floor(owner), share * n).
    """
    totals: dict[Hashable, float] = {}
    for item in items:
        if item.owners:
            each = item.each
            for owner in item.owners:
                totals[owner] = totals.get(owner, 0.0) + each
    keep, staying, over, order = [True] * len(items), len(items), {}, []
    for _ in range(LIMIT_ROUNDS):
        short = {o for o in totals if totals[o] > max(floor(o), share * staying)}
        if short != over.keys():
            order = _drawn(items, short)
        over = {o: max(floor(o), share * staying) for o in short}
        keep = _within(items, order, over)
        if sum(keep) == staying:
            break
        staying = sum(keep)
    else:  # each round takes away at least one item; what is left then is held to the floors alone
        over = {o: floor(o) for o in totals if totals[o] > floor(o)}
        keep = _within(items, _drawn(items, set(over)), over)
    lost: dict[Hashable, int] = {}
    for item, stays in zip(items, keep, strict=True):
        if not stays:
            for owner in item.owners:
                lost[owner] = lost.get(owner, 0) + 1
    return keep, lost


def _drawn(items: Sequence[Cost], owners: set[Hashable]) -> list[int]:
    """The items of some owners in an order by hash."""
    found = [i for i, item in enumerate(items) if not owners.isdisjoint(item.owners)]
    return sorted(found, key=lambda i: (unit(0, "cap", items[i].id), items[i].id))


def _within(items: Sequence[Cost], order: Sequence[int], room: dict[Hashable, float]) -> list[bool]:
    """Items in their order as long as every owner that is short of room has some left."""
    left, keep = dict(room), [True] * len(items)
    if not room:
        return keep
    for i in order:
        item = items[i]
        short = [owner for owner in item.owners if owner in left]
        if any(left[owner] + 1e-9 < item.each for owner in short):
            keep[i] = False
            continue
        for owner in short:
            left[owner] -= item.each
    return keep


def class_weights(good: Sequence[bool], groups: Sequence[Hashable], clip: float) -> list[float]:
    """One over the chance of this verdict on prompts of its group, halved: where most prompts of a kind
    please and most of another do not, a verdict says more about the kind than about the answer. Chances are
    shares smoothed by one verdict of each sort; weights stand between 1 / clip and clip."""
    ups: dict[Hashable, int] = {}
    n: dict[Hashable, int] = {}
    for up, group in zip(good, groups, strict=True):
        ups[group] = ups.get(group, 0) + up
        n[group] = n.get(group, 0) + 1
    made = []
    for up, group in zip(good, groups, strict=True):
        chance = (ups[group] + 1) / (n[group] + 2)
        made.append(min(clip, max(1 / clip, 0.5 / (chance if up else 1 - chance))))
    return made


def balanced(weights: Sequence[float], good: Sequence[bool]) -> list[float]:
    """Weights whose sum over the good is between 1 and 4/3 times that over the bad, mean 1; the lighter or
    heavier side is moved by one factor. Unchanged where there is only one side."""
    up = math.fsum(w for w, g in zip(weights, good, strict=True) if g)
    down = math.fsum(w for w, g in zip(weights, good, strict=True) if not g)
    if not up or not down:
        return list(weights)
    low, high = KTO_BALANCE
    wanted = min(high, max(low, up / down))
    factor = wanted * down / up
    return normalised([w * factor if g else w for w, g in zip(weights, good, strict=True)])


def alpha(units: Sequence[tuple[int, int]]) -> float | None:
    """Krippendorff's nominal alpha of yes-no verdicts, from (yes, no) counts of each answer judged at least
    twice: 1 - D_o / D_e over the coincidences. None where nothing was judged twice or all say the same."""
    units = [(a, b) for a, b in units if a + b > 1]
    yes, no = sum(a for a, _ in units), sum(b for _, b in units)
    n = yes + no
    if not yes or not no:
        return None
    observed = math.fsum(2 * a * b / (a + b - 1) for a, b in units) / n
    return 1 - observed / (2 * yes * no / (n * (n - 1)))
