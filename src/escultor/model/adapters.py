"""Low-rank adapters through peft: put around a model, merged back when training is done."""

from __future__ import annotations

from typing import Any

from escultor.config import Lora
from escultor.errors import ConfigError
from escultor.model.load import Loaded


def with_adapter(loaded: Loaded, lora: Lora | None) -> Loaded:
    """The model with a fresh adapter, its own weights frozen; unchanged where `lora` is None.

    Raises ConfigError when peft is not installed or the targets are not in the model.
    """
    if lora is None:
        return loaded
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ConfigError("lora needs peft", remedy="pip install 'escultor[lora]'") from error
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
    return (
        Loaded(model.merge_and_unload(), loaded.tokenizer) if hasattr(model, "merge_and_unload") else loaded
    )
