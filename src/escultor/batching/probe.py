"""Whether a model takes packed rows as they are meant, asked of the model itself.

Attention can be told who sees whom. What else carries one token over to the next (a convolution, a recurrent
state), or comes between the last hidden state and the logits, cannot be seen from outside; so what the model
says of a few tokens packed is held against what it says of each sequence alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from escultor.batching.batches import branch_pack, on
from escultor.batching.rows import PairRow
from escultor.errors import ModelError
from escultor.model.forward import logp_at_labels

TOLERANCE = 1e-4  # of the largest log-prob; rounding is a hundredth of it, a leak a hundred times as much
_LENGTHS = ((5, 4, 3), (3, 2, 4))  # of a prompt and its two branches
_CAPACITY = 32  # tokens of the packed row, in which both lie


def refuse_unpacked(model: Any, alone: Tensor | None = None) -> None:
    """Raise ModelError where a packed row says something else than its sequences do each `alone` (default:
    `said_alone` now), or cannot be taken at all. No weight and no random generator is moved."""
    alone = said_alone(model) if alone is None else alone
    packed = on(model.device, branch_pack(_rows(model), _CAPACITY))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found = logp_at_labels(model, packed).cpu()
    except (ValueError, TypeError, IndexError) as error:
        if isinstance(error, ModelError):
            raise
        raise _cannot(model, f"{type(error).__name__}: {error}".splitlines()[0]) from error
    finally:
        model.train(training)
    gap, most = (found - alone).abs().max().item(), alone.abs().max().item()
    if not gap <= TOLERANCE * most:
        raise _cannot(model, f"log-probs of {len(alone)} tokens that differ by up to {gap:.2g}")


@torch.no_grad()
def said_alone(model: Any) -> Tensor:
    """Log-probs of the same labelled tokens by the model's own call on one sequence at a time: (K,)."""
    training = model.training
    model.eval()
    said = []
    for row in _rows(model):
        for branch in row.branches:
            ids = torch.from_numpy(np.concatenate([row.prompt, branch])).long().to(model.device)
            logp = model(ids[None], use_cache=False).logits[0].float().log_softmax(-1)  # (T, V)
            said.append(logp[len(row.prompt) - 1 : -1].gather(1, ids[len(row.prompt) :, None])[:, 0].cpu())
    model.train(training)
    return torch.cat(said)


def _rows(model: Any) -> list[PairRow]:
    """Two pairs of tokens that differ, of those that any vocabulary has."""
    size = model.get_input_embeddings().weight.shape[0]
    ids = (np.arange(sum(map(sum, _LENGTHS))) * 7 + 3) % size
    first, second = np.split(ids.astype(np.int32), [sum(_LENGTHS[0])])
    rows = []
    for part, (prompt, chosen, _) in zip((first, second), _LENGTHS, strict=True):
        rows.append(PairRow("", part[:prompt], part[prompt : prompt + chosen], part[prompt + chosen :]))
    return rows


def _cannot(model: Any, got: str) -> ModelError:
    return ModelError(
        f"{type(model).__name__} does not take several texts in one row: they would reach into each other",
        got,
        "a model in which tokens meet by attention alone, as Llama",
        "take a model without recurrent or convolutional layers",
    )
