"""Structured pruning: a smaller model cut out of a larger one, as the student of a distillation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from escultor.errors import ModelError
from escultor.model.loaded import Loaded, forget_folder


def cut_student(teacher: Loaded, layers: Sequence[int], intermediate_size: int | None) -> Loaded:
    """A copy of `teacher` with these `layers` (none: the first and the last), whose feed-forward layers keep
    the `intermediate_size` neurons of the largest weight norm (None: all; after Muralidharan et al. 2024,
    arXiv:2407.14679, who rank by activation).

    Raises ModelError for a model without Llama's parts, or for layers and sizes it does not have.
    """
    model: Any = copy.deepcopy(teacher.model)
    inner: Any = getattr(model, "model", None)
    stack: Any = getattr(inner, "layers", None)
    if stack is None or not all(hasattr(getattr(layer, "mlp", None), "gate_proj") for layer in stack):
        allowed = "a Llama-like model"
        raise ModelError("a student cannot be cut out of this model", type(model).__name__, allowed)
    kept = tuple(layers) or (0, len(stack) - 1)
    if max(kept) >= len(stack) or len(set(kept)) != len(kept):
        allowed = f"0 to {len(stack) - 1}, each once"
        raise ModelError("the student's layers are not in the teacher", kept, allowed)
    inner.layers = nn.ModuleList([stack[i] for i in kept])
    for at, layer in enumerate([stack[i] for i in kept]):
        layer.self_attn.layer_idx = at
    model.config.num_hidden_layers = len(kept)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[i] for i in kept]
    if intermediate_size is not None:
        if intermediate_size > model.config.intermediate_size:
            what = "the student's feed-forward layer is wider than the teacher's"
            raise ModelError(what, intermediate_size, f"at most {model.config.intermediate_size}")
        for layer in inner.layers:
            _narrow(layer.mlp, intermediate_size)
        model.config.intermediate_size = intermediate_size
    forget_folder(model)
    return replace(teacher, model=model)


@torch.no_grad()
def _narrow(mlp: Any, size: int) -> None:
    """Keep the neurons whose gate, up and down weights have the largest product of norms."""
    norms = (
        mlp.gate_proj.weight.norm(dim=1) * mlp.up_proj.weight.norm(dim=1) * mlp.down_proj.weight.norm(dim=0)
    )
    kept = norms.topk(size).indices.sort().values
    mlp.gate_proj.weight = nn.Parameter(mlp.gate_proj.weight[kept].clone())
    mlp.up_proj.weight = nn.Parameter(mlp.up_proj.weight[kept].clone())
    mlp.down_proj.weight = nn.Parameter(mlp.down_proj.weight[:, kept].clone())
    mlp.gate_proj.out_features = mlp.up_proj.out_features = mlp.down_proj.in_features = size
    mlp.intermediate_size = size
