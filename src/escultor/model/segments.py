"""Attention of a packed batch without a mask: sequence by sequence.

Sequences are gathered from the packed rows, those of similar length attend together under plain causal
attention, and the outputs are scattered back. No work is spent on what a mask would hide, the fastest kernels
of `scaled_dot_product_attention` apply, and nothing grows with the square of the row's length. A trunk with k
branches becomes k sequences, each the trunk and one branch; the trunk's outputs are taken from the first.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from escultor.errors import ModelError

NAME = "escultor_segments"  # under which transformers knows the attention function
ROUND = 64  # lengths are rounded up to it: kernels are prepared once per shape, so few shapes are wanted


@dataclass(frozen=True, slots=True)
class Sequences:
    """N positions gathered from R packed rows of T tokens, in blocks of sequences of equal length."""

    gather: Tensor  # (N,) of R*T: the packed position that each gathered position comes from
    scatter: Tensor  # (R*T,) of N: the gathered position whose output each packed position takes
    blocks: tuple[tuple[int, int], ...]  # number of sequences and length of each block


def sequences(segment: Tensor, branch: Tensor) -> Sequences:
    """The sequences of a packed batch from `segment` and `branch`, both (R, T), without the padding."""
    device = segment.device
    by_length: defaultdict[int, list[tuple[np.ndarray, int]]] = defaultdict(list)
    for positions, shared in _runs(segment.cpu().numpy(), branch.cpu().numpy()):
        by_length[-(-len(positions) // ROUND) * ROUND].append((positions, shared))
    gather: list[np.ndarray] = []
    scatter = np.zeros(segment.numel(), dtype=np.int64)
    blocks, at = [], 0
    for length, members in sorted(by_length.items()):
        for positions, shared in members:
            scatter[positions[shared:]] = at + np.arange(shared, len(positions))
            gather.append(np.pad(positions, (0, length - len(positions)), mode="edge"))
            at += length
        blocks.append((len(members), length))
    gathered = torch.from_numpy(np.concatenate(gather)).to(device)
    return Sequences(gather=gathered, scatter=torch.from_numpy(scatter).to(device), blocks=tuple(blocks))


def _runs(segment: np.ndarray, branch: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """The packed positions of every sequence, and how many at its start are a trunk that an earlier sequence
    already outputs."""
    width = segment.shape[1]
    change = np.ones(segment.shape, dtype=bool)
    change[:, 1:] = (segment[:, 1:] != segment[:, :-1]) | (branch[:, 1:] != branch[:, :-1])
    starts = np.flatnonzero(change)
    ends = np.append(starts[1:], segment.size)
    runs: list[tuple[np.ndarray, int]] = []
    trunk, trunk_of = np.arange(0), (-1, 0)  # the last trunk, and its row and segment
    alone = False  # whether no branch has followed it yet
    for start, end in zip(starts, ends, strict=True):
        own = (start // width, int(segment.flat[start]))
        if own[1] == 0:
            continue
        if own != trunk_of or branch.flat[start] == 0:
            trunk_of, trunk, alone = own, np.arange(0), False
        positions = np.arange(start, end)
        if branch.flat[start] == 0:
            trunk, alone = positions, True
            runs.append((positions, 0))
            continue
        if alone:
            runs.pop()
        runs.append((np.concatenate([trunk, positions]), 0 if alone else len(trunk)))
        alone = False
    return runs


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Sequences | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """An attention function for transformers: `sdpa`, or with `packing` sequence by sequence.

    query: (R, heads, T, D); key, value: (R, kv heads, T, D). Returns (R, T, heads, D) and no weights. Raises
    ModelError where the model does not pass `packing` on to its attention.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packing is None:
        if attention_mask is not None and attention_mask.dtype == torch.long:
            what = "the model does not pass on to its attention how rows are packed"
            raise ModelError(what, type(module).__name__, remedy="set attention=dense")
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    rows, _, width, _ = query.shape
    flat = [
        (x.transpose(1, 2).reshape(rows * width, -1).index_select(0, packing.gather), x.shape[1])
        for x in (query, key, value)
    ]  # (N, heads * D)
    window = more.get("sliding_window")
    outputs, at = [], 0
    for count, length in packing.blocks:
        span = slice(at, at + count * length)
        parts = (x[span].view(count, length, heads, -1).transpose(1, 2) for x, heads in flat)
        mask = _within(length, window, query.device) if window and length > window else None
        more["is_causal"] = mask is None
        out, _ = sdpa_attention_forward(module, *parts, mask, **more)  # (count, length, heads, D)
        outputs.append(out.flatten(0, 1))
        at = span.stop
    packed = torch.cat(outputs).index_select(0, packing.scatter)  # (R*T, heads, D)
    return packed.unflatten(0, (rows, width)), None


def _within(length: int, window: int, device: torch.device) -> Tensor:
    """The boolean mask (1, 1, length, length) of causal attention to the last `window` positions."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return seen.triu(1 - window)[None, None]


@cache
def register(compiled: bool = False) -> None:
    """Register the attention function with transformers; unpacked batches use the masks of `sdpa`.
    `compiled`: for layers that are compiled, outside of whose code segments are cut."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    # The mark imports torch's compiler, which takes more than a second.
    attention = torch.compiler.disable(segment_attention) if compiled else segment_attention
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
