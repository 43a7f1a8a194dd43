"""Objectives on what people preferred, pure: a family over shared margins, and one for unpaired verdicts.

Of a response y to a prompt x, r(y) = log pi(y|x) - log pi_ref(y|x) is the log-ratio to the reference: a sum
over the response's tokens, or their mean where lengths are normalised. Of a pair, h = r(chosen) - r(rejected)
is the margin. A loss of the family is a function of (h, beta, flip rate): a row in `LOSSES`.

K labelled tokens, S sequences, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from escultor.train.objectives import Loss, same_shape, sequence_sums

PairLoss = Callable[[Tensor, float, Tensor], Tensor]  # margin h (P,), beta, flip rate (P,) -> (P,)


def sigmoid(h: Tensor, beta: float, flip_rate: Tensor) -> Tensor:
    """l(h) = -log sigmoid(beta h): DPO (Rafailov et al. 2023, arXiv:2305.18290, eq. 7). ln 2 at h = 0."""
    return -F.logsigmoid(beta * h)


def robust(h: Tensor, beta: float, flip_rate: Tensor) -> Tensor:
    """[(1 - e) l(h) - e l(-h)] / (1 - 2e): unbiased where labels are the wrong way round with probability e
    (Chowdhury et al. 2024, arXiv:2403.00409, eq. 12). Unbounded below; e = 0 is `sigmoid`."""
    right, wrong = -F.logsigmoid(beta * h), -F.logsigmoid(-beta * h)
    return ((1 - flip_rate) * right - flip_rate * wrong) / (1 - 2 * flip_rate)


def cdpo(h: Tensor, beta: float, flip_rate: Tensor) -> Tensor:
    """(1 - e) l(h) + e l(-h): conservative DPO (Mitchell 2023, "A note on DPO with noisy preferences", eq.
    3). Smallest at beta h = ln((1 - e) / e)."""
    return -(1 - flip_rate) * F.logsigmoid(beta * h) - flip_rate * F.logsigmoid(-beta * h)


def ipo(h: Tensor, beta: float, flip_rate: Tensor) -> Tensor:
    """(h - 1 / (2 beta))^2: IPO (Azar et al. 2023, arXiv:2310.12036, eq. 17; beta is the paper's tau)."""
    return (h - 1 / (2 * beta)) ** 2


def hinge(h: Tensor, beta: float, flip_rate: Tensor) -> Tensor:
    """max(0, 1 - beta h): SLiC's calibration (Zhao et al. 2023, arXiv:2305.10425, eq. 1) on log-ratios."""
    return torch.relu(1 - beta * h)


LOSSES: dict[str, PairLoss] = {
    "sigmoid": sigmoid,
    "robust": robust,
    "cdpo": cdpo,
    "ipo": ipo,
    "hinge": hinge,
}


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
    loss: PairLoss = robust,
    length_normalised: bool = False,
) -> Loss:
    """Direct preference optimisation: `loss` on the margins h of P pairs,

        sum_i w_i [loss(h_i) - nll_weight / |y_w| * sum_t log p(y_w,t)];   weight: sum_i w_i.

    With `length_normalised` the log-ratios are means per token (for `sigmoid`: LN-DPO; Lambert et al. 2024,
    arXiv:2411.15124, eq. 6). Added is `nll_weight` times the chosen response's nll per token (RPO; Pang et
    al. 2024, arXiv:2404.19733, eq. 1). Args: logp, reference_logp, sequence (K,); chosen, rejected, weight,
    flip_rate (P,), `chosen` and `rejected` being sequence numbers. Swapping the sides negates the margin.
    """
    same_shape("logp", logp, "reference_logp", reference_logp)
    same_shape("chosen", chosen, "rejected", rejected)
    same_shape("chosen", chosen, "weight", weight)
    flip_rate = torch.zeros_like(weight) if flip_rate is None else flip_rate
    same_shape("chosen", chosen, "flip_rate", flip_rate)
    length = sequence_sums(torch.ones_like(logp), sequence, sequences)  # (S,)
    ratio = sequence_sums(logp - reference_logp, sequence, sequences)  # (S,)
    if length_normalised:
        ratio = ratio / length
    h = ratio[chosen] - ratio[rejected]  # (P,)
    losses = loss(h, beta, flip_rate)
    if nll_weight:
        losses = losses - nll_weight * (sequence_sums(logp, sequence, sequences) / length)[chosen]
    sums = {
        "margin": (beta * h * weight).sum(),
        "reward_chosen": (beta * ratio[chosen] * weight).sum(),
        "reward_rejected": (beta * ratio[rejected] * weight).sum(),
        "accuracy": ((h > 0) * weight).sum(),
    }
    return Loss((losses * weight).sum(), float(weight.sum()), {k: v.detach() for k, v in sums.items()})


def log_ratios(logp: Tensor, reference_logp: Tensor, sequence: Tensor, sequences: int) -> Loss:
    """The summed log-ratio of S sequences, and S: over a step, its mean is the divergence that `kto`
    measures by. Args: logp, reference_logp, sequence (K,)."""
    same_shape("logp", logp, "reference_logp", reference_logp)
    return Loss((logp - reference_logp).sum(), float(sequences))


def kto(
    logp: Tensor,
    reference_logp: Tensor,
    sequence: Tensor,
    sequences: int,
    desirable: Tensor,
    weight: Tensor,
    divergence: float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Loss:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8) on S verdicts:

        desirable    lambda_D (1 - sigmoid(beta (r - z)))
        undesirable  lambda_U (1 - sigmoid(beta (z - r))),   z = max(0, divergence)

    `divergence` is the mean log-ratio of the step's prompts with responses to other prompts (`log_ratios`),
    a constant to the gradient. Args: logp, reference_logp, sequence (K,); desirable (S,) bool; weight (S,).
    At the reference it is lambda / 2.
    """
    same_shape("logp", logp, "reference_logp", reference_logp)
    same_shape("desirable", desirable, "weight", weight)
    r = sequence_sums(logp - reference_logp, sequence, sequences)  # (S,)
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
