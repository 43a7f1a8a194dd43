"""The chunked head: functions of logits computed chunk by chunk, forward and again in the backward pass.

The logits of a whole batch never exist. A chunk has CHUNK_VALUES logits, so that it stays in the processor's
cache, or the logits of LEAST_TOKENS tokens where that is more: every chunk reads the whole head and reads and
writes its gradient, which costs more than the products where the vocabulary is wide and the tokens are few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_VALUES = 1 << 21  # 8 MiB of float32
LEAST_TOKENS = 128
T = TypeVar("T")


def chunk_tokens(vocabulary: int) -> int:
    """The number of tokens whose logits are in memory at a time."""
    return max(LEAST_TOKENS, CHUNK_VALUES // vocabulary)


def in_chunks(function: Callable[..., T], vocabulary: int, *columns: Tensor) -> list[T]:
    """Apply `function` to each chunk of the columns, (K, …) each; a list of the results. What it computes on
    the way, such as logits (k, V), is computed again in the backward pass (checkpointing)."""
    parts = zip(*(column.split(chunk_tokens(vocabulary)) for column in columns), strict=True)
    if not torch.is_grad_enabled():
        return [function(*part) for part in parts]
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # nothing is random
    return [checkpoint(function, *part, **options) for part in parts]  # type: ignore[misc]


class _LinearLogp(torch.autograd.Function):
    """logp[k] = log_softmax(hidden[k] @ weight.T)[target[k]]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, dtype: torch.dtype) -> Tensor:
        rows = chunk_tokens(len(weight))
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
        rows = chunk_tokens(len(weight))
        w = weight.to(dtype)
        grad_hidden = torch.empty_like(hidden)
        is_trained = ctx.needs_input_grad[1]  # False for a head that is frozen next to an adapter
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if is_trained else None
        # One buffer for all chunks: allocating a whole head for every chunk costs more than the products.
        part = torch.empty_like(w) if is_trained and w.dtype != torch.float32 else None
        for at in range(0, len(hidden), rows):
            span = slice(at, at + rows)
            h = hidden[span].to(dtype)
            logits = (h @ w.T).float()
            # d logp / d logits = onehot - softmax
            d = logits.sub_(norms[span, None]).exp_().mul_(-grad[span, None])  # (rows, V)
            d.scatter_add_(1, target[span, None], grad[span, None])
            d = d.to(dtype)
            grad_hidden[span] = (d @ w).to(hidden.dtype)
            if grad_weight is not None and part is None:
                grad_weight.addmm_(d.T, h)
            elif grad_weight is not None:
                grad_weight += torch.mm(d.T, h, out=part)
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None


def linear_logp(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Log-probability of `target` (K,) under softmax(hidden (K, H) @ weight.T (H, V)): (K,), float32.
    Products are in autocast's dtype where it is on, sums in float32."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    with torch.autocast(device, enabled=False):
        return _LinearLogp.apply(hidden, weight, target, dtype)  # type: ignore[return-value]
