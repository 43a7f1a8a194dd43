"""Settings for models of a size, as defaults: a key of the configuration goes before that of a preset.

| preset | for                              | method       | batch | micro-batch | checkpointing | dtype    |
|--------|----------------------------------|--------------|-------|-------------|---------------|----------|
| small  | up to a billion parameters       | LoRA rank 16 | 16    | 4           | no            | auto     |
| 7b     | about seven billion, a 48 GB GPU | LoRA rank 32 | 16    | 1           | yes           | bfloat16 |

The learning rate is that of every adapter: ten times the method's own (`LORA_RATE`).
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from escultor.config.training import Training

PresetName = Literal["small", "7b"]
PRESETS: dict[PresetName, dict[str, Any]] = {
    "small": {"lora": {"rank": 16, "alpha": 32}, "batch_size": 16, "micro_batch_size": 4, "dtype": "auto"},
    "7b": {
        "lora": {"rank": 32, "alpha": 64},
        "batch_size": 16,
        "micro_batch_size": 1,
        "dtype": "bfloat16",
        "gradient_checkpointing": True,
    },
}
T = TypeVar("T", bound=Training)


def with_preset(settings: T, name: PresetName | None) -> T:
    """The settings with a preset's values for the keys that nobody set."""
    if name is None:
        return settings
    given, preset = settings.model_dump(exclude_unset=True), PRESETS[name]
    if isinstance(given.get("lora"), dict):
        given["lora"] = preset["lora"] | given["lora"]
    return type(settings).model_validate(preset | given)
