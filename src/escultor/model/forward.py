"""What a model says at the labelled positions of a packed batch, and nowhere else."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from escultor.model.attention import segment_mask
from escultor.model.head import linear_logp

_LOGIT_OPTIONS = ("logit_scale", "logits_scaling", "final_logit_softcapping")


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
    return torch.autocast(device, torch.bfloat16, enabled=multiplies_in(dtype) == "bfloat16")


def multiplies_in(dtype: str) -> str:
    """The dtype that `dtype` (auto, float32, bfloat16) means on this processor."""
    if dtype == "auto":
        return "bfloat16" if fast_bfloat16() else "float32"
    return dtype


def hidden_at_labels(model: Any, packed: PackedBatch) -> Tensor:
    """The last hidden state at every labelled position: (K, H)."""
    mask = None if packed.causal else segment_mask(packed.segment, packed.branch)
    inner = _unwrapped(model)
    if mask is not None and inner.config._attn_implementation == "eager":  # it adds its mask: True is + 1
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)
    body = inner.base_model
    out = body(
        input_ids=packed.ids, attention_mask=mask, position_ids=packed.position, use_cache=False
    ).last_hidden_state  # (R, T, H)
    return out.reshape(-1, out.shape[-1])[packed.source]


def logits_at_labels(model: Any, packed: PackedBatch) -> Tensor:
    """Logits at every labelled position: (K, V), in float32."""
    return _logits(model, hidden_at_labels(model, packed))


def logp_at_labels(model: Any, packed: PackedBatch) -> Tensor:
    """Log-probability of every labelled token: (K,), float32."""
    hidden = hidden_at_labels(model, packed)
    inner = _unwrapped(model)
    head = inner.get_output_embeddings()
    if head.bias is None and type(head) is torch.nn.Linear and not _reshapes_logits(inner.config):
        return linear_logp(hidden, head.weight, packed.target)
    return -F.cross_entropy(_logits(model, hidden), packed.target, reduction="none")


def _reshapes_logits(config: Any) -> bool:
    return any(getattr(config, name, None) for name in _LOGIT_OPTIONS)


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


def _unwrapped(model: Any) -> Any:
    """The causal language model inside adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
