"""TRL's side of a benchmark: its own trainers on the same rows, with bfloat16 and checkpointing as asked."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from common import Job, Run, differences, items
from datasets import Dataset, disable_progress_bars
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from escultor.batching.rows import NllRow, PairRow
from escultor.config import Training
from escultor.errors import DataError
from escultor.model.loaded import Loaded
from escultor.types import Example, Pair


class _Stamps(TrainerCallback):
    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at.append(time.perf_counter())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at.append(time.perf_counter())


def _recorded(kind: Any) -> Any:
    """The trainer, which also notes each step's loss and tokens, and how long the reference took."""

    class Recorded(kind):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.losses: list[float] = []
            self.tokens: list[int] = []
            self.reference_s = 0.0
            super().__init__(*args, **kwargs)

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            shown = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
            self.tokens.append(int(shown.sum()))
            loss = super().training_step(model, inputs, *args, **kwargs)
            self.losses.append(loss.item())
            return loss

        def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            found = super()._precompute_ref_logps(*args, **kwargs)
            self.reference_s = time.perf_counter() - began
            return found

    return Recorded


def trl(job: Job, loaded: Loaded, rows: Sequence[Any], settings: Training, memory: Any) -> Run:
    """Train with TRL on the rows' own conversations; refused where it makes other token ids of them."""
    disable_progress_bars()
    trainer_class, config_class = {"dpo": (DPOTrainer, DPOConfig), "sft": (SFTTrainer, SFTConfig)}[job.phase]
    stamps = _Stamps()
    with tempfile.TemporaryDirectory() as folder:
        config = config_class(**_settings(job, settings, folder) | job.rival)
        trainer = _recorded(trainer_class)(
            model=loaded.model,
            args=config,
            train_dataset=Dataset.from_list([_conversation(item) for item in items(job)]),
            processing_class=loaded.tokenizer,
            callbacks=[stamps],
        )
        if not job.rival.get("packing"):
            _refuse_other_ids(trainer.train_dataset, rows)
        trainer.train()
    return Run(
        differences(stamps.at),
        trainer.losses,
        trainer.tokens,
        memory.base,
        memory.peak(),
        trainer.reference_s,
    )


def _settings(job: Job, settings: Training, folder: str) -> dict[str, Any]:
    """Ours, by TRL's names."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": job.batch,
        "max_steps": job.steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "max_length": settings.max_length,
        "train_sampling_strategy": "sequential",
        "bf16": job.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "use_cpu": job.device == "cpu",
        "dataloader_pin_memory": job.device == "cuda",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def _conversation(item: Pair | Example) -> dict[str, Any]:
    def answer(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    prompt = [{"role": str(m.role), "content": m.content} for m in item.prompt]
    if isinstance(item, Pair):
        return {"prompt": prompt, "chosen": answer(item.chosen), "rejected": answer(item.rejected)}
    return {"prompt": prompt, "completion": answer(item.response)}


def _refuse_other_ids(theirs: Any, ours: Sequence[PairRow | NllRow]) -> None:
    """Work is compared on the same tokens or not at all."""
    for i, row in enumerate(ours):
        if isinstance(row, PairRow):
            same = [theirs[i][name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")] == [
                part.tolist() for part in (row.prompt, row.chosen, row.rejected)
            ]
        else:
            labels = [-100] * row.start + row.ids[row.start :].tolist()
            same = theirs[i]["input_ids"] == row.ids.tolist() and theirs[i]["labels"] == labels
        if not same:
            raise DataError(f"TRL makes other tokens of row {i} ({row.id})", None, "the same token ids")
