"""Models from a directory, fresh ones, and their way back to disk. Safetensors only, no remote code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from escultor.config import Pretrain
from escultor.errors import ModelError, PlaceError
from escultor.model.attention import attend, kind_for
from escultor.text.chat import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUILT_IN = "escultor-base"
BUILT_IN_PATH = Path(__file__).parents[1] / "assets" / BUILT_IN
ADAPTER_CONFIG = "adapter_config.json"  # of a folder that holds an adapter; see `adapters`


@dataclass(frozen=True)
class Loaded:
    """A model with the tokenizer that it was trained with."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def chat(self) -> ChatTemplate:
        """How the tokenizer writes conversations: made once, since that takes longer than a short answer."""
        return ChatTemplate(self.tokenizer)


def resolve(name: str) -> Path:
    """The folder of a model's name: the built-in one's, or the path itself, which may hold an adapter.

    Raises ModelError where no model lies there, saying what is missing.
    """
    path = BUILT_IN_PATH if name == BUILT_IN else Path(name)
    remedy = f"give a folder with config.json and *.safetensors, or `{BUILT_IN}`"
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing is there"
        raise ModelError(f"`{name}` is no model folder", got, remedy=remedy)
    if not (path / "config.json").is_file() and not is_adapter(path):
        raise ModelError(f"`{name}` is no model folder", "no config.json", remedy=remedy)
    if not list(path.glob("*.safetensors")):
        if list(path.glob("*.bin")) or list(path.glob("*.pt")):
            raise ModelError(
                f"`{name}` holds pickled weights, which can run code", remedy="convert it to safetensors"
            )
        raise ModelError(f"`{name}` is no model folder", "no *.safetensors", remedy=remedy)
    return path


def load(name: str) -> Loaded:
    """Load a causal language model and its tokenizer, in float32, ready to train or to answer.

    An adapter is loaded with its base, and merged into it.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    path = resolve(name)
    if is_adapter(path):
        from escultor.model.adapters import load_adapted

        return load_adapted(path)
    try:
        tokenizer = _tokenizer(path)
        found: Any = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (*_UNUSABLE, SafetensorError) as error:
        raise _cannot_be_loaded(name, error) from error
    model, info = found
    if missing := sorted(info["missing_keys"]):  # the library would make them up
        raise ModelError(
            f"`{name}` lacks weights that its config.json asks for",
            f"{len(missing)} missing, such as {missing[0]}",
            remedy="copy the folder again; config.json and *.safetensors must belong together",
        )
    _refuse_more_tokens_than_rows(name, model, tokenizer)
    attend(model, kind_for(model, torch.device("cpu")))
    return Loaded(model, tokenizer)


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter, and not a whole model."""
    return (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file()


def folder_of(model: Any) -> Path | None:
    """The folder from which `model` was loaded; None for one that was made or changed since."""
    name = model.config.name_or_path
    return Path(name).absolute() if name and (Path(name) / "config.json").is_file() else None


def changed(model: Any) -> None:
    """Note that the weights of `model` are no longer those of the folder it came from."""
    model.config.name_or_path = ""


def load_shape(name: str) -> Loaded:
    """A model without its weights (device `meta`) and its tokenizer: enough to look at data with."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    path = resolve(name)
    if is_adapter(path):
        from escultor.model.adapters import base_of

        return load_shape(str(base_of(path)))
    try:
        tokenizer = _tokenizer(path)
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except _UNUSABLE as error:
        raise _cannot_be_loaded(name, error) from error
    _refuse_more_tokens_than_rows(name, model, tokenizer)
    return Loaded(model, tokenizer)


_UNUSABLE = (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError)


def _tokenizer(path: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    _quiet()
    return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def _cannot_be_loaded(name: str, error: Exception) -> ModelError:
    said = " ".join(str(error).split()) or type(error).__name__
    remedy = "copy the folder again, whole: config.json, *.safetensors and the tokenizer's files"
    return ModelError(
        f"`{name}` cannot be loaded as a causal language model", shorten(said, 200), None, remedy
    )


def _refuse_more_tokens_than_rows(name: str, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"`{name}`: the tokenizer has more tokens than the model has rows",
            f"{len(tokenizer)} tokens, {rows} rows",
            remedy="use the tokenizer the model was trained with",
        )


def fresh(
    shape: Pretrain, tokenizer: PreTrainedTokenizerBase, vocabulary: int | None = None
) -> PreTrainedModel:
    """A Llama with random weights (drawn from torch's global generator) for this tokenizer, with as many
    rows in its embedding as it has tokens, or `vocabulary`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    special: dict[str, Any] = {name: getattr(tokenizer, name) for name in names}
    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        **special,
    )
    model = LlamaForCausalLM(config)
    attend(model, kind_for(model, model.device))
    return model


def save(loaded: Loaded, folder: Path, dtype: Any = None) -> None:
    """Write weights (in `dtype`, default as they are) and tokenizer, whole or not at all.

    Raises PlaceError when the disk refuses; nothing half-written is left.
    """
    with written(folder) as temporary:
        state = loaded.model.state_dict()
        if dtype is not None:
            kept = {value.data_ptr(): value.to(dtype) for value in state.values()}  # tied weights once
            state = {name: kept[value.data_ptr()] for name, value in state.items()}
        loaded.model.save_pretrained(temporary, state_dict=state)
        loaded.tokenizer.save_pretrained(temporary)


@contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` once all is in it. See `save`."""
    import shutil

    _quiet()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except Exception as error:  # safetensors raises its own kinds when a disk is full
        shutil.rmtree(temporary, ignore_errors=True)
        raise PlaceError(
            f"the model could not be written to {folder}", error, remedy="free disk space"
        ) from error


def _quiet() -> None:
    """Small models need no progress bars for every file; errors and warnings stay."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def count_parameters(model: PreTrainedModel) -> int:
    """Numbers that training moves; tied weights count once."""
    return sum(p.numel() for p in model.parameters())
