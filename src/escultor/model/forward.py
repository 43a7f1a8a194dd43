"""Forward passes over packed batches: hidden states, logits and log-probabilities at labelled positions."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from escultor.errors import ModelError
from escultor.model.attention import Packed, attention_arguments, attention_of
from escultor.model.head import in_chunks, linear_logp

WIDTH = 256  # tokens: the width of a row without padding is a multiple of it
_LOGIT_OPTIONS = ("logit_scale", "logits_scaling", "final_logit_softcapping")


def fast_bfloat16(device: str | None = None) -> bool:
    """Whether `device` (cpu or cuda; None: the best one here) multiplies bfloat16 faster than float32."""
    if (device or "cuda") == "cuda" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def precision(dtype: str, device: str = "cpu") -> AbstractContextManager[Any]:
    """A context in which matrix products are in `dtype` (auto, float32, bfloat16); weights stay float32."""
    return torch.autocast(device, torch.bfloat16, enabled=product_dtype(dtype, device) == "bfloat16")


def product_dtype(dtype: str, device: str | None = None) -> str:
    """The dtype of matrix products that `dtype` (auto, float32, bfloat16) means on a device."""
    if dtype == "auto":
        return "bfloat16" if fast_bfloat16(device) else "float32"
    return dtype


def hidden_at_labels(model: Any, packed: Packed) -> Tensor:
    """The last hidden state at every labelled position: (K, H)."""
    inner = unwrapped(model)
    if attention_of(inner) != "dense":
        packed = without_padding(packed)
    out = inner.base_model(
        input_ids=packed.ids,
        position_ids=packed.position,
        use_cache=False,
        **attention_arguments(inner, packed),
    ).last_hidden_state  # (R, T, H)
    return out.reshape(-1, out.shape[-1])[packed.source]


def without_padding(packed: Packed) -> Packed:
    """The batch's tokens in one row without the padding between them, for attention of any row length. The
    width is a multiple of WIDTH, so that kernels are prepared for few shapes."""
    real = packed.segment.flatten().nonzero()[:, 0]  # (N,) of R*T
    beyond = -len(real) % WIDTH
    if len(real) + beyond >= packed.segment.numel():
        return packed
    moved = torch.zeros_like(packed.segment).flatten()
    moved[real] = torch.arange(len(real), device=real.device)
    names = ("ids", "position", "segment", "branch")
    rows = {name: F.pad(getattr(packed, name).flatten()[real], (0, beyond))[None] for name in names}
    return replace(packed, **rows, source=moved[packed.source])


def logits_at_labels(model: Any, packed: Packed) -> Tensor:
    """Logits at every labelled position: (K, V), in float32."""
    return logits_of(model, hidden_at_labels(model, packed))


def logp_at_labels(model: Any, packed: Packed) -> Tensor:
    """Log-probability of every labelled token: (K,), float32."""
    hidden = hidden_at_labels(model, packed)
    inner = unwrapped(model)
    head = inner.get_output_embeddings()
    reshaped = any(getattr(inner.config, name, None) for name in _LOGIT_OPTIONS)
    if head.bias is None and type(head) is torch.nn.Linear and not reshaped:
        return linear_logp(hidden, head.weight, packed.target)

    def logp(hidden: Tensor, target: Tensor) -> Tensor:
        return -F.cross_entropy(logits_of(model, hidden), target, reduction="none")

    return torch.cat(in_chunks(logp, vocabulary_of(model), hidden, packed.target))


def vocabulary_of(model: Any) -> int:
    """The number of logits that the model computes for a token."""
    return unwrapped(model).get_output_embeddings().weight.shape[0]


def logits_of(model: Any, hidden: Tensor) -> Tensor:
    """Logits of last hidden states (K, H): (K, V), in float32."""
    inner = unwrapped(model)
    logits = inner.get_output_embeddings()(hidden).float()
    config = inner.config
    if scale := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * scale
    if scale := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / scale
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
        logits = cap * torch.tanh(logits / cap)
    return logits


def set_train_mode(model: Any, dropout: bool) -> None:
    """Put a model in training mode, with dropout only if `dropout`. Gradient checkpointing needs its layers
    in training mode: raises ModelError for one that would then drop out although `dropout` is False."""
    model.train()
    if dropout:
        return
    for module in model.modules():
        module.training = getattr(module, "gradient_checkpointing", False)
        own = getattr(module, "dropout", None)
        if module.training and isinstance(own, float) and own > 0:
            what = "dropout cannot be turned off in layers that use gradient checkpointing"
            remedy = "set gradient_checkpointing=false, or dropout to 0 in the model's config.json"
            raise ModelError(what, f"{type(module).__name__}, dropout {own}", "no dropout", remedy)


def unwrapped(model: Any) -> Any:
    """The causal language model inside adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
