"""A test of whether a model keeps the sequences of packed rows apart.

Attention is masked, but other layers that carry one token over to the next (convolutions, recurrent states),
or that lie between the last hidden state and the logits, do not show in a model's configuration. So the
log-probs of a few packed tokens are compared with those of each sequence alone; where a run has rows beyond
the model's sliding window, one such row is among them.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor

from escultor.batching.batches import branch_pack, to_device
from escultor.batching.rows import PairRow
from escultor.errors import ModelError
from escultor.model.forward import logp_at_labels

TOLERANCE = 1e-4  # of the largest log-prob; rounding is a hundredth of it, a leak a hundred times as much
_LENGTHS = ((5, 4, 3), (3, 2, 4))  # of a prompt and its two branches
_CAPACITY = 32  # tokens of the packed row that holds both


def refuse_unpackable(model: Any, alone: Tensor | None = None, beyond: int = 0) -> None:
    """Raise ModelError where the log-probs of packed sequences differ from those of each `alone` (default:
    `logp_alone` now), or the model fails on packed rows. `beyond`: a number of tokens that one more row
    exceeds (0: no such row). Weights and random generators stay as they are."""
    alone = logp_alone(model, beyond) if alone is None else alone
    packed = to_device(branch_pack(_rows(model, beyond), _CAPACITY), model.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logp = logp_at_labels(model, packed).cpu()
    except (ValueError, TypeError, IndexError) as error:
        if isinstance(error, ModelError):
            raise
        raise _refusal(model, f"{type(error).__name__}: {error}".splitlines()[0]) from error
    finally:
        model.train(training)
    gap, largest = (logp - alone).abs().max().item(), alone.abs().max().item()
    if not gap <= TOLERANCE * largest:
        raise _refusal(model, f"log-probs of {len(alone)} tokens that differ by up to {gap:.2g}")


@torch.no_grad()
def logp_alone(model: Any, beyond: int = 0) -> Tensor:
    """Log-probs of the same labelled tokens by the model's own forward, one sequence at a time: (K,)."""
    training = model.training
    model.eval()
    parts = []
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    for row in _rows(model, beyond):
        for branch in row.branches:
            ids = torch.from_numpy(np.concatenate([row.prompt, branch])).long().to(model.device)
            last = len(branch) + 1  # positions whose logits are wanted
            more = {"logits_to_keep": last} if keeps else {}
            logits = model(ids[None], use_cache=False, **more).logits[0, -last:-1]
            logp = logits.float().log_softmax(-1)  # (T, V)
            parts.append(logp.gather(1, ids[len(row.prompt) :, None])[:, 0].cpu())
    model.train(training)
    return torch.cat(parts)


def _rows(model: Any, beyond: int) -> list[PairRow]:
    """Two pairs of different tokens, with ids that every vocabulary has, and one of more than `beyond`."""
    size = model.get_input_embeddings().weight.shape[0]
    lengths = (*_LENGTHS, *([(beyond, 3, 2)] if beyond else []))
    ids = ((np.arange(sum(map(sum, lengths))) * 7 + 3) % size).astype(np.int32)
    parts = np.split(ids, np.cumsum([sum(each) for each in lengths])[:-1])
    return [
        PairRow("", part[:prompt], part[prompt : prompt + chosen], part[prompt + chosen :])
        for part, (prompt, chosen, _) in zip(parts, lengths, strict=True)
    ]


def _refusal(model: Any, got: str) -> ModelError:
    what = f"{type(model).__name__} does not take several texts in one row: they would influence each other"
    remedy = "use a model without recurrent or convolutional layers"
    return ModelError(what, got, "a model in which only attention connects tokens, such as Llama", remedy)
