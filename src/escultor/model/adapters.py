"""Low-rank adapters through peft: put around a model, saved without it, merged into its weights.

Where an embedding and the head are one weight and an adapter changes either, they become two before anything
else: merged into a shared weight, a change of one would silently be a change of both.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from escultor.config import Lora
from escultor.errors import ConfigError, FaultError, ModelError
from escultor.model.folders import BASE, replace_folder
from escultor.model.loaded import Loaded, folder_of, forget_folder
from escultor.store.blobs import tree_hash

_ANSWERED = (
    ("(?s)Model (has|with) `tie_word_embeddings=True`", UserWarning),  # see `_untie_adapted`
    ("Input and output embeddings are no longer tied", UserWarning),
    ("`is_gradient_checkpointing` is deprecated", FutureWarning),  # peft reads an old name of transformers
)
MERGE_TOKENS = 8  # whose logits are compared before and after merging
MERGE_TOLERANCE = 1e-3  # of the largest logit; rounding in float32 is a hundredth of it


def with_adapter(loaded: Loaded, lora: Lora | None) -> Loaded:
    """The model with a fresh adapter and its own weights frozen; unchanged where `lora` is None. Raises
    ConfigError when peft is not installed or the targets are not in the model."""
    if lora is None:
        return loaded
    peft = import_peft()
    _check_targets(loaded.model, lora)
    targets: Any = list(lora.targets) or "all-linear"
    settings = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        with without_answered_warnings():
            model: Any = peft.get_peft_model(loaded.model, settings)
    except ValueError as error:
        raise ConfigError("lora.targets cannot be adapted in this model", str(error)[:200]) from error
    _untie_adapted(model)
    return replace(loaded, model=model)


def _check_targets(model: Any, lora: Lora) -> None:
    """Refuse a target that names no layer: peft looks for any, and leaves the others out without a word."""
    missing = [target for target in lora.targets if not any(_adapted(model, Lora(targets=(target,))))]
    if missing:
        kinds = dict.fromkeys(name.rpartition(".")[2] for name, _ in _adapted(model, Lora()))
        remedy = "leave lora.targets out: it then takes all linear layers but the head"
        raise ConfigError("lora.targets are not in this model", missing, ", ".join(kinds), remedy)


def adapter_numbers(model: Any, lora: Lora) -> int:
    """How many parameters such an adapter has: rank × (in + out) of each layer it is put around."""
    return sum(lora.rank * sum(module.weight.shape) for _, module in _adapted(model, lora))


def untied_numbers(model: Any, lora: Lora) -> int:
    """How many parameters the model gains because its embedding and head are one weight and become two; 0
    where the adapter leaves both alone."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not table.weight:
        return 0
    return head.weight.numel() if any(m in (table, head) for _, m in _adapted(model, lora)) else 0


def _adapted(model: Any, lora: Lora) -> Iterator[tuple[str, Any]]:
    """The layers that such an adapter is put around: the targets, or all linear ones but the head."""
    from transformers.pytorch_utils import Conv1D

    kinds, head = (nn.Linear, nn.Embedding, Conv1D), model.get_output_embeddings()
    for name, module in model.named_modules():
        named = name.split(".")[-1] in lora.targets or name.endswith(tuple(f".{t}" for t in lora.targets))
        chosen = named if lora.targets else module is not head and not isinstance(module, nn.Embedding)
        if isinstance(module, kinds) and chosen:
            yield name, module


def _untie_adapted(model: Any) -> None:
    """Give the head a weight of its own where the adapter of `model` changes it or the embedding with it."""
    inner = model.get_base_model()
    table, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    own_table, own_head = _without_adapter(table), _without_adapter(head)
    if own_head is None or own_head.weight is not own_table.weight:
        return
    if own_table is table and own_head is head:
        return
    own_head.weight = nn.Parameter(own_head.weight.detach().clone(), requires_grad=False)
    for config in (inner.config, inner.config.get_text_config()):
        config.tie_word_embeddings = False


