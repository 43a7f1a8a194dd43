"""A model with its tokenizer, and what is known of where its weights came from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escultor.text.chat import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Loaded:
    """A model with the tokenizer that it was trained with."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def chat(self) -> ChatTemplate:
        """The chat template of the tokenizer; cached, since preparing it takes longer than a short answer."""
        return ChatTemplate(self.tokenizer)


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
