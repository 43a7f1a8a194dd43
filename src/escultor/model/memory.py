"""Memory of a training step: reuse by the allocator, gradient checkpointing, activation offload."""

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
    """Let glibc keep freed blocks of up to 32 MiB, since a step allocates the same tensors over and over and
    fresh pages cost more than the arithmetic on them. Returns whether that was possible."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(_MMAP_THRESHOLD, 32 << 20)) and bool(libc.mallopt(_TRIM_THRESHOLD, 1 << 30))
    except (OSError, AttributeError):  # another C library
        return False


def checkpoint_layers(model: Any, on: bool) -> None:
    """Turn gradient checkpointing on or off: layers keep their input alone and are computed again in the
    backward pass (Chen et al. 2016, arXiv:1604.06174). Raises ModelError where they do not support it."""
    if not on:
        model.activation_checkpointing_disable()
        return
    if not model.supports_gradient_checkpointing:
        what = f"{type(model).__name__} does not support gradient checkpointing"
        raise ModelError(what, "gradient_checkpointing true", "false", "set gradient_checkpointing=false")
    model.activation_checkpointing_enable({"use_reentrant": False})


def offload_activations() -> AbstractContextManager[Any]:
    """A context in which autograd saves activations in the host memory; weights stay where they are."""
    on_cpu = save_on_cpu(pin_memory=torch.cuda.is_available())

    def pack(value: Tensor) -> Any:
        return value if value.is_leaf and value.requires_grad else on_cpu.pack_hook(value)

    def unpack(packed: Any) -> Tensor:
        return packed if isinstance(packed, Tensor) else on_cpu.unpack_hook(packed)

    return saved_tensors_hooks(pack, unpack)
