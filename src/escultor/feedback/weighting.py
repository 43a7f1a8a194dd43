"""Of all drafts, what is trained on: weights, then caps, then balance. Pure, and decided by hashes."""

from __future__ import annotations

import math
from collections import Counter
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
class CapCost:
    """What an item takes of its owners' room: its weight beside the mean of its side, but no less than 1,
    shared among them alike. Good and bad are balanced later, so on a rare side an item weighs much."""

    id: str
    weight: float
    owners: tuple[Hashable, ...]
    side: bool = True


CapRoom = Callable[[Hashable, int], float]  # of an owner, where so many items stay


def capped(items: Sequence[CapCost], room: CapRoom) -> tuple[list[bool], dict[Hashable, int]]:
    """Which items stay so that every owner keeps to its room, and how many each owner lost. Items go in an
    order by hash; one without owners always stays.

    Law: of the n items that stay, every owner's cost is at most room(owner, n), and that of a side with m of
    them at most twice its part of this, m / n; or the owner has one item there, however heavy. So of the
    weight, when the sides are balanced, no owner holds more than twice room(owner, n) / n but for such
    single items.
    """
    staying = list(range(len(items)))
    while True:
        n, costs = len(staying), _costs(items, staying)
        staying = _within(items, costs, staying, room)
        for side in (True, False):
            own = [i for i in staying if items[i].side is side]
            others = len(staying) - len(own)
            if own and others:

                def part(owner: Hashable, m: int, others: int = others) -> float:
                    return 2 * m / (m + others) * room(owner, m + others) if m else 0.0

                gone = set(own).difference(_within(items, costs, own, part))
                staying = [i for i in staying if i not in gone]
        if len(staying) == n:
            break
    stays = set(staying)
    keep = [i in stays for i in range(len(items))]
    lost = Counter(o for item, kept in zip(items, keep, strict=True) if not kept for o in item.owners)
    return keep, dict(lost)


def _costs(items: Sequence[CapCost], staying: Sequence[int]) -> dict[int, float]:
    """What each item takes of the room of each of its owners."""
    total, n = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for i in staying:
        total[items[i].side] += items[i].weight
        n[items[i].side] += 1
    scale = {side: n[side] / total[side] if total[side] else 1.0 for side in n}
    return {
        i: max(1.0, item.weight * scale[item.side]) / len(item.owners)
        for i in staying
        if (item := items[i]).owners
    }


def _within(
    items: Sequence[CapCost], costs: dict[int, float], staying: list[int], room: CapRoom
) -> list[int]:
    """Those of these with which every owner keeps to its room."""
    totals: dict[Hashable, float] = {}
    for i in staying:
        for owner in items[i].owners:
            totals[owner] = totals.get(owner, 0.0) + costs[i]
    over: dict[Hashable, float] = {}
    order: list[int] = []
    kept, n = staying, -1
    for _ in range(LIMIT_ROUNDS):
        if len(kept) == n:
            return kept
        n = len(kept)
        short = {owner: limit for owner, total in totals.items() if total > (limit := room(owner, n))}
        if short.keys() != over.keys():
            order = _drawn(items, staying, set(short))
        over = short
        kept = _filled(items, costs, staying, order, over)
    # Each round takes away at least one item; what is left then is held to the rooms of the smallest set.
    over = {owner: limit for owner, total in totals.items() if total > (limit := room(owner, 1))}
    return _filled(items, costs, staying, _drawn(items, staying, set(over)), over)


def _drawn(items: Sequence[CapCost], staying: Sequence[int], owners: set[Hashable]) -> list[int]:
    """The items of some owners in an order by hash."""
    found = [i for i in staying if not owners.isdisjoint(items[i].owners)]
    return sorted(found, key=lambda i: (unit(0, "cap", items[i].id), items[i].id))


def _filled(
    items: Sequence[CapCost],
    costs: dict[int, float],
    staying: list[int],
    order: Sequence[int],
    room: dict[Hashable, float],
) -> list[int]:
    """Items in their order as long as every owner that is short of room has some left, or has none yet."""
    if not room:
        return staying
    left, gone = dict(room), set()
    for i in order:
        short = [owner for owner in items[i].owners if owner in left]
        if any(left[owner] + 1e-9 < costs[i] and left[owner] < room[owner] for owner in short):
            gone.add(i)
            continue
        for owner in short:
            left[owner] -= costs[i]
    return [i for i in staying if i not in gone]


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
