"""What a run will compute and cost, from its method, rows and settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from escultor.batching.batches import CAPACITY, FORWARD_TOKENS
from escultor.batching.rows import TokenRow
from escultor.config import Training
from escultor.model.adapters import adapter_numbers
from escultor.model.attention import choose_attention
from escultor.model.cost import TrainingCost, Work, estimate_cost, forward_flops, matrix_speed
from escultor.model.forward import product_dtype
from escultor.train.distributed import CPU
from escultor.train.methods.method import Method
from escultor.train.optim import adamw_bytes, state_bytes


def run_cost(
    method: Method,
    rows: Sequence[TokenRow],
    model: Any,
    settings: Training,
    teacher: Any = None,
    device: torch.device = CPU,
) -> TrainingCost:
    """Time and memory of a run on `device`. Takes about a tenth of a second, to time one matrix product."""
    return estimate_cost(
        model,
        work(method, rows, model, settings, teacher, device=device),
        product_dtype(settings.dtype, device.type),
        matrix_speed(model, settings.dtype, device),
    )


def work(
    method: Method,
    rows: Sequence[TokenRow],
    model: Any,
    settings: Training,
    teacher: Any = None,
    device: torch.device = CPU,
) -> Work:
    """What a run on `device` computes. `teacher` is the model that distillation learns from."""
    lengths = [row.length for row in rows]
    tokens = sum(lengths)
    items = math.ceil(tokens / settings.max_length) if method.kind == "document" else len(rows)
    passes = settings.epochs
    if settings.max_steps:
        passes = min(passes, settings.max_steps * settings.batch_size / items)
    width, largest = _largest_pass(method, lengths, settings)
    frozen = forward_flops(teacher, tokens * passes) if teacher else 0.0
    if method.frozen == "reference":  # computed once per row at most, whatever the epochs
        frozen = forward_flops(model, tokens)
    trained, state = sum(p.numel() for p in model.parameters()), state_bytes(model, settings)
    if settings.lora:
        trained = adapter_numbers(model, settings.lora)
        state = adamw_bytes(settings) * trained
    return Work(
        tokens=tokens * passes,
        pass_tokens=largest,
        width=width,
        trained=trained,
        state=state,
        frozen_flops=frozen,
        frozen_bytes=sum(p.numel() * p.element_size() for p in teacher.parameters()) if teacher else 0,
        dense=teacher is not None,
        masked=settings.attention in ("auto", "dense")
        and choose_attention(model, device, settings.attention) == "dense",
        checkpointed=settings.gradient_checkpointing,
    )


def _largest_pass(method: Method, lengths: Sequence[int], settings: Training) -> tuple[int, int]:
    """Width of the packed rows of the largest forward pass, and the most tokens that it holds."""
    if method.kind == "document":
        width = settings.max_length
        rows = min(settings.batch_size, settings.micro_batch_size or max(1, FORWARD_TOKENS // width))
        return width, rows * width
    longest = sorted(lengths, reverse=True)[: min(settings.batch_size, settings.micro_batch_size or 1 << 30)]
    width = max(CAPACITY, longest[0])
    tokens = max(longest[0], min(FORWARD_TOKENS, sum(longest)))
    return width, math.ceil(tokens / width) * width
