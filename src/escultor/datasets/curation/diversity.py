"""How varied rows are: values of each label, their entropy, and what is missing against the targets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from escultor.config.curation import Diversity
from escultor.datasets.curation.labels import LABELS, UNLABELLED

LabelTally = dict[str, Counter[str]]  # rows by value, by label


def tally() -> LabelTally:
    """No rows yet."""
    return {name: Counter() for name in LABELS}


@dataclass(frozen=True, slots=True)
class LabelDiversity:
    """One label of a set of rows."""

    label: str
    values: int  # different ones, unlabelled rows aside
    entropy: float  # bits
    evenness: float  # entropy over that of as many equal shares; 1 for a single value
    missing: int  # values that a varied dataset would have more
    largest: str
    largest_share: float


def spread(label: str, counts: Mapping[str, int], wanted: int | None) -> LabelDiversity:
    """What the counts of a label's values say. Unlabelled rows are a share, but no value of their own."""
    total = sum(counts.values())
    shares = [n / total for n in counts.values() if n]
    entropy = sum(-p * math.log2(p) for p in shares)
    known = sum(1 for value, n in counts.items() if n and value != UNLABELLED)
    largest = max(counts.items(), key=lambda pair: (pair[1], pair[0]), default=("", 0))
    return LabelDiversity(
        label,
        known,
        entropy,
        entropy / math.log2(len(shares)) if len(shares) > 1 else 1.0,
        max(0, wanted - known) if wanted else 0,
        largest[0],
        largest[1] / total if total else 0.0,
    )


def spreads(tally: LabelTally, wanted: Diversity) -> tuple[LabelDiversity, ...]:
    """Every label of a tally against its target."""
    targets = {"domain": wanted.domains, "style": wanted.styles, "length": wanted.lengths}
    return tuple(spread(name, tally[name], targets.get(name)) for name in LABELS)
