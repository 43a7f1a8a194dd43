"""The block mask of a packed batch for FlexAttention (Dong et al. 2024, arXiv:2412.05496).

It is computed from the first and last segment of each block of tokens, so that neither the mask nor computing
it takes more than one number per pair of blocks; inside a block the kernel looks `segment` and `branch` up.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128


def block_mask(
    segment: Tensor,
    branch: Tensor,
    size: int = BLOCK,
    position: Tensor | None = None,
    window: int | None = None,
) -> Any:
    """The `BlockMask` of `segment` and `branch`, both (R, T), with `window` of `position` (R, T) too. As
    `escultor.model.attention.segment_mask`, except that a padding token attends to itself alone."""
    from torch.nn.attention.flex_attention import BlockMask

    def sees(row: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        own = segment[row, q]
        open_ = (branch[row, k] == 0) | (branch[row, q] == branch[row, k])
        seen = (q >= k) & (own == segment[row, k]) & open_ & ((own > 0) | (q == k))
        if position is not None and window:
            seen = seen & (position[row, q] - position[row, k] < window)
        return seen

    partial, full = _blocks(segment, branch, size)  # (R, blocks, blocks)
    if window:  # which of them the window cuts, the kernel looks up
        partial, full = partial | full, torch.zeros_like(full)
    partial_counts, partial_indices = _indices(partial)
    full_counts, full_indices = _indices(full)
    length = segment.shape[1]
    return BlockMask.from_kv_blocks(
        kv_num_blocks=partial_counts,
        kv_indices=partial_indices,
        full_kv_num_blocks=full_counts,
        full_kv_indices=full_indices,
        BLOCK_SIZE=size,
        mask_mod=sees,
        seq_lengths=(length, length),
    )


def _blocks(segment: Tensor, branch: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which blocks of keys a block of queries attends to in part, and which in full: (R, blocks, blocks). A
    segment is contiguous, so an earlier block shares one with a later block only if it ends in the segment in
    which the later one begins. A block at the border of two branches counts as attended to in part."""
    beyond = -segment.shape[1] % size
    s, b = (F.pad(x, (0, beyond), value=-1).unflatten(1, (-1, size)) for x in (segment, branch))
    first, last = s[..., 0], s[..., -1]  # (R, blocks)
    shared = (last[:, None, :] == first[:, :, None]) & (first > 0)[:, :, None]
    earlier = torch.ones(s.shape[1], s.shape[1], dtype=torch.bool, device=s.device).tril(-1)
    itself = torch.eye(s.shape[1], dtype=torch.bool, device=s.device)
    same = (s == first[..., None]).all(-1) & (b == b[..., :1]).all(-1)  # one segment and branch throughout
    of = b[..., 0]
    open_ = (of[:, None, :] == 0) | (of[:, None, :] == of[:, :, None])
    full = shared & earlier & same[:, :, None] & same[:, None, :] & open_
    return (shared & earlier & ~full) | itself, full


def _indices(attended: Tensor) -> tuple[Tensor, Tensor]:
    """The number of blocks of keys of each block of queries, and their indices, those attended to first."""
    indices = attended.int().argsort(dim=-1, descending=True, stable=True)
    return attended.sum(-1, dtype=torch.int32)[:, None], indices.int()[
        :, None
    ]  # (R, 1, blocks), (.., blocks)
