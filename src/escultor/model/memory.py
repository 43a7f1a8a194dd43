"""What a training step does with memory: kept instead of given back and asked for again, or spared."""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from escultor.errors import ModelError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for them, glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 32 MiB: a training step frees and takes the same tensors
    over and over, and fresh pages cost more than the arithmetic on them. Says whether it worked."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(_MMAP_THRESHOLD, 32 << 20)) and bool(libc.mallopt(_TRIM_THRESHOLD, 1 << 30))
    except (OSError, AttributeError):  # another C library
        return False


def checkpoint_layers(model: Any, on: bool) -> None:
    """Keep of each layer its input alone, and compute the rest again backwards (Chen et al. 2016,
    arXiv:1604.06174). Raises ModelError where the model's layers cannot."""
    if not on:
        model.activation_checkpointing_disable()
        return
    if not model.supports_gradient_checkpointing:
        what = f"{type(model).__name__} cannot compute its layers again"
        raise ModelError(what, "gradient_checkpointing true", "false", "set gradient_checkpointing=false")
    model.activation_checkpointing_enable({"use_reentrant": False})


def offloaded() -> AbstractContextManager[Any]:
    """Within it, what autograd keeps waits in the processor's memory; weights stay where they are."""
    there = save_on_cpu(pin_memory=torch.cuda.is_available())

    def pack(value: Tensor) -> Any:
        return value if value.is_leaf and value.requires_grad else there.pack_hook(value)

    def unpack(kept: Any) -> Tensor:
        return kept if isinstance(kept, Tensor) else there.unpack_hook(kept)

    return saved_tensors_hooks(pack, unpack)
