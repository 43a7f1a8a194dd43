"""What items weigh, and which exceed their owners' caps: pure functions, decided by hashes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from escultor.rng import unit

KTO_BALANCE = (1.0, 4 / 3)  # weight of desirable over undesirable examples (KTO, arXiv:2402.01306)
MAX_ROUNDS = 100


def propensity_weights(propensities: Sequence[float], clip: float) -> list[float]:
    """Inverse propensity weights of items shown with these probabilities, `clip` at most, with mean 1
    (self-normalised). A propensity of 0 weighs `clip`."""
    return normalise([min(clip, 1 / p) if p > 0 else clip for p in propensities])


def normalise(weights: Sequence[float]) -> list[float]:
    """The weights, scaled to mean 1."""
    total = math.fsum(weights)
    return [w * len(weights) / total for w in weights] if total > 0 else list(weights)


def effective_size(weights: Sequence[float]) -> float:
    """Kish's effective sample size, (sum w)^2 / sum w^2; 0 without weights."""
    squares = math.fsum(w * w for w in weights)
    return math.fsum(weights) ** 2 / squares if squares else 0.0


class CapCost(NamedTuple):
    """What decides how much of its owners' caps an item takes: its weight, and its side (desirable or not),
    since the sides are balanced later, so that an item of a rare side weighs much."""

    id: str
    weight: float
    owners: tuple[Hashable, ...]
    side: bool = True


CapLimit = Callable[[Hashable, int], float]  # (owner, items that stay) -> the owner's cap


def apply_caps(items: Sequence[CapCost], limit_of: CapLimit) -> tuple[list[bool], dict[Hashable, int]]:
    """Which items stay so that no owner exceeds its cap, and how many items each owner lost.

    An item's cost is its weight over the mean weight of its side, 1 at least, shared equally by its owners.
    Items are kept in an order by hash; items without owners always stay.

    Law, with c(n) = limit_of(owner, n): of the n items that stay, every owner's cost is at most c(n), and
    on a side with m items at most 2 (m / n) c(n), twice its part of that; or the owner has one item there,
    however heavy. So when the sides are balanced, no owner holds more than 2 c(n) / n of the weight, but
    for such single items.

    Derivation: caps and costs depend on what stays (c grows with n, mean weights change), so they are
    applied to what stays until nothing more is lost. Both limits only remove items, and the last round
    removes none: what it leaves satisfies both limits with its own n, m and costs, which is the law.
    """
    staying = list(range(len(items)))
    while True:
        n, costs = len(staying), _costs(items, staying)
        staying = _within_caps(items, costs, staying, limit_of)
        for side in (True, False):
            own = [i for i in staying if items[i].side == side]
            n_others = len(staying) - len(own)
            if own and n_others:

                def side_limit(owner: Hashable, m: int, n_others: int = n_others) -> float:
                    return 2 * m / (m + n_others) * limit_of(owner, m + n_others) if m else 0.0

                removed = set(own).difference(_within_caps(items, costs, own, side_limit))
                staying = [i for i in staying if i not in removed]
        if len(staying) == n:
            break
    stays = set(staying)
    keep = [i in stays for i in range(len(items))]
    lost = Counter(o for item, kept in zip(items, keep, strict=True) if not kept for o in item.owners)
    return keep, dict(lost)


def _costs(items: Sequence[CapCost], staying: Sequence[int]) -> dict[int, float]:
    """What each item takes of the cap of each of its owners."""
    total, n = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for i in staying:
        _, weight, _, side = items[i]
        total[side] += weight
        n[side] += 1
    scale = {side: n[side] / total[side] if total[side] else 1.0 for side in n}
    costs = {}
    for i in staying:
        _, weight, owners, side = items[i]
        if owners:
            costs[i] = max(1.0, weight * scale[side]) / len(owners)
    return costs


def _within_caps(
    items: Sequence[CapCost], costs: dict[int, float], staying: list[int], limit_of: CapLimit
) -> list[int]:
    """The items with which every owner keeps to its cap.

    A fixed point: the caps for n items leave n' <= n, whose caps are smaller, and so on. It usually ends
    after a few rounds; if not, the caps of a single item, the smallest there are, end it.
    """
    totals: dict[Hashable, float] = {}
    for i in staying:
        for owner in items[i].owners:
            totals[owner] = totals.get(owner, 0.0) + costs[i]
    limits: dict[Hashable, float] = {}
    order: list[int] = []
    kept, n = staying, -1
    for _ in range(MAX_ROUNDS):
        if len(kept) == n:
            return kept
        n = len(kept)
        exceeded = {owner: cap for owner, total in totals.items() if total > (cap := limit_of(owner, n))}
        if exceeded.keys() != limits.keys():
            order = _hash_order(items, staying, set(exceeded))
        limits = exceeded
        kept = _fill(items, costs, staying, order, limits)
    limits = {owner: cap for owner, total in totals.items() if total > (cap := limit_of(owner, 1))}
    return _fill(items, costs, staying, _hash_order(items, staying, set(limits)), limits)


def _hash_order(items: Sequence[CapCost], staying: Sequence[int], owners: set[Hashable]) -> list[int]:
    """The items of some owners in an order by hash."""
    theirs = [i for i in staying if not owners.isdisjoint(items[i].owners)]
    return sorted(theirs, key=lambda i: (unit(0, "cap", items[i].id), items[i].id))


def _fill(
    items: Sequence[CapCost],
    costs: dict[int, float],
    staying: list[int],
    order: Sequence[int],
    limits: dict[Hashable, float],
) -> list[int]:
    """`staying` without the items for which a limited owner has no room left; the first item of an owner
    always fits."""
    if not limits:
        return staying
    left, removed = dict(limits), set()
    for i in order:
        limited = [owner for owner in items[i].owners if owner in left]
        if any(left[owner] + 1e-9 < costs[i] and left[owner] < limits[owner] for owner in limited):
            removed.add(i)
            continue
        for owner in limited:
            left[owner] -= costs[i]
    return [i for i in staying if i not in removed]


def class_weights(desirable: Sequence[bool], groups: Sequence[Hashable], clip: float) -> list[float]:
    """Half the inverse probability of each verdict within its group: where most prompts of one kind please
    and most of another do not, a verdict says more about the kind than about the answer. Probabilities are
    shares smoothed by one verdict of each sort; weights are between 1 / clip and clip."""
    n_up: Counter[Hashable] = Counter()
    n: Counter[Hashable] = Counter(groups)
    for up, group in zip(desirable, groups, strict=True):
        n_up[group] += up
    weights = []
    for up, group in zip(desirable, groups, strict=True):
        p_up = (n_up[group] + 1) / (n[group] + 2)
        weights.append(min(clip, max(1 / clip, 0.5 / (p_up if up else 1 - p_up))))
    return weights


def balance(weights: Sequence[float], desirable: Sequence[bool]) -> list[float]:
    """Weights with mean 1 whose sum over the desirable is between 1 and 4/3 times that over the others: one
    factor moves the desirable side. Unchanged where there is only one side."""
    up = math.fsum(w for w, d in zip(weights, desirable, strict=True) if d)
    down = math.fsum(w for w, d in zip(weights, desirable, strict=True) if not d)
    if not up or not down:
        return list(weights)
    low, high = KTO_BALANCE
    factor = min(high, max(low, up / down)) * down / up
    return normalise([w * factor if d else w for w, d in zip(weights, desirable, strict=True)])
