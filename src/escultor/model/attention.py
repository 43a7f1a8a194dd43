"""Attention in packed batches: which token attends to which, and the ways to implement that in a model.

Every token has a segment (its document or example; 0 is padding) and a branch. Branch 0 is the segment's
trunk; a token attends to the earlier tokens of its own segment that are in the trunk or in its own branch. A
document is a trunk alone; a preference pair is one prompt (trunk) with two branches. A segment is contiguous,
its trunk first. Without an explicit mask, `position_ids` alone leak between documents silently in some call
forms of transformers (tests/model).

| kind     | how                                                       | memory of the mask |
|----------|-----------------------------------------------------------|--------------------|
| dense    | an explicit mask, for any model                           | R T²               |
| segments | causal attention sequence by sequence; see `segments`     | R T                |
| flex     | FlexAttention with a block mask, on GPUs; see `flex`      | R (T / 128)²       |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from escultor.errors import ConfigError, ModelError
from escultor.model import segments
from escultor.model.flex import block_mask

AttentionKind = Literal["dense", "segments", "flex"]
MASK_MOST = 1 << 28  # elements of a dense mask; attention converts each to a float in every layer


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences side by side in R rows of T tokens: K labelled tokens in S sequences. `source` is the
    position (in R*T) of the hidden state that predicts `target`. A branch's first token is predicted by the
    last token of its trunk."""

    ids: Tensor  # (R, T)
    position: Tensor  # (R, T)
    segment: Tensor  # (R, T), 0 is padding
    branch: Tensor  # (R, T)
    source: Tensor  # (K,)
    target: Tensor  # (K,)
    sequence: Tensor  # (K,)
    sequences: int
    causal: bool  # a single trunk in every row: plain causal attention is exact without a mask

    @property
    def tokens(self) -> int:
        """Tokens, padding not counted."""
        return int((self.segment > 0).sum())


def choose_attention(
    model: Any, device: torch.device, wanted: Literal["auto"] | AttentionKind = "auto"
) -> AttentionKind:
    """The kind of attention that `wanted` means for `model` on `device`. Raises ConfigError where the device
    does not support it."""
    if wanted == "flex" and device.type != "cuda":
        what = "FlexAttention has no backward pass on this device"
        remedy = "set attention=auto"
        raise ConfigError(what, f"attention flex on {device.type}", "auto, segments or dense", remedy)
    if wanted != "auto":
        return wanted
    if not model._can_set_attn_implementation():
        return "dense"
    if device.type == "cuda":
        return "flex" if model._supports_flex_attn else "segments"
    return "dense" if _softcap(model) else "segments"


def set_attention(model: Any, kind: AttentionKind) -> None:
    """Set how `model` attends to packed batches, and to them alone. Raises ModelError where its attention
    does not go through transformers' interface."""
    if kind == "dense":
        if model._can_set_attn_implementation():
            model.set_attn_implementation("eager" if _softcap(model) else "sdpa")
        return
    segments.register()
    able = model._can_set_attn_implementation() and not (kind == "segments" and _softcap(model))
    if not able or (kind == "flex" and not model._supports_flex_attn):
        what = f"{type(model).__name__} does not support this attention"
        raise ModelError(what, f"attention {kind}", "auto or dense", "set attention=auto")
    model.set_attn_implementation(segments.NAME if kind == "segments" else "flex_attention")


def attention_of(model: Any) -> AttentionKind:
    """The kind of attention that is set on `model`."""
    kinds: dict[str, AttentionKind] = {segments.NAME: "segments", "flex_attention": "flex"}
    return kinds.get(model.config._attn_implementation, "dense")


def attention_arguments(model: Any, packed: Packed) -> dict[str, Any]:
    """Arguments of a forward pass that make every token attend to its own segment and branch."""
    _refuse_beyond_window(model.config, packed)
    kind = attention_of(model)
    if kind == "segments":
        mask = packed.segment[:, None, :, None]  # four dimensions: transformers makes no mask of its own
        return {"attention_mask": mask, "packing": segments.sequences(packed.segment, packed.branch)}
    if kind == "flex":
        return {"attention_mask": block_mask(packed.segment, packed.branch)}
    if packed.causal:
        return {"attention_mask": None}
    mask = segment_mask(packed.segment, packed.branch)
    if model.config._attn_implementation == "eager":  # it adds its mask: True is + 1
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)
    return {"attention_mask": mask}


def segment_mask(segment: Tensor, branch: Tensor) -> Tensor:
    """The boolean attention mask (R, 1, T, T) of a packed batch from `segment` and `branch`, both (R, T),
    where padding attends to itself. Raises ModelError for a mask of more than MASK_MOST elements."""
    if segment.shape != branch.shape or segment.ndim != 2:
        raise ValueError(
            f"segment {tuple(segment.shape)} and branch {tuple(branch.shape)} must both be (R, T)"
        )
    R, T = segment.shape
    if R * T * T > MASK_MOST:
        what = "a dense mask for rows of this length takes too much memory"
        remedy = "set attention=auto if the model allows it, or lower max_length or micro_batch_size"
        raise ModelError(what, f"{R} × {T} × {T} numbers", f"at most {MASK_MOST:,}", remedy)
    same = segment[:, :, None] == segment[:, None, :]  # (R, T, T)
    open_ = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])  # (R, T, T)
    causal = torch.ones(T, T, dtype=torch.bool, device=segment.device).tril()
    return (same & open_ & causal)[:, None]  # (R, 1, T, T)


def _softcap(model: Any) -> bool:
    """Whether attention scores are soft-capped before the softmax, which `sdpa` does not support."""
    return bool(getattr(model.config, "attn_logit_softcapping", None))


def _refuse_beyond_window(config: Any, packed: Packed) -> None:
    """Raise ModelError for rows longer than the model's sliding window, which our mask replaces. GPT-Neo's
    local layers keep their own window, which counts positions in the packed row, so that no branch may reach
    beyond it."""
    window, longest = getattr(config, "sliding_window", None), int(packed.position.max()) + 1
    layers = getattr(config, "layer_types", None)
    if layers is not None and "sliding_attention" not in layers:
        window = None
    if "local" in getattr(config, "attention_layers", ()) and packed.branch.any():
        window, longest = config.window_size, int(packed.segment.flatten().bincount()[1:].max())
    if window and longest > window:
        what = "a row is longer than the model's sliding window"
        raise ModelError(what, f"{longest} tokens", f"at most {window}", "lower max_length")
