"""Sampling: one token for each row of logits, each row with its own temperature, top-p and random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

FEW = 256  # the most likely tokens; a nucleus within them needs no sort of the whole vocabulary
BELOW_ONE = 1 - 1e-12  # a random number above it could, by rounding, select a token of probability 0


@dataclass(frozen=True, slots=True)
class Draw:
    """How a row's tokens are drawn: greedy at temperature 0; `random` gives one number per token."""

    temperature: float
    top_p: float
    random: Random


def draw(logits: Tensor, rows: Sequence[Draw]) -> list[int]:
    """Draw a token id for each row of `logits` (B, V); -inf marks a forbidden token.

    A row's token depends on its own logits and random number alone. Above temperature 0 it is the token at
    which the cumulative probability exceeds that number: over all tokens in the order of their ids, or, with
    `top_p` below 1, over the nucleus (the smallest set of tokens whose probabilities sum to `top_p`; Holtzman
    et al. 2020, arXiv:1904.09751), most likely first.
    """
    tokens = logits.argmax(-1)  # (B,)
    plain = [i for i, row in enumerate(rows) if row.temperature > 0 and row.top_p >= 1]
    nuclear = [i for i, row in enumerate(rows) if row.temperature > 0 and row.top_p < 1]
    if plain:
        probabilities = _probabilities(logits, rows, plain)
        tokens[plain] = _first_above(probabilities.cumsum(-1), rows, plain)
    if nuclear:
        tokens[nuclear] = _nuclear(_probabilities(logits, rows, nuclear), rows, nuclear)
    return tokens.tolist()


def _nuclear(probabilities: Tensor, rows: Sequence[Draw], chosen: list[int]) -> Tensor:
    """Tokens (N,) from the nuclei of `probabilities` (N, V), sorting only FEW tokens where they suffice."""
    within = probabilities.new_tensor([rows[i].top_p for i in chosen])[:, None]
    tokens = torch.empty(len(chosen), dtype=torch.long, device=probabilities.device)
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
        at = _first_above(best.masked_fill(outside, 0.0).cumsum(-1), rows, [chosen[n] for n in mine])
        tokens[mine] = which.gather(1, at[:, None])[:, 0]
    return tokens


def _probabilities(logits: Tensor, rows: Sequence[Draw], chosen: list[int]) -> Tensor:
    picked = logits[chosen].double()  # (N, V)
    temperature = picked.new_tensor([rows[i].temperature for i in chosen])[:, None]
    return ((picked - picked.amax(-1, keepdim=True)) / temperature).softmax(-1)


def _first_above(cumulative: Tensor, rows: Sequence[Draw], chosen: list[int]) -> Tensor:
    """The index (N,) at which the cumulative probability (N, V) first exceeds the row's random number."""
    numbers = cumulative.new_tensor([min(rows[i].random.random(), BELOW_ONE) for i in chosen])
    return torch.searchsorted(cumulative, numbers[:, None] * cumulative[:, -1:], right=True)[:, 0]
