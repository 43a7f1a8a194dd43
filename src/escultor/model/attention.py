"""Who sees whom in a packed batch, and the ways in which a model can be told.

Every token carries a segment (its document or example; 0 is padding) and a branch. Branch 0 is the
segment's trunk; a token sees the earlier tokens of its own segment that are trunk or of its own
branch. A document is a trunk alone; a preference pair is one prompt with two branches. A segment lies in one
piece, its trunk first. Leaving the mask to `position_ids` leaks between documents without a word (see
tests/model).

| kind     | how                                                       | memory of the mask |
|----------|-----------------------------------------------------------|--------------------|
| dense    | an explicit mask, for any model                           | R T²               |
| segments | causal attention sequence by sequence; see `segments`     | R T                |
| flex     | FlexAttention with a block mask, on GPUs; see `flex`      | R (T / 128)²       |
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from escultor.errors import ConfigError, ModelError
from escultor.model import segments
from escultor.model.flex import block_mask

AttentionKind = Literal["dense", "segments", "flex"]
MASK_MOST = 1 << 28  # numbers of a dense mask; attention makes a float of each in every layer


class AttentionLayout(Protocol):
    """What attention asks of a packed batch; see `escultor.batching.batches.Packed`."""

    @property
    def segment(self) -> Tensor: ...
    @property
    def branch(self) -> Tensor: ...
    @property
    def position(self) -> Tensor: ...
    @property
    def causal(self) -> bool: ...


def kind_for(
    model: Any, device: torch.device, wanted: Literal["auto"] | AttentionKind = "auto"
) -> AttentionKind:
    """The kind of attention that `wanted` means for `model` on `device`. Raises ConfigError where the device
    cannot have it."""
    if wanted == "flex" and device.type != "cuda":
        raise ConfigError(
            "FlexAttention has no backward pass on this device",
            f"attention flex on {device.type}",
            "auto, segments or dense",
            "set attention=auto",
        )
    if wanted != "auto":
        return wanted
    if not model._can_set_attn_implementation():
        return "dense"
    if device.type == "cuda":
        return "flex" if model._supports_flex_attn else "segments"
    return "dense" if _softcap(model) else "segments"


def attend(model: Any, kind: AttentionKind) -> None:
    """Let `model` attend in this way when it is given a packed batch, and as ever otherwise.

    Raises ModelError where its attention does not go through transformers' interface.
    """
    if kind == "dense":
        if model._can_set_attn_implementation():
            model.set_attn_implementation("eager" if _softcap(model) else "sdpa")
        return
    segments.register()
    able = model._can_set_attn_implementation() and not (kind == "segments" and _softcap(model))
    if not able or (kind == "flex" and not model._supports_flex_attn):
        what = f"{type(model).__name__} cannot attend in this way"
        raise ModelError(what, f"attention {kind}", "auto or dense", "set attention=auto")
    model.set_attn_implementation(segments.NAME if kind == "segments" else "flex_attention")


def kind_of(model: Any) -> AttentionKind:
    """How `model` was told to attend."""
    kinds: dict[str, AttentionKind] = {segments.NAME: "segments", "flex_attention": "flex"}
    return kinds.get(model.config._attn_implementation, "dense")


def seen_by(model: Any, packed: AttentionLayout) -> dict[str, Any]:
    """What the body of `model` takes, beside ids and positions, so that each token sees its own."""
    _refuse_beyond_window(model.config, packed)
    kind = kind_of(model)
    if kind == "segments":
        given = packed.segment[:, None, :, None]  # four dimensions: transformers makes no mask of its own
        return {"attention_mask": given, "packing": segments.sequences(packed.segment, packed.branch)}
    if kind == "flex":
        return {"attention_mask": block_mask(packed.segment, packed.branch)}
    if packed.causal:
        return {"attention_mask": None}
    mask = segment_mask(packed.segment, packed.branch)
    if model.config._attn_implementation == "eager":  # it adds its mask: True is + 1
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)
    return {"attention_mask": mask}


def segment_mask(segment: Tensor, branch: Tensor) -> Tensor:
    """The boolean mask of a packed batch from `segment` and `branch`, both (R, T); True is seen.

    Padding sees itself, so that no row of the softmax is empty. Returns (R, 1, T, T). Raises ModelError where
    it would be larger than MASK_MOST.
    """
    if segment.shape != branch.shape or segment.ndim != 2:
        raise ValueError(
            f"segment {tuple(segment.shape)} and branch {tuple(branch.shape)} must both be (R, T)"
        )
    R, T = segment.shape
    if R * T * T > MASK_MOST:
        raise ModelError(
            "a dense mask for rows of this length takes too much memory",
            f"{R} × {T} × {T} numbers",
            f"at most {MASK_MOST:,}",
            "set attention=auto if the model allows it, or lower max_length or micro_batch_size",
        )
    same = segment[:, :, None] == segment[:, None, :]  # (R, T, T)
    open_ = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])  # (R, T, T)
    causal = torch.ones(T, T, dtype=torch.bool, device=segment.device).tril()
    return (same & open_ & causal)[:, None]  # (R, 1, T, T)


def _softcap(model: Any) -> bool:
    """Whether scores are bent before their softmax, for which `sdpa` has no room."""
    return bool(getattr(model.config, "attn_logit_softcapping", None))


def _refuse_beyond_window(config: Any, packed: AttentionLayout) -> None:
    """An explicit mask takes the place of a model's sliding window, so no token may see farther than it.
    GPT-Neo keeps its own, which counts places in the packed row: no branch may reach beyond it."""
    window, longest = getattr(config, "sliding_window", None), int(packed.position.max()) + 1
    layers = getattr(config, "layer_types", None)
    if layers is not None and "sliding_attention" not in layers:
        window = None
    if "local" in getattr(config, "attention_layers", ()) and packed.branch.any():
        window, longest = config.window_size, int(packed.segment.flatten().bincount()[1:].max())
    if window and longest > window:
        raise ModelError(
            "a row is longer than the model's sliding window",
            f"{longest} tokens",
            f"at most {window}",
            "lower max_length",
        )
