"""Where a run's models stand, how they attend, and what spares memory or time; undone afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from escultor.batching.probe import refuse_unpacked, said_alone
from escultor.config import Training
from escultor.errors import ConfigError, ModelError
from escultor.model.attention import AttentionKind, choose_attention, set_attention
from escultor.model.forward import unwrapped
from escultor.model.memory import checkpoint_layers, offload_activations
from escultor.train.distributed import World
from escultor.train.loop import Objective
from escultor.train.objectives import Loss


@contextmanager
def placed(models: Sequence[Any], settings: Training, world: World) -> Iterator[None]:
    """Models on this process's device, attending as the settings ask; then where they were, as they did.

    Raises ConfigError or ModelError where device or model cannot attend so, or where the model takes packed
    rows for something else (`escultor.batching.probe`).
    """
    before = [(model, model.device, model.config._attn_implementation) for model in models]
    try:
        for model in models:
            kind = choose_attention(model, world.device, settings.attention)
            _refuse_idle_compiler(settings, kind)
            alone = said_alone(model)
            set_attention(model, kind)
            model.to(world.device)
            refuse_unpacked(model, alone)
        yield
    finally:
        for model, device, attention in before:
            model.set_attn_implementation(attention)
            if not world.sharded:  # made whole again on the processor already
                model.to(device)


@contextmanager
def prepared(model: nn.Module, settings: Training) -> Iterator[None]:
    """The model that is trained with its layers checkpointed and compiled, where the settings ask for it."""
    inner = unwrapped(model)
    try:
        if settings.gradient_checkpointing:
            checkpoint_layers(inner, True)
        if settings.compile:
            if not (layers := _layers(inner)):
                what = f"{type(inner).__name__} does not name its layers, each of which would be compiled"
                raise ModelError(what, "compile true", "false", "set compile=false")
            for layer in layers:
                layer.compile()
        yield
    finally:
        if settings.gradient_checkpointing:
            checkpoint_layers(inner, False)
        if settings.compile:
            for layer in _layers(inner):
                layer._compiled_call_impl = None  # torch has no public way back


def sparing(objective: Objective, settings: Training) -> Objective:
    """The objective, with what its backward pass needs offloaded where the settings ask for it."""
    if not settings.activation_offload:
        return objective

    def loss(model: nn.Module, batch: Any, before: float) -> Loss:
        with offload_activations():
            return objective.loss(model, batch, before)

    return replace(objective, loss=loss)


def _refuse_idle_compiler(settings: Training, kind: AttentionKind) -> None:
    """Sequences are cut outside of what is compiled, and a checkpointed layer is compiled whole or not."""
    if kind == "segments" and settings.compile and settings.gradient_checkpointing:
        raise ConfigError(
            "compile has no effect on checkpointed layers that attend by segments",
            "compile true, gradient_checkpointing true",
            "one of both, or attention dense",
            "set compile=false",
        )


def _layers(model: Any) -> list[nn.Module]:
    """The layers that repeat, each compiled as one; their code is compiled once for all."""
    names = tuple(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__.endswith(names)]
