"""Weights in shares (FSDP2): laid out over the processes, and made whole again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from escultor.train.objectives import Loss


class _Pass(nn.Module):
    """A forward pass with its objective as one module, within which the outer weights are whole.

    The loop never calls the model's own forward (see `escultor.model.forward`), where fsdp would step in.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, objective: Callable[..., Loss], *args: Any) -> tuple[Any, ...]:
        loss = objective(self.model, *args)
        return loss.total, loss.weight, loss.sums  # fsdp looks for tensors in plain containers


def shard(model: nn.Module, device: str) -> Callable[..., Loss]:
    """Leave this process its share of every weight, layer by layer; returns `run(objective, *args)`.

    Gradients are summed over the processes, not averaged.
    """
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
    """Put whole weights on the processor in the place of shares, where `keep` says so. All must call it."""
    made: dict[nn.Parameter, nn.Parameter] = {}  # a tied weight once
    for module in model.modules():
        for name, share in list(module.named_parameters(recurse=False)):
            if isinstance(share, DTensor) and share not in made:
                full = share.full_tensor().detach()
                made[share] = nn.Parameter(full.cpu(), share.requires_grad) if keep else share
            if share in made:
                setattr(module, name, made[share])
