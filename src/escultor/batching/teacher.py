"""What frozen models compute on rows. It enters a batch as a column, so that the loop has one model only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from escultor.batching.batches import NllBatch, group_by_length, nll_batch, to_device
from escultor.batching.probe import refuse_unpackable
from escultor.batching.rows import NllRow
from escultor.model.attention import Packed
from escultor.model.forward import hidden_at_labels, logits_of, logp_at_labels, precision


@dataclass(frozen=True, slots=True)
class KdBatch:
    """A batch with the teacher's last hidden states at its labelled tokens. `teacher_head` turns k of them
    into logits, (k, H) -> (k, V), without a gradient."""

    packed: Packed
    weight: Tensor  # (K,)
    rows: tuple[str, ...]
    teacher_hidden: Tensor  # (K, H)
    teacher_head: Callable[[Tensor], Tensor]


@torch.no_grad()
def nll_by_row(model: Any, rows: Sequence[NllRow], dtype: str) -> np.ndarray:
    """Summed negative log-likelihood of each row's labelled tokens, in nats: (rows,) float64. Raises
    ModelError where the model does not keep packed rows apart."""
    model.eval()
    refuse_unpackable(model)
    nll = np.zeros(len(rows))
    for group in group_by_length([row.length for row in rows]):
        group_rows = [rows[i] for i in group]
        with precision(dtype, model.device.type):
            packed = to_device(nll_batch(group_rows).packed, model.device)
            logp = logp_at_labels(model, packed).double()
        parts = logp.split([row.label_count for row in group_rows])
        for i, part in zip(group, parts, strict=True):
            nll[i] = -part.sum().item()
    return nll


@torch.no_grad()
def with_teacher(model: Any, batch: NllBatch, dtype: str) -> KdBatch:
    """The batch with the hidden states of a frozen teacher at its labelled tokens."""
    model.eval()
    with precision(dtype, model.device.type):
        hidden = hidden_at_labels(model, to_device(batch.packed, model.device))
    head = torch.no_grad()(partial(logits_of, model))
    return KdBatch(batch.packed, batch.weight, batch.rows, hidden, head)
