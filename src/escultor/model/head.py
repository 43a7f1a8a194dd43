"""Log-probabilities of labelled tokens without the logits: computed in chunks, and again backwards.

The memory is one chunk of logits, whatever the batch, and that chunk stays in the processor's cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_VALUES = 1 << 21  # logits held at a time, in numbers: 8 MiB of float32


class _LinearLogp(torch.autograd.Function):
    """logp[k] = log_softmax(hidden[k] @ weight.T)[target[k]]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, dtype: torch.dtype) -> Tensor:
        rows = max(1, CHUNK_VALUES // len(weight))
        w = weight.detach().to(dtype)  # (V, H)
        logp = hidden.new_empty(len(hidden), dtype=torch.float32)  # (K,)
        norms = torch.empty_like(logp)
        for at in range(0, len(hidden), rows):
            span = slice(at, at + rows)
            logits = (hidden[span].to(dtype) @ w.T).float()  # (rows, V)
            norms[span] = logits.logsumexp(-1)
            logp[span] = logits.gather(1, target[span, None])[:, 0] - norms[span]
        ctx.save_for_backward(hidden, weight, target, norms)
        ctx.dtype = dtype
        return logp

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads  # (K,)
        hidden, weight, target, norms = ctx.saved_tensors
        dtype = ctx.dtype
        rows = max(1, CHUNK_VALUES // len(weight))
        w = weight.to(dtype)
        grad_hidden = torch.empty_like(hidden)
        learnt = ctx.needs_input_grad[1]  # a head that is frozen beside an adapter is not
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if learnt else None
        for at in range(0, len(hidden), rows):
            span = slice(at, at + rows)
            h = hidden[span].to(dtype)
            logits = (h @ w.T).float()
            # d logp / d logits = onehot - softmax
            d = logits.sub_(norms[span, None]).exp_().mul_(-grad[span, None])  # (rows, V)
            d.scatter_add_(1, target[span, None], grad[span, None])
            d = d.to(dtype)
            grad_hidden[span] = (d @ w).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight += d.T @ h
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None


def linear_logp(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Log-probability of `target` (K,) under softmax(hidden @ weight.T): (K,), float32.

    Args: hidden (K, H), weight (V, H). Products run in autocast's dtype where it is on, sums in
    float32.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    with torch.autocast(device, enabled=False):
        return _LinearLogp.apply(hidden, weight, target, dtype)  # type: ignore[return-value]
