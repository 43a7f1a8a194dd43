"""A model with its tokenizer: where its weights came from, their content id, its size and context."""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escultor.ids import HASH_LENGTH
from escultor.text.chat import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NO_LIMIT = 1 << 30  # a length in tokens that no text has
_VOLATILE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")


@dataclass(frozen=True)
class Loaded:
    """A model with the tokenizer that it was trained with. `dtype` is that of its stored weights (float32,
    bfloat16, float16), in which it is saved again unless another is asked for; in memory they are float32.
    `date` is what a template that writes today's date takes for it; None: today."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dtype: str = "float32"
    date: datetime.date | None = None

    @cached_property
    def chat(self) -> ChatTemplate:
        """The chat template of the tokenizer; cached, since preparing it takes longer than a short answer."""
        return ChatTemplate(self.tokenizer, self.date)

    @cached_property
    def stops(self) -> frozenset[int]:
        """The ids that end an answer, wherever one is generated: the end of the template's turn, the
        tokenizer's EOS, and every EOS of the model's generation config (an id, or a list)."""
        model: Any = self.model
        listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        rows = model.get_input_embeddings().weight.shape[0]
        own = [id for id in _as_list(listed) if isinstance(id, int) and 0 <= id < rows]
        return frozenset((self.chat.turn_end[-1], self.chat.eos, *own))


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def folder_of(model: Any) -> Path | None:
    """The folder from which `model` was loaded; None for one that was made or changed in memory since."""
    name = model.config.name_or_path
    return Path(name).absolute() if name and (Path(name) / "config.json").is_file() else None


def forget_folder(model: Any) -> None:
    """Note that the weights of `model` are no longer those of the folder it was loaded from."""
    model.config.name_or_path = ""


def count_parameters(model: PreTrainedModel) -> int:
    """The number of parameters of a model; tied weights count once."""
    return sum(p.numel() for p in model.parameters())


def context_length(model: Any) -> int | None:
    """The most tokens that `model` takes in one sequence, prompt and answer together. None: its configuration
    names no limit, as those of models without learnt or scaled positions."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length and length > 0 else None


def max_context_tokens(model: Any) -> int:
    """`context_length`, or NO_LIMIT where the configuration of the model names none."""
    return context_length(model) or NO_LIMIT


def model_hash(model: Any, precision: str = "") -> str:
    """The content id of a model in memory: its configuration, every tensor, and the precision of its products
    where that matters."""
    import torch

    digest = hashlib.sha256(precision.encode())
    config = {k: v for k, v in model.config.to_dict().items() if k not in _VOLATILE}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update((value if value.ndim else value.reshape(1)).view(torch.uint8).numpy())
    return digest.hexdigest()[:HASH_LENGTH]
