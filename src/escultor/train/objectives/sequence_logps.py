"""Log-probabilities of whole responses under the trained model and under its reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from escultor.train.objectives.loss import check_same_shape


@dataclass(frozen=True, slots=True)
class SequenceLogps:
    """Log-probabilities of K labelled tokens that belong to S sequences. The log-ratio of a response y to a
    prompt x is r(y) = log pi(y|x) - log pi_ref(y|x), a sum over the tokens of y. Raises ValueError where the
    two models' log-probabilities differ in shape."""

    logp: Tensor  # (K,)
    reference_logp: Tensor  # (K,)
    sequence: Tensor  # (K,), the sequence that each token belongs to
    sequences: int  # S

    def __post_init__(self) -> None:
        check_same_shape("logp", self.logp, "reference_logp", self.reference_logp)

    @property
    def log_ratios(self) -> Tensor:
        """r of each sequence: (S,)."""
        return self.sum(self.logp - self.reference_logp)

    @property
    def lengths(self) -> Tensor:
        """Labelled tokens of each sequence: (S,)."""
        return self.sum(torch.ones_like(self.logp))

    def sum(self, values: Tensor) -> Tensor:
        """Sum (K,) values by sequence: (S,)."""
        return sum_by_sequence(values, self.sequence, self.sequences)


def sum_by_sequence(values: Tensor, sequence: Tensor, sequences: int) -> Tensor:
    """Sum (K,) values by the sequence that each belongs to: (S,)."""
    return torch.zeros(sequences, dtype=values.dtype, device=values.device).index_add(0, sequence, values)
