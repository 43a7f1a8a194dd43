"""Causal language models from folders, and fresh ones. Safetensors only, no remote code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from escultor.config import Pretrain
from escultor.errors import EscultorError, ModelError
from escultor.model.adapters import apply_adapter
from escultor.model.attention import choose_attention, set_attention
from escultor.model.folder_checks import check_finite, check_parameters, check_patterns
from escultor.model.folders import base_folder, is_adapter, resolve, stored_dtype
from escultor.model.loaded import Loaded
from escultor.model.messages import plain_messages

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# A text on which tokenizers differ: blanks, digits, marks, other scripts, case, line ends.
_PROBE = "Hello  World 1234567 x = 1;\r\n\n  It's naïve — 東京 😀 don't HTTPServer\tÀ é\u0301 [a_b] I'LL"


def load(name: str) -> Loaded:
    """Load a causal language model and its tokenizer in float32; of a folder that holds an adapter, its base
    with the adapter merged. Raises ModelError for what is no usable model."""
    import torch
    from transformers import AutoModelForCausalLM

    path = resolve(name)
    if is_adapter(path):
        return apply_adapter(load(str(base_folder(path))), path)
    with _plain_errors(name):
        tokenizer = load_tokenizer(path)
        check_parameters(name, path, _without_weights(path))
        model, info = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )  # type: ignore[misc]
    if missing := sorted(info["missing_keys"]):  # the library would initialise them at random
        what = f"`{name}` lacks weights that its config.json asks for"
        remedy = "copy the folder again; config.json and *.safetensors must belong together"
        raise ModelError(what, f"{len(missing)} missing, such as {missing[0]}", remedy=remedy)
    check_finite(name, model)
    _refuse_more_tokens_than_rows(name, model, tokenizer)
    set_attention(model, choose_attention(model, torch.device("cpu")))
    return Loaded(model, tokenizer, stored_dtype(path))


def load_shape(name: str) -> Loaded:
    """A model without its weights (device `meta`) and its tokenizer: enough to preview data with. Raises
    ModelError for what is no usable model."""
    path = resolve(name)
    if is_adapter(path):
        return load_shape(str(base_folder(path)))
    with _plain_errors(name):
        tokenizer = load_tokenizer(path)
        model = _without_weights(path)
    _refuse_more_tokens_than_rows(name, model, tokenizer)
    return Loaded(model, tokenizer)


def _without_weights(path: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)


def init_llama(
    shape: Pretrain, tokenizer: PreTrainedTokenizerBase, vocabulary: int | None = None
) -> PreTrainedModel:
    """A Llama with random weights, drawn from torch's global generator, for this tokenizer. `vocabulary`:
    rows of the embedding; default: as many as the tokenizer has tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        **{name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )
    model = LlamaForCausalLM(config)
    set_attention(model, choose_attention(model, model.device))
    return model


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, as its tokenizer.json says: the class that the library chooses by the
    model's type may split texts otherwise (a Qwen2 model with a tokenizer of its own, as R1-Distill)."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    plain_messages()
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        check_patterns(path, backend)
    file = path / "tokenizer.json"
    if type(tokenizer) is PreTrainedTokenizerFast or not file.is_file():
        return tokenizer
    said = Tokenizer.from_file(str(file)).encode(_PROBE, add_special_tokens=False).ids
    if tokenizer.encode(_PROBE, add_special_tokens=False) == said:
        return tokenizer
    return PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)


@contextmanager
def _plain_errors(name: str) -> Iterator[None]:
    """Whatever a library raises for a damaged or unknown model, as a ModelError."""
    try:
        yield
    except EscultorError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "copy the folder again, whole: config.json, *.safetensors and the tokenizer's files"
        what = f"`{name}` cannot be loaded as a causal language model"
        raise ModelError(what, shorten(reason, 200), None, remedy) from error


def _refuse_more_tokens_than_rows(name: str, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        what = f"`{name}`: the tokenizer has more tokens than the model's embedding has rows"
        remedy = "use the tokenizer the model was trained with"
        raise ModelError(what, f"{len(tokenizer)} tokens, {rows} rows", remedy=remedy)
