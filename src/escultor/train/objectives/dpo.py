"""Direct preference optimisation: a family of losses over the margins of pairs.

The margin of a pair is h = r(chosen) - r(rejected), where r is the log-ratio to the reference
(`SequenceLogps`). A loss of the family is a function of (h, beta, flip rate) and a row in `LOSSES`.
Shapes: K labelled tokens, S sequences, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from escultor.train.objectives.loss import Loss, check_same_shape
from escultor.train.objectives.sequence_logps import SequenceLogps

PairLoss = Callable[[Tensor, float, Tensor], Tensor]  # margin h (P,), beta, flip rate (P,) -> (P,)


def sigmoid(h: Tensor, beta: float, flip_rate: Tensor) -> Tensor:
    """l(h) = -log sigmoid(beta h): DPO (Rafailov et al. 2023, arXiv:2305.18290, eq. 7). ln 2 at h = 0."""
    return -F.logsigmoid(beta * h)


def robust(h: Tensor, beta: float, flip_rate: Tensor) -> Tensor:
    """[(1 - e) l(h) - e l(-h)] / (1 - 2e): unbiased where a share e of the labels is the wrong way round
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


@dataclass(frozen=True, slots=True)
class PreferencePairs:
    """P pairs, as numbers of the sequences on their two sides. `flip_rate` (None: 0) is the share of labels
    that are the wrong way round. Raises ValueError where shapes differ."""

    chosen: Tensor  # (P,)
    rejected: Tensor  # (P,)
    weight: Tensor  # (P,)
    flip_rate: Tensor | None = None  # (P,)

    def __post_init__(self) -> None:
        check_same_shape("chosen", self.chosen, "rejected", self.rejected)
        check_same_shape("chosen", self.chosen, "weight", self.weight)
        if self.flip_rate is not None:
            check_same_shape("chosen", self.chosen, "flip_rate", self.flip_rate)


def dpo(
    logps: SequenceLogps,
    pairs: PreferencePairs,
    beta: float,
    loss: PairLoss = robust,
    nll_weight: float = 0.0,
    length_normalised: bool = False,
) -> Loss:
    """Direct preference optimisation: `loss` on the margins h of P pairs,

        sum_i w_i [loss(h_i) - nll_weight / |y_w| * sum_t log p(y_w,t)];   weight: sum_i w_i.

    With `length_normalised` the log-ratios are means per token (for `sigmoid`: LN-DPO; Lambert et al. 2024,
    arXiv:2411.15124, eq. 6). Added is `nll_weight` times the chosen response's nll per token (RPO; Pang et
    al. 2024, arXiv:2404.19733, eq. 1). Swapping the sides negates the margin.
    """
    weight = pairs.weight
    flip_rate = torch.zeros_like(weight) if pairs.flip_rate is None else pairs.flip_rate
    lengths = logps.lengths  # (S,)
    ratio = logps.log_ratios  # (S,)
    if length_normalised:
        ratio = ratio / lengths
    h = ratio[pairs.chosen] - ratio[pairs.rejected]  # (P,)
    losses = loss(h, beta, flip_rate)
    if nll_weight:
        losses = losses - nll_weight * (logps.sum(logps.logp) / lengths)[pairs.chosen]
    sums = {
        "margin": (beta * h * weight).sum(),
        "reward_chosen": (beta * ratio[pairs.chosen] * weight).sum(),
        "reward_rejected": (beta * ratio[pairs.rejected] * weight).sum(),
        "accuracy": ((h > 0) * weight).sum(),
    }
    return Loss((losses * weight).sum(), float(weight.sum()), {k: v.detach() for k, v in sums.items()})
