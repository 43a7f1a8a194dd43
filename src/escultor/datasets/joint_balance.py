"""Targets over several labels at once: how many rows of each combination of values, by a linear programme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from escultor.datasets.balance import REST, apportioned
from escultor.errors import DataError

LabelCell = tuple[str, ...]  # a value of each label
SPREAD = 1e-3  # what being unlike the supply costs, against a row beside a target
SLACK = 1e-6
ROUNDS = 200


def allocate_jointly(
    supply: Mapping[LabelCell, int],
    labels: Sequence[str],
    targets: Sequence[Mapping[str, float]],
    rows: int | None = None,
) -> dict[LabelCell, int]:
    """How many of each combination: never more than there is. `targets` are shares by value, one for each
    of `labels`; `*` stands for all values without a target of their own, which else get none.

    Without `rows`, the most with which every target is met; with `rows`, that many as far as there are, with
    as few rows as can be beside the targets. Combinations stay in proportion to the supply as far as targets
    let them; targets are met but for the rounding of combinations. Values that are not there at all
    are left out of the targets. Raises DataError where no rows meet all targets.
    """
    groups = {cell: _groups(cell, targets) for cell in sorted(supply) if supply[cell]}
    cells = [cell for cell, found in groups.items() if found is not None]
    room = np.asarray([supply[cell] for cell in cells], dtype=np.float64)  # (c,)
    wanted: list[tuple[np.ndarray, dict[str, float]]] = []  # of each label: (c,) group of a cell, and shares
    for k, shares in enumerate(targets):
        values = np.asarray([(groups[cell] or ())[k] for cell in cells], dtype=object)
        there = {value: share for value, share in shares.items() if (values == value).any()}
        wanted.append((values, {v: share / sum(there.values()) for v, share in sorted(there.items())}))
    total = _most(room, wanted) if rows is None else min(rows, int(room.sum()))
    if total < 1:
        names = " and ".join(labels)
        remedy = (
            "loosen the targets, balance one label, or give `rows`, with which they are met as far as can be"
        )
        got = f"{len(cells)} combinations that are wanted, {int(room.sum()):,} rows"
        raise DataError(f"the targets of {names} cannot be met together", got, None, remedy)
    dealt = _rounded(_dealt(room, wanted, total), room, total)
    return dict.fromkeys(supply, 0) | dict(zip(cells, dealt.tolist(), strict=True))


def _groups(cell: LabelCell, targets: Sequence[Mapping[str, float]]) -> LabelCell | None:
    """Which target each of a cell's values counts for; None where one of them is not wanted."""
    found = [
        value if value in shares and value != REST else REST if REST in shares else None
        for value, shares in zip(cell, targets, strict=True)
    ]
    return None if None in found else tuple(str(each) for each in found)


def _most(room: np.ndarray, wanted: Sequence[tuple[np.ndarray, dict[str, float]]]) -> int:
    """The most rows with which every target is met, in fractions of rows."""
    from scipy.optimize import linprog

    if not len(room):
        return 0
    lines = [
        np.append((values == value).astype(float), -share)
        for values, shares in wanted
        for value, share in shares.items()
    ]
    cost = np.append(np.zeros(len(room)), -1.0)
    bounds = [*((0.0, most) for most in room), (0.0, None)]
    found = linprog(cost, A_eq=np.stack(lines), b_eq=np.zeros(len(lines)), bounds=bounds)
    return int(found.x[-1] + SLACK)


def _dealt(room: np.ndarray, wanted: Sequence[tuple[np.ndarray, dict[str, float]]], total: int) -> np.ndarray:
    """(c,) rows of each cell that sum to `total`: as few beside the targets as can be, then as near to the
    raked supply. Variables: rows of the cells, their distance from that, the targets' misses."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, csr_array, eye_array, hstack, vstack

    members, goals = [], []
    for values, shares in wanted:
        for value, goal in apportioned(total, shares).items():
            members.append(values == value)
            goals.append(float(goal))
    count, width, even = len(room), len(goals), _raked(room, members, goals)
    belongs = csr_array(np.stack(members).astype(float))  # (g, c)
    eye, miss = eye_array(count), eye_array(width)
    apart, beside = coo_array((count, width)), coo_array((width, count))
    limits = vstack(
        [
            hstack([eye, -eye, apart]),
            hstack([-eye, -eye, apart]),
            hstack([belongs, beside, -miss]),
            hstack([-belongs, beside, -miss]),
        ]
    )
    most = np.concatenate([even, -even, goals, [-goal for goal in goals]])
    cost = np.concatenate([np.zeros(count), np.full(count, SPREAD), np.ones(width)])
    whole = csr_array(np.concatenate([np.ones(count), np.zeros(count + width)])[None])
    bounds = [*((0.0, each) for each in room), *[(0.0, None)] * (count + width)]
    found = linprog(cost, A_ub=limits, b_ub=most, A_eq=whole, b_eq=[float(total)], bounds=bounds)
    return np.clip(found.x[:count], 0, room)


def _raked(room: np.ndarray, members: Sequence[np.ndarray], goals: Sequence[float]) -> np.ndarray:
    """(c,) the supply with each group scaled to its goal, again and again (Deming and Stephan 1940), and held
    below what there is: every combination keeps something where the goals let it."""
    found = room.copy()
    for _ in range(ROUNDS):
        for own, goal in zip(members, goals, strict=True):
            found[own] *= goal / max(found[own].sum(), SLACK)
        np.minimum(found, room, out=found)
    return found


def _rounded(exact: np.ndarray, room: np.ndarray, total: int) -> np.ndarray:
    """(c,) whole numbers that sum to `total`, none above its room: the largest remainders are rounded up."""
    dealt = np.floor(exact + SLACK).astype(np.int64)
    rest = np.where(dealt < room, exact - dealt, -1.0)
    for at in np.argsort(-rest, kind="stable"):
        if dealt.sum() >= total:
            break
        dealt[at] += int(dealt[at] < room[at])
    return dealt
