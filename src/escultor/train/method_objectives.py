"""From pure objectives to what the loop minimises: which numbers of a model and a batch each is given.

A new objective on single texts is a function of (log-probs, weights) in `per_token`, one on pairs a function
of their margins in `per_pair`: with the other columns of a row of `phases.PHASES` it is a method.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from escultor.batching.batches import NllBatch, PairBatch, UnpairedBatch
from escultor.batching.teacher import KdBatch
from escultor.config import Distillation, Dpo, Kto, Training
from escultor.errors import TrainingError
from escultor.model.forward import hidden_at_labels, logits_of, logp_at_labels, vocabulary_of
from escultor.model.head import in_chunks
from escultor.train.loop import Objective
from escultor.train.objectives import Loss, kd, summed
from escultor.train.preferences import LOSSES, PairLoss, dpo, kto, log_ratios


def per_token(objective: Callable[[Tensor, Tensor], Loss]) -> Callable[[Training], Objective]:
    """What minimises a pure `objective(logp, weight)` of a batch's labelled tokens, both (K,)."""

    def loss(model: nn.Module, batch: NllBatch, before: float) -> Loss:
        return objective(logp_at_labels(model, batch.packed), batch.weight)

    return lambda settings: Objective(loss)


def per_pair(of_margin: PairLoss) -> Callable[[Dpo], Objective]:
    """What minimises a pure loss of pairs' margins; see `preferences.dpo`."""

    def minimised(settings: Dpo) -> Objective:
        def loss(model: nn.Module, batch: PairBatch, before: float) -> Loss:
            packed = batch.packed
            return dpo(
                logp_at_labels(model, packed),
                _given(batch.reference_logp),
                packed.sequence,
                packed.sequences,
                batch.chosen,
                batch.rejected,
                batch.weight,
                settings.beta,
                settings.nll_weight,
                batch.flip_rate,
                of_margin,
                settings.length_normalised,
            )

        return Objective(loss, dropout=False)

    return minimised


def chosen_loss(settings: Dpo) -> Objective:
    """The loss of the family that the settings name."""
    return per_pair(LOSSES[settings.loss])(settings)


def verdicts(settings: Kto) -> Objective:
    """`kto`, by the divergence of the whole step."""

    def divergence(model: nn.Module, batch: UnpairedBatch) -> Loss:
        other, said = batch.other, _given(batch.other_reference_logp)
        return log_ratios(logp_at_labels(model, other), said, other.sequence, other.sequences)

    def loss(model: nn.Module, batch: UnpairedBatch, before: float) -> Loss:
        packed = batch.packed
        return kto(
            logp_at_labels(model, packed),
            _given(batch.reference_logp),
            packed.sequence,
            packed.sequences,
            batch.desirable,
            batch.weight,
            before,
            settings.beta,
            settings.desirable_weight,
            settings.undesirable_weight,
        )

    return Objective(loss, divergence, dropout=False)


def distillation(settings: Distillation) -> Objective:
    """`kd`, of a chunk of tokens at a time: whole distributions of a batch are never in memory. Student and
    teacher have one tokenizer; embedding rows beyond those of the other stand for no token."""

    def loss(model: nn.Module, batch: KdBatch, before: float) -> Loss:
        def of_some(hidden: Tensor, teacher_hidden: Tensor, target: Tensor, weight: Tensor) -> Loss:
            logits, theirs = logits_of(model, hidden), batch.teacher_head(teacher_hidden)  # (k, V)
            both = slice(min(logits.shape[1], theirs.shape[1]))
            logits, theirs = logits[:, both], theirs[:, both]
            return kd(logits, theirs, target, weight, settings.temperature, settings.alpha)

        columns = (hidden_at_labels(model, batch.packed), batch.teacher_hidden)
        columns += (batch.packed.target, batch.weight)
        return summed(in_chunks(of_some, vocabulary_of(model), *columns))

    return Objective(loss)


def _given(reference_logp: Tensor | None) -> Tensor:
    if reference_logp is None:
        raise TrainingError("a batch came without reference log-probs")
    return reference_logp
