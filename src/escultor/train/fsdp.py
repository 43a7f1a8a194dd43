"""FSDP2: weights sharded over the processes, and made whole again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from escultor.train.objectives.loss import Loss


class _Pass(nn.Module):
    """A forward pass with its objective as one module, in whose forward fsdp gathers the outer weights.

    The loop never calls the model's own forward (see `escultor.model.forward`).
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, objective: Callable[..., Loss], *args: Any) -> tuple[Any, ...]:
        loss = objective(self.model, *args)
        return loss.total, loss.weight, loss.sums  # fsdp finds tensors in plain containers only


def shard(model: nn.Module, device: str) -> Callable[..., Loss]:
    """Leave this process its shard of every weight, layer by layer. Returns `call(objective, *args)`, which
    computes `objective(model, *args)`. Gradients are summed over the processes, not averaged."""
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    layers = set(inner._no_split_modules or ())
    for module in [m for m in model.modules() if type(m).__name__ in layers]:
        fully_shard(module, mesh=mesh)
    outer: nn.Module = _Pass(model)
    fully_shard(outer, mesh=mesh)
    for module in outer.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return lambda objective, *args: Loss(*outer(objective, *args))


def unshard(model: nn.Module, keep: bool) -> None:
    """With `keep`, replace shards by whole weights on the CPU. All processes must call this."""
    whole: dict[nn.Parameter, nn.Parameter] = {}  # a tied weight once
    for module in model.modules():
        for name, part in list(module.named_parameters(recurse=False)):
            if isinstance(part, DTensor) and part not in whole:
                full = part.full_tensor().detach()
                whole[part] = nn.Parameter(full.cpu(), part.requires_grad) if keep else part
            if part in whole:
                setattr(module, name, whole[part])
