"""Whether what was saved is what was trained, and how far it has moved from where it began.

A run is done when its model, read back from disk, gives a few rows the losses that the trained model gave
them in memory. Both are computed on the CPU in float32, one after the other: `release` lets go of the trained
weights before the saved ones are read, so that there is one model in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from escultor.batching.batches import nll_batch
from escultor.batching.rows import NllRow, TokenRow, to_ids
from escultor.batching.teacher import nll_by_row
from escultor.errors import EscultorError, FaultError
from escultor.model.forward import logits_at_labels, vocabulary_of
from escultor.model.load import load
from escultor.model.loaded import Loaded, max_context_tokens
from escultor.types import Message, Role

ROWS, TOKENS = 8, 512  # of the rows that are read back: the shortest of the first SEARCHED, one at least
SEARCHED = 256
TOLERANCE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.05}  # of the loss, or of 1 where it is less
DRIFT_BYTES = 1 << 27  # of the start's distributions that a run keeps
# Ordinary questions with ordinary answers, on which the distance from the start is measured.
GENERAL = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("What is 12 times 3?", "12 times 3 is 36."),
    ("Write a Python function that adds two numbers.", "def add(a, b):\n    return a + b"),
    ("Translate to German: good morning", "Guten Morgen"),
    ("Why is the sky blue?", "Air scatters blue light more than red light, so the sky looks blue."),
    ("Give me a short sentence about the sea.", "The sea was calm, and the boats came home at dusk."),
)


def rows_to_read_back(rows: Sequence[TokenRow]) -> tuple[NllRow, ...]:
    """A few short rows of a run, with their learnt parts as labels."""
    parts = [part for row in islice(rows, SEARCHED) for part in _texts(row)]
    chosen: list[NllRow] = []
    for row in sorted(parts, key=lambda row: row.length):
        if chosen and (len(chosen) == ROWS or sum(r.length for r in chosen) + row.length > TOKENS):
            break
        chosen.append(row)
    return tuple(chosen)


def _texts(row: TokenRow) -> Iterator[NllRow]:
    """A row as single texts, one for each of its branches."""
    if isinstance(row, NllRow):
        yield row
    else:
        for branch in row.branches:
            if len(row.prompt) and len(branch):
                yield NllRow(row.id, np.concatenate([row.prompt, branch]), len(row.prompt))


def general_rows(loaded: Loaded) -> tuple[NllRow, ...]:
    """GENERAL in the template of a model, the answers labelled, as far as its context allows."""
    rows = []
    for number, (question, answer) in enumerate(GENERAL):
        made = loaded.chat.example((Message(Role.USER, question),), answer)
        ids = to_ids(made.prompt + made.response)
        rows.append(NllRow(f"general{number}", ids, max(1, len(made.prompt))))
    return tuple(row for row in rows if row.length <= max_context_tokens(loaded.model))


def mean_loss(model: Any, rows: Sequence[NllRow]) -> float:
    """The mean loss of the rows' labelled tokens, in nats per token. The model stays in its mode."""
    training = model.training
    loss = nll_by_row(model, rows, "float32").sum() / sum(row.label_count for row in rows)
    model.train(training)
    return float(loss)


def release(model: Any) -> None:
    """Let go of a model's weights. It keeps its shapes and computes nothing any more."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(weight.detach().to("meta"), weight.requires_grad))


def check_saved(folder: Path, rows: Sequence[NllRow], trained: float, remedy: str = "") -> float:
    """The mean loss of the model in `folder`, a whole model or an adapter, on `rows`. Raises FaultError where
    it differs from that of the model that was saved by more than TOLERANCE, or cannot be read."""
    try:
        saved = load(str(folder))
        loss = mean_loss(saved.model, rows)
    except EscultorError as error:
        raise FaultError(f"the model saved in {folder} cannot be used", error.what, remedy=remedy) from error
    tolerance = TOLERANCE[saved.dtype] * max(1.0, trained)
    if not abs(loss - trained) <= tolerance:
        raise FaultError(
            f"the model saved in {folder} is not the model that was trained",
            f"loss {loss:.4f} on {len(rows)} rows read back, {trained:.4f} before it was saved",
            f"a difference of at most {tolerance:.2g}, for weights in {saved.dtype}",
            remedy or None,
        )
    return loss


class Beginning:
    """What is known of a model before its first step, to compare it with afterwards: its loss on the rows
    that are read back, and its distributions on general texts, which no run learns. The divergence from these
    is a guard against forgetting."""

    def __init__(self, start: Loaded, read_back: Sequence[NllRow] = ()):
        self.loss = mean_loss(start.model, read_back) if read_back else None
        rows = general_rows(start)
        self._most = max(1, DRIFT_BYTES // (4 * vocabulary_of(start.model)))  # tokens
        self._rows = rows
        self._start = self._logp(start.model)  # (K, V)

    def divergence(self, model: Any) -> float | None:
        """KL(model ‖ start), the mean over labelled tokens, in nats per token; None where no text fits."""
        if not self._rows:
            return None
        now = self._logp(model)
        shared = min(now.shape[1], self._start.shape[1])
        now, start = now[:, :shared], self._start[:, :shared]
        return max(0.0, float((now.exp() * (now - start)).sum(-1).mean()))

    @torch.no_grad()
    def _logp(self, model: Any) -> Tensor:
        """Log-probabilities (K, V) at the first labelled tokens."""
        training = model.training
        model.eval()
        parts, left = [], self._most
        for row in self._rows:
            if left > 0:
                logits = logits_at_labels(model, nll_batch([row]).packed)[:left]
                parts.append(logits.log_softmax(-1))
                left -= len(logits)
        model.train(training)
        return torch.cat(parts) if parts else torch.zeros(0, 0)
