"""Distillation: KL divergence from a teacher's softened distribution, mixed with cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from escultor.train.objectives.loss import Loss, check_same_shape


def kd(
    logits: Tensor, teacher_logits: Tensor, target: Tensor, weight: Tensor, temperature: float, alpha: float
) -> Loss:
    """Distillation (Hinton et al. 2015, arXiv:1503.02531, §2), per labelled token:

        alpha * T^2 * KL(teacher_T || student_T) + (1 - alpha) * cross-entropy

    T^2 keeps the share of the soft part when T changes. With teacher = student and alpha = 1 both value and
    gradient are 0. Args: logits, teacher_logits (K, V); target, weight (K,).
    """
    check_same_shape("logits", logits, "teacher_logits", teacher_logits)
    check_same_shape("target", target, "weight", weight)
    logits, teacher_logits = _at_least_float32(logits), _at_least_float32(teacher_logits)
    student = F.log_softmax(logits / temperature, dim=-1)  # (K, V)
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    kl = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)  # (K,)
    ce = F.cross_entropy(logits, target, reduction="none")  # (K,)
    losses = alpha * temperature**2 * kl + (1 - alpha) * ce
    sums = {"kl": (kl * weight).sum().detach(), "nll": (ce * weight).sum().detach()}
    return Loss((losses * weight).sum(), float(weight.sum()), sums)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
