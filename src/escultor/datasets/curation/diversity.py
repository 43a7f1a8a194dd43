"""Diversity of rows: the values of each label, their entropy, and how many the targets ask for more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from escultor.config.curation import Diversity
from escultor.datasets.curation.labels import LABELS, UNLABELLED

LabelTally = dict[str, Counter[str]]  # rows by value, by label


def empty_tally() -> LabelTally:
    """The tally of no rows."""
    return {name: Counter() for name in LABELS}


@dataclass(frozen=True, slots=True)
class LabelDiversity:
    """The diversity of one label of a set of rows."""

    label: str
    values: int  # distinct ones, without unlabelled rows
    entropy: float  # bits
    evenness: float  # entropy over that of as many equal shares; 1 for a single value
    missing: int  # values fewer than a diverse dataset has
    largest: str
    largest_share: float


def label_diversity(label: str, counts: Mapping[str, int], target: int | None) -> LabelDiversity:
    """The diversity of a label by its rows by value. Unlabelled rows count in the shares, not as a value."""
    total = sum(counts.values())
    shares = [n / total for n in counts.values() if n]
    entropy = sum(-p * math.log2(p) for p in shares)
    values = sum(1 for value, n in counts.items() if n and value != UNLABELLED)
    largest = max(counts.items(), key=lambda pair: (pair[1], pair[0]), default=("", 0))
    return LabelDiversity(
        label,
        values=values,
        entropy=entropy,
        evenness=entropy / math.log2(len(shares)) if len(shares) > 1 else 1.0,
        missing=max(0, target - values) if target else 0,
        largest=largest[0],
        largest_share=largest[1] / total if total else 0.0,
    )


def diversity_of(tally: LabelTally, targets: Diversity) -> tuple[LabelDiversity, ...]:
    """The diversity of every label of a tally against its target."""
    target = {"domain": targets.domains, "style": targets.styles, "length": targets.lengths}
    return tuple(label_diversity(name, tally[name], target.get(name)) for name in LABELS)
