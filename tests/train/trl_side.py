"""What TRL's own trainers say about one batch of rows given as token ids: the loss and its gradients.

TRL tokenises text. So that it sees exactly our token ids, its tokenizer here has one word per id, named
by the number: the row 5 17 2 is the text "<5> <17> <2>". All that follows is TRL's: its dataset
preparation, collators, trainers and losses, in float32 on the processor.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from escultor.batching.rows import NllRow, PairRow


@dataclass(frozen=True, slots=True)
class Said:
    """A batch's loss as the trainer divides it, and the gradient of every parameter."""

    loss: float
    gradients: dict[str, Tensor]


def pair_loss(
    model: nn.Module,
    reference: nn.Module,
    rows: Sequence[PairRow],
    losses: Sequence[str] = ("sigmoid",),
    **knobs: Any,
) -> Said:
    """DPOTrainer on one batch of pairs. `losses` and `knobs` are TRL's names: beta, label_smoothing,
    loss_weights and so on."""
    data = [
        {"prompt": _words(r.prompt), "chosen": " " + _words(r.chosen), "rejected": " " + _words(r.rejected)}
        for r in rows
    ]
    with _settings(DPOConfig, len(rows), loss_type=list(losses), **knobs) as settings:
        return _said(DPOTrainer, model, data, rows[0].chosen[-1], settings, ref_model=_copy(reference))


def judged_loss(
    model: nn.Module,
    reference: nn.Module,
    rows: Sequence[tuple[np.ndarray, np.ndarray, bool]],
    **knobs: Any,
) -> Said:
    """KTOTrainer on one batch of (prompt, completion, desirable). `knobs`: beta, desirable_weight, …"""
    data = [
        {"prompt": _words(prompt), "completion": " " + _words(completion), "label": bool(label)}
        for prompt, completion, label in rows
    ]
    with _settings(KTOConfig, len(rows), **knobs) as settings:
        return _said(KTOTrainer, model, data, rows[0][1][-1], settings, ref_model=_copy(reference))


def nll_loss(model: nn.Module, rows: Sequence[NllRow]) -> Said:
    """SFTTrainer on one batch, completion tokens alone labelled."""
    data = [
        {"prompt": _words(row.ids[: row.start]), "completion": " " + _words(row.ids[row.start :])}
        for row in rows
    ]
    with _settings(SFTConfig, len(rows)) as settings:
        return _said(SFTTrainer, model, data, rows[0].ids[-1], settings)


def _words(ids: np.ndarray) -> str:
    return " ".join(_word(i) for i in ids.tolist())


def _word(id: int) -> str:
    """No word is part of another, or the end's would be found inside them."""
    return f"<{id}>"


def _tokenizer(vocabulary: int, end: int) -> PreTrainedTokenizerFast:
    """One word per token id; every completion must end in `end`, or TRL would add it."""
    inner = Tokenizer(models.WordLevel({_word(i): i for i in range(vocabulary)}, unk_token=_word(0)))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=_word(end), pad_token=_word(0))


@contextmanager
def _settings(kind: Any, batch: int, **knobs: Any) -> Iterator[Any]:
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        yield kind(
            output_dir=folder,
            per_device_train_batch_size=batch,
            train_sampling_strategy="sequential",
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            max_length=None,
            report_to=[],
            disable_tqdm=True,
            **knobs,
        )


def _copy(model: nn.Module) -> nn.Module:
    """The trainers replace `forward` in the object they are given."""
    return copy.deepcopy(model)


def _said(
    trainer_class: Any, model: nn.Module, data: list[dict[str, Any]], end: int, settings: Any, **more: Any
) -> Said:
    """The loss and gradients of a trainer's first training step, whole batch, no optimizer."""
    own: Any = _copy(model).train()
    own.zero_grad(set_to_none=True)
    trainer = trainer_class(
        model=own,
        args=settings,
        train_dataset=Dataset.from_list(data),
        processing_class=_tokenizer(own.config.vocab_size, int(end)),
        **more,
    )
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss = trainer.compute_loss(own, batch)
    loss.backward()
    gradients = {name: p.grad for name, p in own.named_parameters() if p.grad is not None}
    return Said(loss.item(), gradients)
