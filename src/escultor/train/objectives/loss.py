"""The value that every objective returns.

An objective is a pure function: tensors in, a sum and its weight out. Only the training loop divides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """A summed loss with its gradient, and the weight that a step's sum is divided by. `sums` are further
    figures for the metrics, summed over the same weight."""

    total: Tensor  # ()
    weight: float
    sums: dict[str, Tensor] = field(default_factory=dict)


def add_losses(parts: Iterable[Loss]) -> Loss:
    """The loss of all tokens, from the losses of at least one part of them."""
    first, *rest = parts
    total, weight, sums = first.total, first.weight, dict(first.sums)
    for part in rest:
        total, weight = total + part.total, weight + part.weight
        sums = {name: value + part.sums[name] for name, value in sums.items()}
    return Loss(total, weight, sums)


def check_same_shape(name: str, a: Tensor, other_name: str, b: Tensor) -> None:
    """Raise ValueError with both shapes where they differ."""
    if a.shape != b.shape:
        raise ValueError(f"{name} {tuple(a.shape)} and {other_name} {tuple(b.shape)} must have one shape")
