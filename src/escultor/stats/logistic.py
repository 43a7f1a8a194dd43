"""Logistic regression with a ridge penalty."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from escultor.stats.sampling import Array

STEPS, TOLERANCE = 100, 1e-10  # Newton steps at most; the size of the step at which they end
MAX_LOGIT = 40.0  # beyond, 1 - p is lost to rounding in float64


class LogisticFit(NamedTuple):
    """A fit: weights (D,), Hessian of the penalised loss (D, D), and the residuals y - p (N,)."""

    weights: Array
    hessian: Array
    residuals: Array


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-x)) of each element; x is clipped to ±40."""
    return 1 / (1 + np.exp(-np.clip(logits, -MAX_LOGIT, MAX_LOGIT)))


def fit_logistic(design: Array, y: Array, ridge: Array) -> LogisticFit:
    """Minimise -log-likelihood + 1/2 · Σ ridge_d · weights_d² for a design (N, D), outcomes y (N,) in [0, 1].

    Newton's method (iteratively reweighted least squares) with step halving: for ridge > 0 the objective is
    strictly convex, so its minimum is unique and is found for any data.
    """
    weights = np.zeros(design.shape[1])

    def loss(at: Array) -> float:
        z = design @ at
        return float(np.logaddexp(0, z).sum() - y @ z + 0.5 * (ridge * at * at).sum())

    def hessian(p: Array) -> Array:
        return (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge)

    value = loss(weights)
    for _ in range(STEPS):
        p = sigmoid(design @ weights)
        step = np.linalg.solve(hessian(p), design.T @ (p - y) + ridge * weights)
        size = 1.0
        while (new := loss(weights - size * step)) > value and size > 1e-8:
            size /= 2
        weights, value = weights - size * step, new
        if np.abs(size * step).max() < TOLERANCE:
            break
    p = sigmoid(design @ weights)
    return LogisticFit(weights, hessian(p), y - p)
