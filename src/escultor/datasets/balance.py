"""How many rows to keep of each value of a label, from target shares and the rows available."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from escultor.config.curation import Balance
from escultor.errors import DataError

REST = "*"
UNLABELLED = "unlabelled"
WATCHED = ("domain", "purpose")


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
    for name in order[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def allocate(
    supply: Mapping[str, int], targets: Mapping[str, float], rows: int | None = None
) -> dict[str, int]:
    """How many rows to keep of each value: never more than its supply.

    Without `rows`, as many as meet the targets within one row: the scarcest value that has any rows limits
    the sum. With `rows`, that many as far as the supply allows, by water-filling: what one value lacks goes
    to the others by their targets. Values without a target share that of `*` in proportion to their supply;
    without `*` they get none. Independent of order, and idempotent.
    """
    groups = {
        name: supply[name] for name in sorted(supply) if supply[name] and name in targets and name != REST
    }
    rest = {name: n for name, n in sorted(supply.items()) if n and name not in groups}
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


def count_values(code_counts: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Rows by value, sorted by name, from how often each code (values,) of `names` occurs."""
    return {name: int(n) for name, n in sorted(zip(names, code_counts, strict=True)) if n}


def watched_labels(settings: Balance) -> tuple[str, ...]:
    """The labels whose balance is checked: those with targets, domain and purpose."""
    return tuple(dict.fromkeys((*settings.targets, *WATCHED)))


def missing_values(label: str, counts: Mapping[str, int], targets: Mapping[str, float]) -> list[str]:
    """A warning for each target value without a row. Raises DataError if no target value has one."""
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


def dominant_value(label: str, counts: Mapping[str, int], limit: float) -> list[str]:
    """A warning if one value has a larger share of the rows than the limit."""
    total = sum(counts.values())
    name, most = max(Counter(counts).items(), key=lambda pair: (pair[1], pair[0]), default=("", 0))
    if not total or round(most / total, 2) <= limit or (len(counts) == 1 and name == UNLABELLED):
        return []
    if name == UNLABELLED:
        return [f"{most / total:.0%} of the rows have no {label}: their balance is unknown"]
    kind = f"{label} " if label != "domain" else ""
    return [f"{most / total:.0%} {kind}{name}: the model will be good at {kind}{name} and worse elsewhere"]
