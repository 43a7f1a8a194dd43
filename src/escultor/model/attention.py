"""Who sees whom in a packed batch, as the explicit mask that transformers takes.

Every token carries a segment (its document or example; 0 is padding) and a branch. Branch 0 is the
segment's trunk; a token sees the earlier tokens of its own segment that are trunk or of its own
branch. A document is a trunk alone; a preference pair is one prompt with two branches.
Leaving the mask to `position_ids` leaks between documents without a word (see tests/model).
"""

from __future__ import annotations

import torch
from torch import Tensor


def segment_mask(segment: Tensor, branch: Tensor) -> Tensor:
    """The boolean mask of a packed batch from `segment` and `branch`, both (R, T); True is seen.

    Padding sees itself, so that no row of the softmax is empty. Returns (R, 1, T, T).
    """
    if segment.shape != branch.shape or segment.ndim != 2:
        raise ValueError(
            f"segment {tuple(segment.shape)} and branch {tuple(branch.shape)} must both be (R, T)"
        )
    T = segment.shape[1]
    same = segment[:, :, None] == segment[:, None, :]  # (R, T, T)
    open_ = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])  # (R, T, T)
    causal = torch.ones(T, T, dtype=torch.bool, device=segment.device).tril()
    return (same & open_ & causal)[:, None]  # (R, 1, T, T)
