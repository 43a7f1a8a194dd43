"""What a model says at the labelled positions of a packed batch, and nowhere else."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from escultor.model.attention import segment_mask

if TYPE_CHECKING:
    from torch.nn import Module

CHUNK_VALUES = 1 << 25  # logits held at a time, in numbers: 128 MiB of float32


class PackedBatch(Protocol):
    """The tensors of a packed batch; see `escultor.data.batches.Packed`."""

    @property
    def ids(self) -> Tensor: ...
    @property
    def position(self) -> Tensor: ...
    @property
    def segment(self) -> Tensor: ...
    @property
    def branch(self) -> Tensor: ...
    @property
    def causal(self) -> bool: ...
    @property
    def source(self) -> Tensor: ...
    @property
    def target(self) -> Tensor: ...


def fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def precision(dtype: str, device: str = "cpu") -> AbstractContextManager[Any]:
    """The context for matrix products in `dtype` (auto, float32, bfloat16); weights stay float32."""
    use = dtype == "bfloat16" or (dtype == "auto" and fast_bfloat16())
    return torch.autocast(device, torch.bfloat16, enabled=use)


def hidden_at_labels(model: Any, packed: PackedBatch) -> Tensor:
    """The last hidden state at every labelled position: (K, H)."""
    mask = None if packed.causal else segment_mask(packed.segment, packed.branch)
    body = _unwrapped(model).base_model
    out = body(
        input_ids=packed.ids, attention_mask=mask, position_ids=packed.position, use_cache=False
    ).last_hidden_state  # (R, T, H)
    return out.reshape(-1, out.shape[-1])[packed.source]


def logits_at_labels(model: Any, packed: PackedBatch) -> Tensor:
    """Logits at every labelled position: (K, V), in float32."""
    return _logits(model, hidden_at_labels(model, packed))


def logp_at_labels(model: Any, packed: PackedBatch) -> Tensor:
    """Log-probability of every labelled token: (K,), float32. Logits are made in chunks, and made again
    in the backward pass where they would not fit `CHUNK_VALUES`."""
    hidden = hidden_at_labels(model, packed)
    vocabulary = _unwrapped(model).get_output_embeddings().weight.shape[0]
    rows = max(1, CHUNK_VALUES // vocabulary)
    if len(hidden) <= rows:
        return _logp(model, hidden, packed.target)
    parts = zip(hidden.split(rows), packed.target.split(rows), strict=True)
    pieces = [checkpoint(_logp, model, h, t, use_reentrant=False) for h, t in parts]
    return torch.cat([piece for piece in pieces if isinstance(piece, Tensor)])


def _logp(model: Any, hidden: Tensor, target: Tensor) -> Tensor:
    return -F.cross_entropy(_logits(model, hidden), target, reduction="none")


def _logits(model: Any, hidden: Tensor) -> Tensor:
    inner = _unwrapped(model)
    logits = inner.get_output_embeddings()(hidden).float()
    config = inner.config
    if scale := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * scale
    if scale := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / scale
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
        logits = cap * torch.tanh(logits / cap)
    return logits


def _unwrapped(model: Module) -> Any:
    """The causal language model inside adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
