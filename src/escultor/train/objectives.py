"""The three objectives, pure: tensors in, a sum and its weight out. The loop alone divides.

K labelled tokens, S sequences, P pairs, V vocabulary. Log-probabilities are natural logarithms.
"""

from __future__ import annotations

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


def nll(logp: Tensor, weight: Tensor) -> Loss:
    """Negative log-likelihood of the labelled tokens: -sum_k w_k log p(y_k); weight: sum_k w_k.

    Args: logp, weight (K,). A uniform model has nll = ln V.
    """
    _same_shape("logp", logp, "weight", weight)
    return Loss(-(logp * weight).sum(), float(weight.sum()))


def sequence_sums(values: Tensor, sequence: Tensor, sequences: int) -> Tensor:
    """Sum (K,) values by the sequence each belongs to: (S,)."""
    return torch.zeros(sequences, dtype=values.dtype, device=values.device).index_add(0, sequence, values)


def dpo(
    logp: Tensor,
    reference_logp: Tensor,
    sequence: Tensor,
    sequences: int,
    chosen: Tensor,
    rejected: Tensor,
    weight: Tensor,
    beta: float,
    nll_weight: float = 0.0,
    flip_rate: Tensor | None = None,
) -> Loss:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, eq. 7):

        l(m) = -log sigmoid(m),  m = beta * [(s_w - s_w_ref) - (s_l - s_l_ref)],
        s = sum of the response's log-probs

    A pair whose label is the wrong way round with probability e = `flip_rate` has the unbiased loss
    [(1 - e) l(m) - e l(-m)] / (1 - 2e) (robust DPO; Chowdhury et al. 2024, arXiv:2403.00409, eq. 12).
    Added is `nll_weight` times the chosen response's nll per token (RPO; Pang et al. 2024,
    arXiv:2404.19733, eq. 1). Args: logp, reference_logp, sequence (K,); chosen, rejected, weight,
    flip_rate (P,). At the reference it is ln 2; swapping the sides negates the margin.
    """
    _same_shape("logp", logp, "reference_logp", reference_logp)
    _same_shape("chosen", chosen, "rejected", rejected)
    _same_shape("chosen", chosen, "weight", weight)
    ratio = sequence_sums(logp - reference_logp, sequence, sequences)  # (S,)
    reward_chosen, reward_rejected = beta * ratio[chosen], beta * ratio[rejected]  # (P,)
    margin = reward_chosen - reward_rejected
    losses = -F.logsigmoid(margin)
    if flip_rate is not None:
        _same_shape("chosen", chosen, "flip_rate", flip_rate)
        losses = ((1 - flip_rate) * losses + flip_rate * F.logsigmoid(-margin)) / (1 - 2 * flip_rate)
    if nll_weight:
        length = sequence_sums(torch.ones_like(logp), sequence, sequences)
        losses = losses - nll_weight * (sequence_sums(logp, sequence, sequences) / length)[chosen]
    sums = {
        "margin": (margin * weight).sum(),
        "reward_chosen": (reward_chosen * weight).sum(),
        "reward_rejected": (reward_rejected * weight).sum(),
        "accuracy": ((margin > 0) * weight).sum(),
    }
    return Loss((losses * weight).sum(), float(weight.sum()), {k: v.detach() for k, v in sums.items()})


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
    _same_shape("logits", logits, "teacher_logits", teacher_logits)
    _same_shape("target", target, "weight", weight)
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


def _same_shape(name: str, a: Tensor, other: str, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"{name} {tuple(a.shape)} and {other} {tuple(b.shape)} must have one shape")
