"""How many rows to keep of each value of a label, or of each combination of values of several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from escultor.errors import DataError

LabelCell = tuple[str, ...]  # a value of each label
REST = "*"  # the target of all values without one
EVENNESS_COST = 1e-3  # of a row away from the raked supply, against 1 for a row that misses a target
SLACK = 1e-6
RAKING_ROUNDS = 200


def apportion(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Divide `total` by shares that sum to 1 into whole numbers (largest remainders, ties by name); each
    share gets at least one if `total` suffices."""
    small = {name for name, share in shares.items() if total >= len(shares) and total * share < 1}
    rest = {name: share for name, share in shares.items() if name not in small}
    if small and rest:
        large = apportion(total - len(small), _normalized(rest))
        return dict.fromkeys(small, 1) | large
    exact = {name: total * share for name, share in shares.items()}
    counts = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(shares, key=lambda name: (counts[name] - exact[name], name))
    return _round_up(counts, by_remainder, total)


def _normalized(shares: Mapping[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def _round_up(counts: dict[str, int], order: Sequence[str], total: int) -> dict[str, int]:
    """One more to the first names of an order, until the counts sum to `total`."""
    return counts | {name: counts[name] + 1 for name in order[: total - sum(counts.values())]}


def allocate(
    supply: Mapping[str, int], targets: Mapping[str, float], rows: int | None = None
) -> dict[str, int]:
    """How many rows to keep of each value: never more than its supply.

    Without `rows`, as many as meet the targets within one row: the scarcest value that has any rows limits
    the sum. With `rows`, that many as far as the supply allows, by water-filling: what one value lacks goes
    to the others by their targets. Values without a target share that of `*` in proportion to their supply;
    without `*` they get none. Independent of order, and idempotent.
    """
    present = {name: n for name, n in sorted(supply.items()) if n}
    groups = {name: n for name, n in present.items() if name in targets and name != REST}
    rest = {name: n for name, n in present.items() if name not in groups}
    if REST in targets and rest:
        groups[REST] = sum(rest.values())
    none = dict.fromkeys(supply, 0)
    if not groups:
        return none
    shares = _normalized({name: targets[name] for name in groups})
    counts = _meet_targets(groups, shares) if rows is None else _fill(groups, shares, rows)
    others = counts.pop(REST, 0)
    return none | counts | (_proportional(others, rest) if others else {})


def _proportional(total: int, supply: Mapping[str, int]) -> dict[str, int]:
    """Divide `total` in proportion to a supply of at least as many, in exact integer arithmetic."""
    available = sum(supply.values())
    counts = {name: total * n // available for name, n in supply.items()}
    by_remainder = sorted(supply, key=lambda name: (-(total * supply[name] % available), name))
    return _round_up(counts, by_remainder, total)


def _meet_targets(supply: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """The largest allocation that has the target shares."""
    if apportion(sum(supply.values()), shares) == supply:
        return dict(supply)  # met already; rounding must not take a row away
    total = max(len(shares), min(int(supply[name] / share + 1e-9) for name, share in shares.items()))
    while any(n > supply[name] for name, n in apportion(total, shares).items()):
        total -= 1
    return apportion(total, shares)


def _fill(supply: Mapping[str, int], shares: Mapping[str, float], rows: int) -> dict[str, int]:
    """Allocate `rows` by shares, again and again without the values whose supply is used up."""
    left, counts, unfilled = min(rows, sum(supply.values())), {}, dict(shares)
    while unfilled:
        trial = apportion(left, _normalized(unfilled))
        full = [name for name, n in trial.items() if n >= supply[name]]
        if not full:
            return counts | trial
        for name in full:
            counts[name] = supply[name]
            left -= supply[name]
            del unfilled[name]
    return counts


# --- several labels at once, by linear programming -----------------------------------------------


def allocate_jointly(
    supply: Mapping[LabelCell, int],
    labels: Sequence[str],
    targets: Sequence[Mapping[str, float]],
    rows: int | None = None,
) -> dict[LabelCell, int]:
    """How many rows to keep of each combination: never more than its supply. `targets` are shares by value,
    one mapping for each of `labels`; `*` covers all values without a target, which otherwise get none.

    Without `rows`, the most with which every target is met; with `rows`, that many as far as the supply
    allows, with as few rows off target as possible. Within the targets, combinations stay in proportion to
    the supply. Targets are met up to the rounding of combinations; values without any row are left out of
    the targets. Raises DataError if no rows meet all targets.
    """
    groups = {cell: _groups(cell, targets) for cell in sorted(supply) if supply[cell]}
    cells = [cell for cell, group in groups.items() if group is not None]
    available = np.asarray([supply[cell] for cell in cells], dtype=np.float64)  # (c,)
    wanted: list[tuple[np.ndarray, dict[str, float]]] = []  # of each label: (c,) group of a cell, and shares
    for k, shares in enumerate(targets):
        values = np.asarray([(groups[cell] or ())[k] for cell in cells], dtype=object)
        present = {value: share for value, share in shares.items() if (values == value).any()}
        wanted.append((values, {v: share / sum(present.values()) for v, share in sorted(present.items())}))
    total = _largest_total(available, wanted) if rows is None else min(rows, int(available.sum()))
    if total < 1:
        names = " and ".join(labels)
        remedy = (
            "loosen the targets, balance one label, or set `rows`, with which they are met as far as possible"
        )
        got = f"{len(cells)} combinations with a target, {int(available.sum()):,} rows"
        raise DataError(f"the targets of {names} cannot be met together", got, None, remedy)
    counts = _rounded(_solve(available, wanted, total), available, total)
    return dict.fromkeys(supply, 0) | dict(zip(cells, counts.tolist(), strict=True))


def _groups(cell: LabelCell, targets: Sequence[Mapping[str, float]]) -> LabelCell | None:
    """The target that each of a cell's values counts for; None if one of them has no target."""
    groups = [
        value if value in shares and value != REST else REST if REST in shares else None
        for value, shares in zip(cell, targets, strict=True)
    ]
    return None if None in groups else tuple(str(group) for group in groups)


def _largest_total(available: np.ndarray, wanted: Sequence[tuple[np.ndarray, dict[str, float]]]) -> int:
    """The most rows with which every target is met, rows being divisible: maximise t subject to
    Σ_{c in g} x_c = share_g · t for every group g and 0 ≤ x_c ≤ available_c."""
    from scipy.optimize import linprog

    if not len(available):
        return 0
    equations = [
        np.append((values == value).astype(float), -share)
        for values, shares in wanted
        for value, share in shares.items()
    ]
    cost = np.append(np.zeros(len(available)), -1.0)
    bounds = [*((0.0, most) for most in available), (0.0, None)]
    solution = linprog(cost, A_eq=np.stack(equations), b_eq=np.zeros(len(equations)), bounds=bounds)
    return int(solution.x[-1] + SLACK)


def _solve(
    available: np.ndarray, wanted: Sequence[tuple[np.ndarray, dict[str, float]]], total: int
) -> np.ndarray:
    """(c,) fractional rows of each cell that sum to `total`: as few off target as possible, then as close
    to the raked supply as possible.

    With goals G_g (rows wanted of group g), raked supply e_c and variables x_c (rows of a cell),
    d_c ≥ |x_c − e_c| and m_g ≥ |Σ_{c in g} x_c − G_g|, minimise Σ_g m_g + EVENNESS_COST · Σ_c d_c subject
    to Σ_c x_c = total and 0 ≤ x_c ≤ available_c. An absolute value is two inequalities, so that the
    constraint matrix has, over the columns (x, d, m), the four blocks of rows

         x − d ≤ e,    −x − d ≤ −e,    B x − m ≤ G,    −B x − m ≤ −G,

    where B (g, c) is 1 where cell c belongs to group g. Missing a target by one row costs 1, moving a row
    away from e at most 2 · EVENNESS_COST, so that evenness never overrides a target.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, csr_array, eye_array, hstack, vstack

    members, goals = [], []
    for values, shares in wanted:
        for value, goal in apportion(total, shares).items():
            members.append(values == value)
            goals.append(float(goal))
    cells, groups, even = len(available), len(goals), _raked(available, members, goals)
    belongs = csr_array(np.stack(members).astype(float))  # B (g, c)
    eye, miss = eye_array(cells), eye_array(groups)
    no_miss, no_distance = coo_array((cells, groups)), coo_array((groups, cells))
    constraints = vstack(
        [
            hstack([eye, -eye, no_miss]),
            hstack([-eye, -eye, no_miss]),
            hstack([belongs, no_distance, -miss]),
            hstack([-belongs, no_distance, -miss]),
        ]
    )
    limits = np.concatenate([even, -even, goals, [-goal for goal in goals]])
    cost = np.concatenate([np.zeros(cells), np.full(cells, EVENNESS_COST), np.ones(groups)])
    sum_of_rows = csr_array(np.concatenate([np.ones(cells), np.zeros(cells + groups)])[None])
    bounds = [*((0.0, most) for most in available), *[(0.0, None)] * (cells + groups)]
    solution = linprog(
        cost, A_ub=constraints, b_ub=limits, A_eq=sum_of_rows, b_eq=[float(total)], bounds=bounds
    )
    return np.clip(solution.x[:cells], 0, available)


def _raked(available: np.ndarray, members: Sequence[np.ndarray], goals: Sequence[float]) -> np.ndarray:
    """(c,) the supply raked to the goals (iterative proportional fitting, Deming and Stephan 1940) and kept
    within what is available: every combination keeps some rows where the goals allow it."""
    rows = available.copy()
    for _ in range(RAKING_ROUNDS):
        for member, goal in zip(members, goals, strict=True):
            rows[member] *= goal / max(rows[member].sum(), SLACK)
        np.minimum(rows, available, out=rows)
    return rows


def _rounded(exact: np.ndarray, available: np.ndarray, total: int) -> np.ndarray:
    """(c,) whole numbers that sum to `total` and stay within what is available, by largest remainders."""
    counts = np.floor(exact + SLACK).astype(np.int64)
    remainder = np.where(counts < available, exact - counts, -1.0)
    for cell in np.argsort(-remainder, kind="stable"):
        if counts.sum() >= total:
            break
        counts[cell] += int(counts[cell] < available[cell])
    return counts
