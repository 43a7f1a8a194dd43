"""Low-rank adapters through peft: put around a model, saved without it, merged into its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from escultor.config import Lora
from escultor.errors import ConfigError, ModelError
from escultor.model.folders import BASE, replace_folder
from escultor.model.loaded import Loaded, folder_of, forget_folder
from escultor.store.blobs import tree_hash


def with_adapter(loaded: Loaded, lora: Lora | None) -> Loaded:
    """The model with a fresh adapter and its own weights frozen; unchanged where `lora` is None. Raises
    ConfigError when peft is not installed or the targets are not in the model."""
    if lora is None:
        return loaded
    peft = import_peft()
    targets: Any = list(lora.targets) or "all-linear"
    settings = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        model: Any = peft.get_peft_model(loaded.model, settings)
    except ValueError as error:
        raise ConfigError("lora.targets are not in this model", list(lora.targets)) from error
    return Loaded(model, loaded.tokenizer)


def adapter_numbers(model: Any, lora: Lora) -> int:
    """How many parameters such an adapter has: rank × (in + out) of each layer it is put around."""
    head = model.get_output_embeddings()
    return sum(
        lora.rank * sum(module.weight.shape)
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D")
        and (name.endswith(lora.targets) if lora.targets else module is not head)
    )


def merge_adapter(loaded: Loaded) -> Loaded:
    """The plain model with its adapter added into the weights; unchanged where it has none."""
    model: Any = loaded.model
    if not hasattr(model, "merge_and_unload"):
        return loaded
    plain = model.merge_and_unload()
    plain.requires_grad_(True)
    forget_folder(plain)
    return Loaded(plain, loaded.tokenizer)


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
    return merge_adapter(Loaded(model, base.tokenizer))


@contextmanager
def explain_misfit(path: Path) -> Iterator[None]:
    """A block that loads the adapter in `path`; raises ModelError where it does not fit the model."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the adapter in {path} does not fit its base", first) from error


def import_peft() -> Any:
    """The library peft, which is an extra. Raises ConfigError where it is not installed."""
    try:
        import peft
    except ImportError as error:
        raise ConfigError("adapters need peft", remedy="pip install 'escultor[lora]'") from error
    return peft
