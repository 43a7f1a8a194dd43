"""Negative log-likelihood, the objective of pre-training and SFT."""

from __future__ import annotations

from torch import Tensor

from escultor.train.objectives.loss import Loss, check_same_shape


def nll(logp: Tensor, weight: Tensor) -> Loss:
    """Negative log-likelihood of K labelled tokens: -sum_k w_k log p(y_k); weight: sum_k w_k.

    A step's loss is therefore a mean by weight, -sum_k w_k log p(y_k) / sum_k w_k over all its tokens: an
    example of weight 2 counts as the example given twice, and equal weights change nothing. A uniform model
    has nll = ln V. Args: logp (natural logarithm), weight (K,).
    """
    check_same_shape("logp", logp, "weight", weight)
    return Loss(-(logp * weight).sum(), float(weight.sum()))
