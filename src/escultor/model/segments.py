"""Attention of a packed batch without a mask: sequences are taken out of the rows, those of like length
attend together under plain causal attention, and what comes out is put back.

No work is spent on what a mask would hide, the fastest kernels of `scaled_dot_product_attention` are open to
it, and nothing grows with the square of the row's length. A trunk with several branches is as many sequences,
each the trunk and one branch; what the trunk's own tokens see is kept of the first.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from escultor.errors import ModelError

NAME = "escultor_segments"  # among the attention functions of transformers
ROUND = 64  # lengths are rounded up to it: few shapes, of which each has its kernels prepared once


@dataclass(frozen=True, slots=True)
class Sequences:
    """N positions of R packed rows of T tokens, in blocks of sequences of one length, padding included."""

    taken: Tensor  # (N,) of R*T: which packed position stands there
    kept: Tensor  # (R*T,) of N: where what a packed position sees comes from
    blocks: tuple[tuple[int, int], ...]  # sequences and length of each block


def sequences(segment: Tensor, branch: Tensor) -> Sequences:
    """The sequences of a packed batch from `segment` and `branch`, both (R, T). Padding is in none."""
    device = segment.device
    by_length: defaultdict[int, list[tuple[np.ndarray, int]]] = defaultdict(list)
    for positions, shared in _runs(segment.cpu().numpy(), branch.cpu().numpy()):
        by_length[-(-len(positions) // ROUND) * ROUND].append((positions, shared))
    taken: list[np.ndarray] = []
    kept = np.zeros(segment.numel(), dtype=np.int64)
    blocks, at = [], 0
    for length, members in sorted(by_length.items()):
        for positions, shared in members:
            kept[positions[shared:]] = at + np.arange(shared, len(positions))
            taken.append(np.pad(positions, (0, length - len(positions)), mode="edge"))
            at += length
        blocks.append((len(members), length))
    return Sequences(
        torch.from_numpy(np.concatenate(taken)).to(device), torch.from_numpy(kept).to(device), tuple(blocks)
    )


def _runs(segment: np.ndarray, branch: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Every sequence's packed positions, and how many of them at its beginning another sequence keeps."""
    width = segment.shape[1]
    change = np.ones(segment.shape, dtype=bool)
    change[:, 1:] = (segment[:, 1:] != segment[:, :-1]) | (branch[:, 1:] != branch[:, :-1])
    starts = np.flatnonzero(change)
    ends = np.append(starts[1:], segment.size)
    found: list[tuple[np.ndarray, int]] = []
    trunk, of = np.arange(0), (-1, 0)  # the last trunk, its row and segment
    alone = False  # whether no branch has followed it yet
    for start, end in zip(starts, ends, strict=True):
        own = (start // width, int(segment.flat[start]))
        if own[1] == 0:
            continue
        if own != of or branch.flat[start] == 0:
            of, trunk, alone = own, np.arange(0), False
        positions = np.arange(start, end)
        if branch.flat[start] == 0:
            trunk, alone = positions, True
            found.append((positions, 0))
            continue
        if alone:
            found.pop()
        found.append((np.concatenate([trunk, positions]), 0 if alone else len(trunk)))
        alone = False
    return found


@torch.compiler.disable
def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Sequences | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: `sdpa`, and with `packing` sequence by sequence.

    Args: query (R, heads, T, D), key and value (R, kv heads, T, D). Returns (R, T, heads, D). Raises
    ModelError where the model keeps the packing from its attention.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packing is None:
        if attention_mask is not None and attention_mask.dtype == torch.long:
            raise ModelError(
                "the model does not tell its attention how rows are packed",
                type(module).__name__,
                remedy="set attention=dense",
            )
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    rows, _, width, _ = query.shape
    flat = [
        (x.transpose(1, 2).reshape(rows * width, -1).index_select(0, packing.taken), x.shape[1])
        for x in (query, key, value)
    ]  # (N, heads * D)
    more["is_causal"] = True
    seen, at = [], 0
    for count, length in packing.blocks:
        span = slice(at, at + count * length)
        parts = (x[span].view(count, length, heads, -1).transpose(1, 2) for x, heads in flat)
        out, _ = sdpa_attention_forward(module, *parts, None, **more)  # (count, length, heads, D)
        seen.append(out.flatten(0, 1))
        at = span.stop
    found = torch.cat(seen).index_select(0, packing.kept)  # (R*T, heads, D)
    return found.unflatten(0, (rows, width)), None


def register() -> None:
    """Make the function known to transformers; for all that is not packed it takes the masks of `sdpa`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, segment_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
