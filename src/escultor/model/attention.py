"""Attention in packed batches: which token attends to which, and the ways to implement that in a model.

Every token has a segment (its document or example; 0 is padding) and a branch. Branch 0 is the segment's
trunk; a token attends to the earlier tokens of its own segment that are in the trunk or in its own branch. A
document is a trunk alone; a preference pair is one prompt (trunk) with two branches. A segment is contiguous,
its trunk first. In layers with a sliding window a token attends to the last `window` positions of these, as
it would in a row of its own. Without an explicit mask, `position_ids` alone leak between documents silently
in some call forms of transformers (tests/model).

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
SLIDING = "sliding_attention"  # transformers' name of a layer with a window
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
    if device.type == "cuda" and model._supports_flex_attn:
        return "flex"
    return "dense" if _needs_eager(model) else "segments"


def set_attention(model: Any, kind: AttentionKind) -> None:
    """Set how `model` attends to packed batches, and to them alone. Raises ModelError where its attention
    does not go through transformers' interface."""
    if kind == "dense":
        if model._can_set_attn_implementation():
            model.set_attn_implementation("eager" if _needs_eager(model) else "sdpa")
        return
    segments.register()
    able = model._can_set_attn_implementation() and not (kind == "segments" and _needs_eager(model))
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
    refuse_beyond_window(model.config, int(packed.position.max()) + 1, _longest_with_branches(packed))
    kind = attention_of(model)
    if kind == "segments":  # each layer passes its own window on to the attention function
        mask = packed.segment[:, None, :, None]  # four dimensions: transformers makes no mask of its own
        mask = dict.fromkeys(_layer_types(model.config), mask) or mask
        return {"attention_mask": mask, "packing": segments.sequences(packed.segment, packed.branch)}
    if kind == "dense" and packed.causal:
        return {"attention_mask": None}
    window = sliding_window(model.config)
    if window and int(packed.position.max()) < window:
        window = None  # no row reaches beyond it

    def mask_of(window: int | None) -> Any:
        position = packed.position if window else None
        if kind == "flex":
            return block_mask(packed.segment, packed.branch, position=position, window=window)
        mask = segment_mask(packed.segment, packed.branch, position, window)
        if model.config._attn_implementation == "eager":  # it adds its mask: True is + 1
            mask = torch.zeros(mask.shape, device=mask.device).masked_fill(
                ~mask, torch.finfo(torch.float32).min
            )
        return mask

    if not window:
        return {"attention_mask": mask_of(None)}
    kinds = {name: mask_of(window if name == SLIDING else None) for name in _layer_types(model.config)}
    return {"attention_mask": kinds or mask_of(window)}


def segment_mask(
    segment: Tensor, branch: Tensor, position: Tensor | None = None, window: int | None = None
) -> Tensor:
    """The boolean attention mask (R, 1, T, T) of a packed batch from `segment` and `branch`, both (R, T),
    where padding attends to itself; with `window`, within so many positions (`position`, (R, T)) of a
    sequence. Raises ModelError for a mask of more than MASK_MOST elements."""
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
    seen = same & open_ & torch.ones(T, T, dtype=torch.bool, device=segment.device).tril()
    if position is not None and window:
        seen &= position[:, :, None] - position[:, None, :] < window
    return seen[:, None]  # (R, 1, T, T)


def _needs_eager(model: Any) -> bool:
    """Whether attention does what `sdpa` does not: scores soft-capped before the softmax, or sinks."""
    return bool(getattr(model.config, "attn_logit_softcapping", None)) or not model._supports_sdpa


def sliding_window(config: Any) -> int | None:
    """The number of positions that a model's sliding layers see; None where no layer slides."""
    config = config.get_text_config()
    window, kinds = getattr(config, "sliding_window", None), _layer_types(config)
    slides = SLIDING in kinds if kinds else getattr(config, "use_sliding_window", True)
    return int(window) if window and slides else None


def refuse_beyond_window(config: Any, longest: int, branched: int = 0) -> None:
    """Raise ModelError for rows of `longest` tokens where a model's layers attend in chunks, which our masks
    do not cut, or for prompts with branches of `branched` tokens together beyond GPT-Neo's local window,
    which counts positions in the packed row. Rows beyond a sliding window are masked rightly."""
    config = config.get_text_config()
    chunk = getattr(config, "attention_chunk_size", None)
    if chunk and longest > chunk:
        what, remedy = "a row is longer than the chunks in which the model attends", "lower max_length"
        raise ModelError(what, f"{longest} tokens", f"at most {chunk}", remedy)
    window = config.window_size if "local" in getattr(config, "attention_layers", ()) else None
    if window and branched > window:
        what = "a prompt with its answers is longer than the model's local window"
        raise ModelError(what, f"{branched} tokens", f"at most {window}", "lower max_length")


def _layer_types(config: Any) -> frozenset[str]:
    """The kinds of attention of a model whose layers differ, which it looks masks up by; empty for others."""
    kinds = frozenset(getattr(config.get_text_config(), "layer_types", None) or ())
    return kinds if SLIDING in kinds else frozenset()


def _longest_with_branches(packed: Packed) -> int:
    """The most tokens of a segment with branches, all of them together; 0 where there is none."""
    if not packed.branch.any():
        return 0
    return int(packed.segment.flatten().bincount()[1:].max())
