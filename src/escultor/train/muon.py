"""Muon: momentum whose update is made orthogonal (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon).

    M <- mu M + (1 - mu) G,   G' = (1 - mu) G + mu M   (Nesterov)
    X <- G' / ||G'||_F,  five times:  A = X X^T,  X <- a X + (b A + c A A) X
    W <- (1 - lr wd) W - lr sqrt(max(1, rows / columns)) X

The arithmetic equals that of `torch.optim.Muon`, which always multiplies in bfloat16 (slow, and coarse, on a
processor without such products) and one matrix at a time. Here matrices of one shape go through the
iteration together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPS = 1e-7


def orthogonalised(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Each of `matrices` (N, A, B) with all its singular values brought near 1: (N, A, B) in float32. Five
    quintic Newton-Schulz steps in `dtype`; they leave singular values between about 0.7 and 1.2."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPS)).to(dtype)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (N, A, A)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()


class Muon(Optimizer):
    """Muon on matrices alone; norms, biases, embeddings and heads belong to another optimizer."""

    def __init__(
        self,
        matrices: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ):
        matrices = list(matrices)
        if any(matrix.ndim != 2 for matrix in matrices):
            raise ValueError(f"Muon takes matrices; got shapes {sorted({tuple(m.shape) for m in matrices})}")
        self.dtype = dtype
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient. A closure is refused: the loop owns the
        gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure; compute the gradients first")
        for group in self.param_groups:
            by_shape: defaultdict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[(*weight.shape, weight.device)].append(weight)
            for weights in by_shape.values():
                self._update(weights, group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        mu = group["momentum"]
        gradients = torch.stack([weight.grad for weight in weights if weight.grad is not None])  # (N, A, B)
        buffers = [
            self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight)) for weight in weights
        ]
        momentum = torch.stack(buffers).lerp_(gradients, 1 - mu)
        for buffer, value in zip(buffers, momentum, strict=True):
            buffer.copy_(value)
        update = orthogonalised(gradients.lerp_(momentum, mu), self.dtype)
        rows, columns = weights[0].shape
        scale = group["lr"] * max(1.0, rows / columns) ** 0.5
        for weight, change in zip(weights, update, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(change, alpha=-scale)
