"""The device, attention and memory set-up of a run's models; undone when the run ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from escultor.batching.probe import logp_alone, refuse_unpackable
from escultor.config import Training
from escultor.errors import ConfigError, ModelError
from escultor.model import segments
from escultor.model.attention import AttentionKind, choose_attention, set_attention, sliding_window
from escultor.model.forward import unwrapped
from escultor.model.memory import checkpoint_layers, offload_activations
from escultor.train.distributed import World
from escultor.train.loop import Objective
from escultor.train.objectives.loss import Loss


@contextmanager
def models_on_device(
    models: Sequence[Any], settings: Training, world: World, longest: int = 0
) -> Iterator[None]:
    """Within it, models are on this process's device with the attention of the settings; then as before.
    Raises ConfigError or ModelError where the device or a model does not support that attention, or where a
    model does not keep packed rows apart (`escultor.batching.probe`), the `longest` sequence among them."""
    before = [(model, model.device, model.config._attn_implementation) for model in models]
    try:
        for model in models:
            kind = choose_attention(model, world.device, settings.attention)
            _refuse_useless_compile(settings, kind)
            window = sliding_window(model.config) or longest
            beyond = window if longest > window else 0
            alone = logp_alone(model, beyond)
            set_attention(model, kind)
            model.to(world.device)
            refuse_unpackable(model, alone, beyond)
        yield
    finally:
        for model, device, attention in before:
            model.set_attn_implementation(attention)
            if not world.is_sharded:  # unsharding has moved it to the CPU already
                model.to(device)


@contextmanager
def prepared_layers(model: nn.Module, settings: Training) -> Iterator[None]:
    """Within it, the model's layers are checkpointed and compiled where the settings say so."""
    inner = unwrapped(model)
    try:
        if settings.gradient_checkpointing:
            checkpoint_layers(inner, True)
        if settings.compile:
            if not (layers := _layers(inner)):
                what = f"{type(inner).__name__} does not name its layers, each of which would be compiled"
                raise ModelError(what, "compile true", "false", "set compile=false")
            segments.register(compiled=True)
            for layer in layers:
                layer.compile()
        yield
    finally:
        if settings.gradient_checkpointing:
            checkpoint_layers(inner, False)
        if settings.compile:
            for layer in _layers(inner):
                layer._compiled_call_impl = None  # torch has no public way back


def with_activation_offload(objective: Objective, settings: Training) -> Objective:
    """The objective; with `activation_offload`, the tensors kept for its backward pass wait on the CPU."""
    if not settings.activation_offload:
        return objective

    def loss(model: nn.Module, batch: Any, step_mean: float) -> Loss:
        with offload_activations():
            return objective.loss(model, batch, step_mean)

    return replace(objective, loss=loss)


def _refuse_useless_compile(settings: Training, kind: AttentionKind) -> None:
    """Segments are cut outside compiled code, and a checkpointed layer is compiled whole or not at all."""
    if kind == "segments" and settings.compile and settings.gradient_checkpointing:
        what = "compile has no effect on checkpointed layers that attend by segments"
        got = "compile true, gradient_checkpointing true"
        raise ConfigError(what, got, "one of both, or attention dense", "set compile=false")


def _layers(model: Any) -> list[nn.Module]:
    """The repeated layers. They share their compiled code."""
    names = tuple(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__.endswith(names)]
