"""What frozen models say about rows: columns of a batch, never a second model in the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from escultor.batching.batches import NllBatch, Packed, chunks, nll_batch, on
from escultor.batching.probe import refuse_unpacked
from escultor.batching.rows import NllRow
from escultor.model.forward import hidden_at_labels, logits_of, logp_at_labels, precision


@dataclass(frozen=True, slots=True)
class KdBatch:
    """A batch with the teacher's last hidden states at its labelled tokens, and the teacher's head, which
    makes logits of a few of them at a time: (k, H) -> (k, V), without a gradient."""

    packed: Packed
    weight: Tensor  # (K,)
    rows: tuple[str, ...]
    teacher_hidden: Tensor  # (K, H)
    teacher_head: Callable[[Tensor], Tensor]


@torch.no_grad()
def nll_by_row(model: Any, rows: Sequence[NllRow], dtype: str) -> np.ndarray:
    """Summed negative log-likelihood of each row's labelled tokens, in nats: (rows,) float64. Raises
    ModelError where the model does not take packed rows."""
    model.eval()
    refuse_unpacked(model)
    out = np.zeros(len(rows))
    for group in chunks([row.length for row in rows]):
        chosen = [rows[i] for i in group]
        with precision(dtype, model.device.type):
            logp = logp_at_labels(model, on(model.device, nll_batch(chosen).packed)).double()
        for i, part in zip(group, logp.split([r.length - r.first_label for r in chosen]), strict=True):
            out[i] = -part.sum().item()
    return out


@torch.no_grad()
def with_teacher(model: Any, batch: NllBatch, dtype: str) -> KdBatch:
    """The batch with what a frozen teacher says at its labelled tokens."""
    model.eval()
    with precision(dtype, model.device.type):
        hidden = hidden_at_labels(model, on(model.device, batch.packed))
    head = torch.no_grad()(partial(logits_of, model))
    return KdBatch(batch.packed, batch.weight, batch.rows, hidden, head)
