"""One token for each row of logits, each row with its own temperature, nucleus and random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

FEW = 256  # likeliest tokens looked at before all are sorted
BELOW_ONE = 1 - 1e-12  # above it, rounding could pass the last token that has any probability


@dataclass(frozen=True, slots=True)
class Draw:
    """How a row's tokens are drawn: greedy at temperature 0; `random` is its own, one number a token."""

    temperature: float
    top_p: float
    random: Random


def draw(logits: Tensor, rows: Sequence[Draw]) -> list[int]:
    """A token for each row of `logits` (B, V), -inf where a token is forbidden.

    A row's token depends on its own logits and its own random number alone. Above temperature 0 it is
    the token at which the cumulated probability passes that number: of all tokens in the order of their
    ids, or, with `top_p` below 1, of the nucleus (Holtzman et al. 2020, arXiv:1904.09751: the fewest
    tokens that hold `top_p` together), the likeliest first.
    """
    tokens = logits.argmax(-1)  # (B,)
    plain = [i for i, row in enumerate(rows) if row.temperature > 0 and row.top_p >= 1]
    nuclear = [i for i, row in enumerate(rows) if row.temperature > 0 and row.top_p < 1]
    if plain:
        probabilities = _probabilities(logits, rows, plain)
        tokens[plain] = _passed(probabilities.cumsum(-1), rows, plain)
    if nuclear:
        tokens[nuclear] = _nuclear(_probabilities(logits, rows, nuclear), rows, nuclear)
    return tokens.tolist()


def _nuclear(probabilities: Tensor, rows: Sequence[Draw], chosen: list[int]) -> Tensor:
    """Tokens (N,) from the nuclei of `probabilities` (N, V). Few tokens are sorted where they are enough."""
    within = probabilities.new_tensor([rows[i].top_p for i in chosen])[:, None]
    found = torch.empty(len(chosen), dtype=torch.long, device=probabilities.device)
    ranked, ids = probabilities.topk(min(FEW, probabilities.shape[-1]), dim=-1)
    enough = (ranked.sum(-1, keepdim=True) >= within)[:, 0].tolist()
    for sufficient in (True, False):
        mine = [n for n, known in enumerate(enough) if known is sufficient]
        if not mine:
            continue
        if sufficient:
            best, which = ranked[mine], ids[mine]  # (M, K)
        else:
            best, which = torch.sort(probabilities[mine], dim=-1, descending=True, stable=True)
        outside = best.cumsum(-1) - best >= within[mine]  # never the first: 0 < top_p
        outside[:, 0] = False
        at = _passed(best.masked_fill(outside, 0.0).cumsum(-1), rows, [chosen[n] for n in mine])
        found[mine] = which.gather(1, at[:, None])[:, 0]
    return found


def _probabilities(logits: Tensor, rows: Sequence[Draw], chosen: list[int]) -> Tensor:
    picked = logits[chosen].double()  # (N, V)
    heat = picked.new_tensor([rows[i].temperature for i in chosen])[:, None]
    return ((picked - picked.amax(-1, keepdim=True)) / heat).softmax(-1)


def _passed(cumulated: Tensor, rows: Sequence[Draw], chosen: list[int]) -> Tensor:
    """Where the cumulated probability (N, V) first exceeds each row's random number in [0, 1): (N,)."""
    numbers = cumulated.new_tensor([min(rows[i].random.random(), BELOW_ONE) for i in chosen])
    return torch.searchsorted(cumulated, numbers[:, None] * cumulated[:, -1:], right=True)[:, 0]
