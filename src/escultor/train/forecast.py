"""From a phase's rows and settings to what its run will compute, and the look taken before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from escultor.batching.batches import CAPACITY, FORWARD_TOKENS
from escultor.batching.preflight import Preflight, TokenRow, preflight
from escultor.config import Training
from escultor.model.adapters import adapter_numbers
from escultor.model.attention import choose_attention
from escultor.model.cost import Work, estimate_cost, forward_flops, matrix_speed
from escultor.model.forward import product_dtype
from escultor.text.chat import ChatTemplate
from escultor.train.distributed import CPU
from escultor.train.methods import Method
from escultor.train.optim import adamw_bytes, state_bytes


def look(
    method: Method,
    rows: Sequence[TokenRow],
    counts: Mapping[str, int],
    chat: ChatTemplate,
    model: Any,
    settings: Training,
    teacher: Any = None,
    show: int = 3,
    device: torch.device = CPU,
) -> Preflight:
    """The pre-flight of a run on `device`; takes about a tenth of a second more than a pass over the rows."""
    estimate = estimate_cost(
        model,
        work(method, rows, model, settings, teacher, device),
        product_dtype(settings.dtype, device.type),
        matrix_speed(model, settings.dtype, device),
    )
    return preflight(rows, counts, chat, model, estimate, method.kind == "document", show)


def work(
    method: Method,
    rows: Sequence[TokenRow],
    model: Any,
    settings: Training,
    teacher: Any = None,
    device: torch.device = CPU,
) -> Work:
    """What a run on `device` computes, by its method, rows and settings. `teacher` is distillation's."""
    lengths = [row.length for row in rows]
    tokens = sum(lengths)
    items = math.ceil(tokens / settings.max_length) if method.kind == "document" else len(rows)
    limit = settings.max_steps * settings.batch_size / items if settings.max_steps else math.inf
    passes = min(settings.epochs, limit)
    width, largest = _largest_pass(method, lengths, settings)
    frozen = 0.0
    if method.frozen == "reference":  # the reference looks at each row once at most, whatever the epochs
        frozen = forward_flops(model, tokens)
    elif teacher is not None:
        frozen = forward_flops(teacher, tokens * passes)
    if settings.lora is None:
        trained, state = sum(p.numel() for p in model.parameters()), state_bytes(model, settings)
    else:
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
    """The width of the packed rows of the largest forward pass, and its tokens, at most."""
    if method.kind == "document":
        width = settings.max_length
        rows = min(settings.batch_size, settings.micro_batch_size or max(1, FORWARD_TOKENS // width))
        return width, rows * width
    longest = sorted(lengths, reverse=True)[: min(settings.batch_size, settings.micro_batch_size or 1 << 30)]
    width = max(CAPACITY, longest[0])
    tokens = max(longest[0], min(FORWARD_TOKENS, sum(longest)))
    return width, math.ceil(tokens / width) * width
