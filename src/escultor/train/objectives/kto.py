"""Kahneman-Tversky optimisation: an objective for responses that are each labelled good or bad."""

from __future__ import annotations

import torch
from torch import Tensor

from escultor.train.objectives.loss import Loss, check_same_shape
from escultor.train.objectives.sequence_logps import SequenceLogps


def log_ratio_sum(logps: SequenceLogps) -> Loss:
    """The summed log-ratio of S sequences, and S. Its mean over a step is the `divergence` of `kto`."""
    return Loss((logps.logp - logps.reference_logp).sum(), float(logps.sequences))


def kto(
    logps: SequenceLogps,
    desirable: Tensor,
    weight: Tensor,
    divergence: float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Loss:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8) on S responses:

        desirable    lambda_D (1 - sigmoid(beta (r - z)))
        undesirable  lambda_U (1 - sigmoid(beta (z - r))),   z = max(0, divergence)

    `divergence` estimates the KL divergence from the reference as the mean log-ratio of the step's prompts,
    each with a response to another prompt (`log_ratio_sum`); it has no gradient. At the reference the loss is
    lambda / 2. Args: desirable (S,) bool; weight (S,).
    """
    check_same_shape("desirable", desirable, "weight", weight)
    r = logps.log_ratios  # (S,)
    gain = beta * (r - max(0.0, divergence))
    losses = torch.where(
        desirable, desirable_weight * torch.sigmoid(-gain), undesirable_weight * torch.sigmoid(gain)
    )
    signed = torch.where(desirable, r, -r).detach()
    sums = {
        "margin": (beta * signed * weight).sum(),
        "accuracy": ((signed > 0) * weight).sum(),
        "desirable": (desirable * weight).sum(),
        "divergence": torch.tensor(divergence) * weight.sum(),
    }
    return Loss((losses * weight).sum(), float(weight.sum()), sums)
