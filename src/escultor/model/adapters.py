"""Low-rank adapters through peft: put around a model, kept beside it, merged back into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from escultor.config import Lora
from escultor.errors import ConfigError, ModelError
from escultor.model.load import ADAPTER_CONFIG, Loaded, changed, folder_of, load, resolve, written

BASE = "base.json"  # beside an adapter: the content hash of the folder that it belongs to


def with_adapter(loaded: Loaded, lora: Lora | None) -> Loaded:
    """The model with a fresh adapter, its own weights frozen; unchanged where `lora` is None.

    Raises ConfigError when peft is not installed or the targets are not in the model.
    """
    if lora is None:
        return loaded
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise _no_peft() from error
    shape: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha}
    settings = LoraConfig(target_modules=list(lora.targets) or "all-linear", task_type="CAUSAL_LM", **shape)
    try:
        model: Any = get_peft_model(loaded.model, settings)
    except ValueError as error:
        raise ConfigError("lora.targets are not in this model", list(lora.targets)) from error
    return Loaded(model, loaded.tokenizer)


def adapter_numbers(model: Any, lora: Lora) -> int:
    """How many numbers such an adapter trains: rank × (in + out) of each layer it is put around."""
    head = model.get_output_embeddings()
    return sum(
        lora.rank * sum(module.weight.shape)
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D")
        and (name.endswith(lora.targets) if lora.targets else module is not head)
    )


def merged(loaded: Loaded) -> Loaded:
    """The plain model with its adapter folded into the weights."""
    model: Any = loaded.model
    if not hasattr(model, "merge_and_unload"):
        return loaded
    plain = model.merge_and_unload()
    plain.requires_grad_(True)
    changed(plain)
    return Loaded(plain, loaded.tokenizer)


def save_adapter(loaded: Loaded, folder: Path) -> None:
    """Write the adapter alone, as peft and vLLM read it, with the folder of its base and that folder's hash.

    Raises ModelError where the base lies in no folder, StoreError when the disk refuses.
    """
    from escultor.store.blobs import tree_hash

    model: Any = loaded.model
    base = folder_of(model.get_base_model())
    if base is None:
        raise no_base()
    model.peft_config["default"].base_model_name_or_path = str(base)
    with written(folder) as temporary:
        model.save_pretrained(temporary, save_embedding_layers=False)
        (temporary / "README.md").unlink(missing_ok=True)  # a form, not filled in
        (temporary / BASE).write_text(json.dumps({"tree_hash": tree_hash(base)}) + "\n", encoding="utf-8")


def no_base() -> ModelError:
    """Why an adapter cannot stand alone."""
    return ModelError(
        "an adapter alone needs a base that lies in a folder",
        "a model that was made or changed in memory",
        remedy="set lora.merge=true, or start from a saved model (`escultor merge` makes one)",
    )


def base_hash(path: Path) -> str | None:
    """The content hash of an adapter's base, None where its maker noted none. Raises ValueError, KeyError or
    TypeError for a note that says nothing."""
    known = path / BASE
    return json.loads(known.read_text(encoding="utf-8"))["tree_hash"] if known.is_file() else None


def base_of(path: Path) -> Path:
    """The folder of an adapter's base: in the same store, or where it lay when the adapter was made. Raises
    ModelError where it is gone or no longer the same."""
    from escultor.store.blobs import beside, tree_hash

    try:
        name = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
        expected = base_hash(path)
        base = (beside(path, expected) if expected else None) or resolve(name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = f"put its base there, or name another folder in {path / ADAPTER_CONFIG}"
        raise ModelError(f"the base of the adapter in {path} is not there", error, remedy=remedy) from error
    if expected is not None and (found := tree_hash(base)) != expected:
        raise ModelError(
            f"the base of the adapter in {path} has changed since",
            f"{base} is {found[:12]}",
            expected[:12],
            "bring the base back",
        )
    return base


def load_adapted(path: Path) -> Loaded:
    """The base of the adapter in `path`, with the adapter merged into it."""
    base = load(str(base_of(path)))
    try:
        from peft import PeftModel
    except ImportError as error:
        raise _no_peft() from error
    try:
        model: Any = PeftModel.from_pretrained(base.model, str(path))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the adapter in {path} does not fit its base", first) from error
    return merged(Loaded(model, base.tokenizer))


def _no_peft() -> ConfigError:
    return ConfigError("lora needs peft", remedy="pip install 'escultor[lora]'")
