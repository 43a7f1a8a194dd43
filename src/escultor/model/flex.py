"""The block mask of a packed batch for FlexAttention (Dong et al. 2024, arXiv:2412.05496).

It is made from what each block of tokens holds, so that neither it nor its making takes more than a number
for every pair of blocks; inside a block the kernel asks `segment` and `branch` themselves.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128


def block_mask(segment: Tensor, branch: Tensor, size: int = BLOCK) -> Any:
    """The `BlockMask` of `segment` and `branch`, both (R, T): who sees whom as in `segment_mask`, but that
    padding sees itself alone."""
    from torch.nn.attention.flex_attention import BlockMask

    def sees(row: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        own = segment[row, q]
        open_ = (branch[row, k] == 0) | (branch[row, q] == branch[row, k])
        return (q >= k) & (own == segment[row, k]) & open_ & ((own > 0) | (q == k))

    partial, full = _blocks(segment, branch, size)  # (R, blocks, blocks)
    (some, which), (all_, whole) = (_listed(found) for found in (partial, full))
    length = segment.shape[1]
    return BlockMask.from_kv_blocks(some, which, all_, whole, size, sees, (length, length))


def _blocks(segment: Tensor, branch: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which blocks of queries see some, and which see all of which blocks of keys: both (R, blocks, blocks).

    A segment lies in one piece, so an earlier block shares one with a later block only if it ends in the
    segment in which the other begins. A block at the border of two branches counts as seen in part.
    """
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


def _listed(found: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has, and which, those that it has first."""
    which = found.int().argsort(dim=-1, descending=True, stable=True)
    return found.sum(-1, dtype=torch.int32)[:, None], which.int()[:, None]  # (R, 1, blocks), (.., blocks)
