"""Several processes as one: what the loop asks of the others, and what a single process answers itself.

Sums go over the processes, never means: the loop divides once, by the weight of all. Figures travel as
float64 through gloo; gradients and weights through gloo on a processor and nccl on GPUs.
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
from torch.distributed.tensor import DTensor

from escultor.config import Training
from escultor.errors import ConfigError, EscultorError, LostProcess
from escultor.train.fsdp import shard, unshard

Strategy = Literal["ddp", "fsdp"]
T = TypeVar("T")

CPU = torch.device("cpu")
_NEEDS_WHOLE = {"muon": "matrices", "adamw8bit": "weights"}  # optimizers that cannot have a share of them
BUCKET_VALUES = 1 << 23  # gradients summed at a time, in numbers: 32 MiB of float32
_LOST = ("gloo", "NCCL", "closed by peer", "Connection reset")  # of a message where a process is gone


@dataclass(frozen=True, slots=True)
class World:
    """The processes that train one model, and which of them this is; `ALONE` is a single one.

    ddp: each holds the whole model. fsdp: each holds a share of every weight (FSDP2, ZeRO stage 3;
    Rajbhandari et al. 2020, arXiv:1910.02054). A method that speaks to the others must be called by
    all of them, in the same order.
    """

    rank: int = 0
    size: int = 1
    strategy: Strategy = "ddp"
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        return self.strategy == "fsdp"

    def refuse(self, settings: Training) -> None:
        """Raise ConfigError where settings do not go together with the strategy or the device."""
        if self.sharded and (needs := _NEEDS_WHOLE.get(settings.optimizer)):
            raise ConfigError(
                f"{settings.optimizer} works on whole {needs}, and fsdp leaves each process a share of them",
                f"optimizer {settings.optimizer} under strategy fsdp",
                f"optimizer adamw under fsdp, or {settings.optimizer} under ddp",
                "set optimizer=adamw, or give --strategy ddp",
            )
        if settings.activation_offload and self.device.type == "cpu":
            raise ConfigError(
                "activation_offload has nowhere to go on a processor: its memory is where things wait",
                "activation_offload true on cpu",
                "false",
                "set activation_offload=false; gradient_checkpointing spares memory here",
            )

    def at(self, device: Literal["auto", "cpu", "cuda"]) -> World:
        """This process on the device that the settings name. Raises ConfigError where there is none."""
        there = torch.cuda.is_available()
        if device == "cuda" and not there:
            raise ConfigError(
                "there is no GPU that torch can use", "device cuda", "auto or cpu", "set device=auto"
            )
        if device == "cpu" or not there:
            return replace(self, device=CPU)
        return self if self.device.type == "cuda" else replace(self, device=torch.device("cuda"))

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each figure summed over the processes."""
        if self.size == 1:
            return list(values)
        figures = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(figures)
        return figures.tolist()

    def gather(self, value: T) -> list[T]:
        """What each process gives, by rank, in all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Go on when all processes are here."""
        self.gather(None)

    def spread(self, model: nn.Module) -> Callable[..., Any]:
        """Lay `model` out over the processes, in place; returns `run(what, *args) = what(model, *args)`, in
        which its weights are whole."""
        if self.size > 1:
            for value in (*model.parameters(), *model.buffers()):
                dist.broadcast(value.detach(), 0)
        if self.sharded:
            return shard(model, self.device.type)
        return lambda what, *args: what(model, *args)

    def gathered(self, model: nn.Module) -> None:
        """Undo `spread`: the first process has the whole weights again, on the processor."""
        if self.sharded:
            unshard(model, keep=self.first)

    def sum_gradients(self, model: nn.Module) -> None:
        """Sum the gradients over the processes. Under fsdp the backward passes have done it already.

        A weight without a gradient in any process stays without one, as in a single process.
        """
        if self.size == 1 or self.sharded:
            return
        weights = [p for p in model.parameters() if p.requires_grad]
        having = self.sum([float(p.grad is not None) for p in weights])
        for bucket in _buckets([p for p, n in zip(weights, having, strict=True) if n]):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            parts = flat.split([p.numel() for p in bucket])
            for weight, gradient, part in zip(bucket, gradients, parts, strict=True):
                weight.grad = gradient.copy_(part.view_as(gradient))


ALONE = World()


def whole(value: Tensor) -> Tensor:
    """A tensor as one process would have it; to be called by all that hold a share of it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@contextmanager
def joined(strategy: Strategy = "ddp") -> Iterator[World]:
    """The processes that torchrun started (RANK, WORLD_SIZE), or `ALONE` where there are none.

    Raises ConfigError for more processes than GPUs, and LostProcess where another one is gone.
    """
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
        remedy = "see what it said; the same command goes on from the last saved state"
        raise LostProcess("another process of this run is gone", remedy=remedy) from error
    dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            "there are more processes than GPUs",
            f"process {local_rank + 1} of this machine",
            f"at most {torch.cuda.device_count()}",
            "give a smaller --nproc",
        )
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
