"""How many rows of each value of a label: shares that are wanted against what there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from escultor.config.curation import Balance
from escultor.errors import DataError

REST = "*"
UNLABELLED = "unlabelled"
WATCHED = ("domain", "purpose")


def apportioned(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`total` dealt out by shares that sum to 1, whole numbers by the largest remainders, ties by name; one
    at least to each where there are so many."""
    small = {name for name, share in shares.items() if total >= len(shares) and total * share < 1}
    rest = {name: share for name, share in shares.items() if name not in small}
    if small and rest:
        whole = sum(rest.values())
        given = apportioned(total - len(small), {name: share / whole for name, share in rest.items()})
        return dict.fromkeys(small, 1) | given
    exact = {name: total * share for name, share in shares.items()}
    dealt = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(shares, key=lambda name: (dealt[name] - exact[name], name))
    for name in by_remainder[: total - sum(dealt.values())]:
        dealt[name] += 1
    return dealt


def allocate(
    supply: Mapping[str, int], targets: Mapping[str, float], rows: int | None = None
) -> dict[str, int]:
    """How many of each: never more than there is, nothing twice.

    Without `rows`, as many as meet the targets within a row: the scarcest of those that are there at all
    sets the sum. With `rows`, that many as far as there are, by water-filling: what one kind lacks is
    dealt out to the others by their targets. Kinds without a target share that of `*` in proportion to
    what there is of them; without `*` they get none. Depends on no order; applied to its own result it
    changes nothing.
    """
    groups = {
        name: supply[name] for name in sorted(supply) if supply[name] and name in targets and name != REST
    }
    rest = {name: n for name, n in sorted(supply.items()) if n and name not in groups}
    if REST in targets and rest:
        groups[REST] = sum(rest.values())
    nothing = dict.fromkeys(supply, 0)
    if not groups:
        return nothing
    whole = sum(targets[name] for name in groups)
    shares = {name: targets[name] / whole for name in groups}
    dealt = _largest(groups, shares) if rows is None else _filled(groups, shares, rows)
    others = dealt.pop(REST, 0)
    if others:
        dealt |= _proportional(others, rest)
    return nothing | dealt


def _proportional(total: int, supply: Mapping[str, int]) -> dict[str, int]:
    """`total` of a supply that is larger, in proportion to it: in whole numbers, so that nothing is lost."""
    whole = sum(supply.values())
    dealt = {name: total * n // whole for name, n in supply.items()}
    by_remainder = sorted(supply, key=lambda name: (-(total * supply[name] % whole), name))
    for name in by_remainder[: total - sum(dealt.values())]:
        dealt[name] += 1
    return dealt


def _largest(supply: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    if apportioned(sum(supply.values()), shares) == supply:
        return dict(supply)  # met already; rounding must not take a row away
    most = min(int(supply[name] / share + 1e-9) for name, share in shares.items())
    total = max(len(shares), most)
    while any(n > supply[name] for name, n in apportioned(total, shares).items()):
        total -= 1
    return apportioned(total, shares)


def _filled(supply: Mapping[str, int], shares: Mapping[str, float], rows: int) -> dict[str, int]:
    left, dealt, open_ = min(rows, sum(supply.values())), {}, dict(shares)
    while open_:
        whole = sum(open_.values())
        trial = apportioned(left, {name: share / whole for name, share in open_.items()})
        full = [name for name, n in trial.items() if n >= supply[name]]
        if not full:
            return dealt | trial
        for name in full:
            dealt[name] = supply[name]
            left -= supply[name]
            del open_[name]
    return dealt


def counted(found: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """How many rows have each value, from how often each code (values,) of `names` is there."""
    return {name: int(n) for name, n in sorted(zip(names, found, strict=True)) if n}


def watched(wanted: Balance) -> tuple[str, ...]:
    """The labels that are looked at: those with targets, and what a row is about."""
    return tuple(dict.fromkeys((*wanted.targets, *WATCHED)))


def lacking(label: str, counts: Mapping[str, int], targets: Mapping[str, float]) -> list[str]:
    """What is wanted of a label and not there at all, in words. Raises DataError where that is everything."""
    if not set(counts) & set(targets) and REST not in targets:
        raise DataError(
            f"no row has a {label} that is wanted",
            ", ".join(sorted(counts)) or "no rows",
            ", ".join(targets),
            "correct balance.targets, or give the rows labels",
        )
    return [
        f"no row of {label} {name}, of which {share:.0%} were wanted"
        for name, share in targets.items()
        if name != REST and name not in counts
    ]


def lopsided(label: str, counts: Mapping[str, int], limit: float) -> list[str]:
    """A warning where one value has a larger share than the limit, in the words a person needs."""
    total = sum(counts.values())
    name, most = max(Counter(counts).items(), key=lambda pair: (pair[1], pair[0]), default=("", 0))
    if not total or round(most / total, 2) <= limit or (len(counts) == 1 and name == UNLABELLED):
        return []
    if name == UNLABELLED:
        return [f"{most / total:.0%} of the rows name no {label}: how they are balanced is not known"]
    kind = f"{label} " if label != "domain" else ""
    return [f"{most / total:.0%} {kind}{name}: the model will be good at {kind}{name} and worse elsewhere"]
