"""The processes that train one model, and the collective operations between them.

Sums are taken over processes, never means: the loop divides once, by the weight of all. Figures travel as
float64 through gloo; gradients and weights through gloo on CPUs and nccl on GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from escultor.config import Training
from escultor.errors import ConfigError, EscultorError, LostProcess
from escultor.model.forward import unwrapped
from escultor.train.objectives.loss import Loss

Strategy = Literal["ddp", "fsdp"]
T = TypeVar("T")

CPU = torch.device("cpu")
_NEEDS_WHOLE = {"muon": "matrices", "adamw8bit": "weights"}  # optimizers that cannot work on shards of them
BUCKET_VALUES = 1 << 23  # numbers in one all-reduce of gradients: 32 MiB of float32
_LOST = ("gloo", "NCCL", "closed by peer", "Connection reset")  # in error messages when a process is gone


@dataclass(frozen=True, slots=True)
class World:
    """The processes that train one model, and the rank of this one; `ALONE` is a single process.

    ddp: each holds the whole model. fsdp: each holds a shard of every weight (FSDP2, ZeRO stage 3;
    Rajbhandari et al. 2020, arXiv:1910.02054). Collective methods must be called by all processes in the
    same order.
    """

    rank: int = 0
    size: int = 1
    strategy: Strategy = "ddp"
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        return self.strategy == "fsdp"

    def check_settings(self, settings: Training) -> None:
        """Raise ConfigError for settings that the strategy or the device cannot follow."""
        if self.is_sharded and (needs := _NEEDS_WHOLE.get(settings.optimizer)):
            raise ConfigError(
                f"{settings.optimizer} works on whole {needs}, and fsdp leaves each process a shard of them",
                f"optimizer {settings.optimizer} under strategy fsdp",
                f"optimizer adamw under fsdp, or {settings.optimizer} under ddp",
                "set optimizer=adamw, or give --strategy ddp",
            )
        if settings.activation_offload and self.device.type == "cpu":
            what = "activation_offload needs a GPU: it moves activations to the memory of the CPU"
            remedy = "set activation_offload=false; gradient_checkpointing saves memory on a CPU"
            raise ConfigError(what, "activation_offload true on cpu", "false", remedy)

    def on_device(self, device: Literal["auto", "cpu", "cuda"]) -> World:
        """This process on the device of the settings. Raises ConfigError where there is no such device."""
        has_gpu = torch.cuda.is_available()
        if device == "cuda" and not has_gpu:
            remedy = "set device=auto"
            raise ConfigError("there is no GPU that torch can use", "device cuda", "auto or cpu", remedy)
        if device == "cpu" or not has_gpu:
            return replace(self, device=CPU)
        return self if self.device.type == "cuda" else replace(self, device=torch.device("cuda"))

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each figure, summed over the processes."""
        if self.size == 1:
            return list(values)
        figures = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(figures)
        return figures.tolist()

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank; every process receives all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        self.gather(None)

    def shard(self, model: nn.Module) -> Callable[..., Any]:
        """Distribute `model` over the processes, in place. Returns `call(function, *args)`, which computes
        `function(model, *args)` with whole weights."""
        if self.size > 1:
            for value in (*model.parameters(), *model.buffers()):
                dist.broadcast(value.detach(), 0)
        if self.is_sharded:
            return _shard(model, self.device.type)
        return lambda function, *args: function(model, *args)

    def unshard(self, model: nn.Module) -> None:
        """Undo `shard`: the first process holds the whole weights again, on the CPU."""
        if self.is_sharded:
            _unshard(model, keep=self.is_first)

    def sum_gradients(self, model: nn.Module) -> None:
        """Sum the gradients over the processes. Under fsdp the backward passes have already done so. A weight
        without a gradient in any process stays without one, as in a single process."""
        if self.size == 1 or self.is_sharded:
            return
        weights = [p for p in model.parameters() if p.requires_grad]
        gradient_counts = self.sum([float(p.grad is not None) for p in weights])
        for bucket in _buckets([p for p, n in zip(weights, gradient_counts, strict=True) if n]):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            parts = flat.split([p.numel() for p in bucket])
            for weight, gradient, part in zip(bucket, gradients, parts, strict=True):
                weight.grad = gradient.copy_(part.view_as(gradient))


ALONE = World()


def whole(value: Tensor) -> Tensor:
    """The whole of a tensor. All processes that hold a shard of it must call this."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@contextmanager
def joined(strategy: Strategy = "ddp") -> Iterator[World]:
    """The processes that torchrun started (RANK, WORLD_SIZE), or `ALONE` without torchrun. Raises ConfigError
    for more processes than GPUs, and LostProcess when another process is gone."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = _device(int(os.environ.get("LOCAL_RANK", rank)))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank, size, strategy, device)
    except RuntimeError as error:
        if isinstance(error, EscultorError) or not any(word in str(error) for word in _LOST):
            raise
        remedy = "see its output; the same command resumes from the last saved state"
        raise LostProcess("another process of this run is gone", remedy=remedy) from error
    dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        what = "there are more processes than GPUs"
        got = f"process {local_rank + 1} of this machine"
        raise ConfigError(what, got, f"at most {torch.cuda.device_count()}", "give a smaller --nproc")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _buckets(weights: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Runs of weights of at most BUCKET_VALUES numbers together, or a single larger one."""
    bucket: list[nn.Parameter] = []
    for weight in weights:
        if bucket and sum(p.numel() for p in bucket) + weight.numel() > BUCKET_VALUES:
            yield bucket
            bucket = []
        bucket.append(weight)
    if bucket:
        yield bucket


# --- FSDP2: weights sharded over the processes, and made whole again ---------------------------------


class _Pass(nn.Module):
    """A forward pass with its objective as one module, in whose forward fsdp gathers the outer weights. The
    loop never calls the model's own forward (see `escultor.model.forward`)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, objective: Callable[..., Loss], *args: Any) -> tuple[Any, ...]:
        loss = objective(self.model, *args)
        return loss.total, loss.weight, loss.sums  # fsdp finds tensors in plain containers only


def _shard(model: nn.Module, device: str) -> Callable[..., Loss]:
    """Leave this process its shard of every weight, layer by layer. Returns `call(objective, *args)`, which
    computes `objective(model, *args)`. Gradients are summed over the processes, not averaged."""
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    layers = set(unwrapped(model)._no_split_modules or ())
    for module in [m for m in model.modules() if type(m).__name__ in layers]:
        fully_shard(module, mesh=mesh)
    outer: nn.Module = _Pass(model)
    fully_shard(outer, mesh=mesh)
    for module in outer.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return lambda objective, *args: Loss(*outer(objective, *args))


def _unshard(model: nn.Module, keep: bool) -> None:
    """With `keep`, replace shards by whole weights on the CPU. All processes must call this."""
    weights: dict[nn.Parameter, nn.Parameter] = {}  # a tied weight once
    for module in model.modules():
        for name, part in list(module.named_parameters(recurse=False)):
            if isinstance(part, DTensor) and part not in weights:
                full = part.full_tensor().detach()
                weights[part] = nn.Parameter(full.cpu(), part.requires_grad) if keep else part
            if part in weights:
                setattr(module, name, weights[part])
        if isinstance(module, FSDPModule):  # its hooks would gather shards in every later forward pass
            state = module._get_fsdp_state()
            for handle in (state._pre_forward_hook_handle, state._post_forward_hook_handle):
                handle.remove()
