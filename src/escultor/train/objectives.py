"""Objectives on single texts, pure: tensors in, a sum and its weight out. The loop alone divides.

Those on preferences stand in `preferences`. K labelled tokens, S sequences, V vocabulary. Log-probabilities
are natural logarithms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """`total` is a sum with a gradient, `weight` what the loop divides the sum of sums by. `sums` are
    further figures, summed over the same weight."""

    total: Tensor  # ()
    weight: float
    sums: dict[str, Tensor] = field(default_factory=dict)


def summed(parts: Iterable[Loss]) -> Loss:
    """The loss of all tokens from those of parts of them, one at least."""
    first, *rest = parts
    total, weight, sums = first.total, first.weight, dict(first.sums)
    for part in rest:
        total, weight = total + part.total, weight + part.weight
        sums = {name: value + part.sums[name] for name, value in sums.items()}
    return Loss(total, weight, sums)


def nll(logp: Tensor, weight: Tensor) -> Loss:
    """Negative log-likelihood of the labelled tokens: -sum_k w_k log p(y_k); weight: sum_k w_k.

    A step's loss is then a mean by weight, -sum_k w_k log p(y_k) / sum_k w_k over all its tokens: an example
    of weight 2 is the example given twice, and weights that are all alike change nothing. Args: logp, weight
    (K,). A uniform model has nll = ln V.
    """
    same_shape("logp", logp, "weight", weight)
    return Loss(-(logp * weight).sum(), float(weight.sum()))


def sequence_sums(values: Tensor, sequence: Tensor, sequences: int) -> Tensor:
    """Sum (K,) values by the sequence each belongs to: (S,)."""
    return torch.zeros(sequences, dtype=values.dtype, device=values.device).index_add(0, sequence, values)


def kd(
    logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    weight: Tensor,
    temperature: float,
    alpha: float,
) -> Loss:
    """Distillation (Hinton et al. 2015, arXiv:1503.02531, §2), per labelled token:

        alpha * T^2 * KL(teacher_T || student_T) + (1 - alpha) * cross-entropy

    T^2 keeps the share of the soft part when T changes. Args: logits, teacher_logits (K, V); target,
    weight (K,). With teacher = student and alpha = 1 both value and gradient are 0.
    """
    same_shape("logits", logits, "teacher_logits", teacher_logits)
    same_shape("target", target, "weight", weight)
    logits, teacher_logits = _wide(logits), _wide(teacher_logits)
    student = F.log_softmax(logits / temperature, dim=-1)  # (K, V)
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    kl = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)  # (K,)
    ce = F.cross_entropy(logits, target, reduction="none")  # (K,)
    losses = alpha * temperature**2 * kl + (1 - alpha) * ce
    sums = {"kl": (kl * weight).sum().detach(), "nll": (ce * weight).sum().detach()}
    return Loss((losses * weight).sum(), float(weight.sum()), sums)


def _wide(values: Tensor) -> Tensor:
    """At least float32."""
    return values if values.dtype == torch.float64 else values.float()


def same_shape(name: str, a: Tensor, other: str, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"{name} {tuple(a.shape)} and {other} {tuple(b.shape)} must have one shape")
