"""The content id of a model in memory."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from escultor.ids import HASH_LENGTH

_VOLATILE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")


def model_hash(model: Any, precision: str = "") -> str:
    """The content id of a model: its configuration, every tensor, and the precision of its products where
    that matters."""
    digest = hashlib.sha256(precision.encode())
    config = {k: v for k, v in model.config.to_dict().items() if k not in _VOLATILE}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(
            value.view(torch.uint8).numpy() if value.ndim else value.reshape(1).view(torch.uint8).numpy()
        )
    return digest.hexdigest()[:HASH_LENGTH]