def _without_adapter(module: Any) -> Any:
    return getattr(module, "base_layer", getattr(module, "original_module", module))


def merge_adapter(loaded: Loaded) -> Loaded:
    """The plain model with its adapter added into the weights; unchanged where it has none. Raises FaultError
    where the merged model does not compute what the adapted one does."""
    model: Any = loaded.model
    if not hasattr(model, "merge_and_unload"):
        return loaded
    adapted = _some_logits(model)
    with without_answered_warnings():
        plain = model.merge_and_unload()
    plain.requires_grad_(True)
    forget_folder(plain)
    gap, largest = (_some_logits(plain) - adapted).abs().max().item(), adapted.abs().max().item()
    if not gap <= MERGE_TOLERANCE * max(1.0, largest):
        what = "the adapter cannot be merged into its base without changing what it computes"
        remedy = "leave embeddings and head out of lora.targets, or set lora.merge=false"
        allowed = f"{MERGE_TOLERANCE:g} of the largest, {largest:.3g}"
        raise FaultError(what, f"logits that differ by up to {gap:.3g}", allowed, remedy)
    return replace(loaded, model=plain)


@torch.no_grad()
def _some_logits(model: Any) -> torch.Tensor:
    """Logits (1, T, V) of a few tokens that every vocabulary has."""
    training, rows = model.training, model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(3, 3 + 7 * MERGE_TOKENS, 7, device=model.device)[None] % rows  # (1, T)
    logits = model.eval()(input_ids=ids, use_cache=False).logits.float()
    model.train(training)
    return logits


def save_adapter(loaded: Loaded, folder: Path) -> None:
    """Write the adapter alone, as peft and vLLM read it, with the folder of its base and that folder's hash.
    Raises ModelError where the base is not in a folder, StoreError when the disk refuses."""
    model: Any = loaded.model
    base = folder_of(model.get_base_model())
    if base is None:
        raise adapter_without_base()
    model.peft_config["default"].base_model_name_or_path = str(base)
    with replace_folder(folder) as temporary:
        model.save_pretrained(temporary, save_embedding_layers=False)
        (temporary / "README.md").unlink(missing_ok=True)  # peft's blank model card
        (temporary / BASE).write_text(json.dumps({"tree_hash": tree_hash(base)}) + "\n", encoding="utf-8")


def adapter_without_base() -> ModelError:
    """The error for an adapter that would be saved without a base to load it onto."""
    what = "an adapter alone needs a base that is in a folder"
    remedy = "set lora.merge=true, or start from a saved model (`escultor merge` makes one)"
    return ModelError(what, "a model that was made or changed in memory", remedy=remedy)


def apply_adapter(base: Loaded, path: Path) -> Loaded:
    """The base with the adapter in `path` merged. Raises ModelError where the two do not fit."""
    peft = import_peft()
    with explain_misfit(path):
        model: Any = peft.PeftModel.from_pretrained(base.model, str(path))
    _untie_adapted(model)
    return merge_adapter(replace(base, model=model))


@contextmanager
def explain_misfit(path: Path) -> Iterator[None]:
    """A block that loads the adapter in `path`; raises ModelError where it does not fit the model."""
    try:
        with without_answered_warnings():
            yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the adapter in {path} does not fit its base", first) from error


@contextmanager
def without_answered_warnings() -> Iterator[None]:
    """A block in which peft does not warn of what is taken care of here, or is its own affair."""
    with warnings.catch_warnings():
        for text, category in _ANSWERED:
            warnings.filterwarnings("ignore", text, category)
        yield


def import_peft() -> Any:
    """The library peft, which is an extra. Raises ConfigError where it is not installed."""
    try:
        import peft
    except ImportError as error:
        raise ConfigError("adapters need peft", remedy="pip install 'escultor[lora]'") from error
    return peft
