"""Optimizers and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from escultor.config import Training
from escultor.errors import ConfigError
from escultor.model.forward import fast_bfloat16
from escultor.train.muon import Muon

MUON_RATIO = 5.0  # Muon's learning rate over AdamW's
WSD_DECAY = 0.4  # last share of the run in which `wsd` falls


def rate(step: int, steps: int, settings: Training) -> float:
    """The share of the peak learning rate at `step` of `steps` (from 0): warm-up, then the schedule. Warm-up
    takes `warmup_steps`, at most a tenth of the run. Every schedule but `constant` ends at 0."""
    warmup = min(settings.warmup_steps, steps // 10)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = (steps - step) / max(1, steps - warmup)  # 1 after warm-up, towards 0
    match settings.schedule:
        case "constant":
            return 1.0
        case "linear":
            return left
        case "cosine":
            return 0.5 * (1 - math.cos(math.pi * left))
        case "wsd":
            return min(1.0, (steps - step) / max(1.0, WSD_DECAY * steps))


class Optimizers:
    """One or two optimizers that step as one. Matrices decay, vectors (norms, biases) do not."""

    def __init__(self, model: nn.Module, settings: Training):
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        hidden = {name for name, p in named if _takes_muon(name, p, settings)}
        rest = [(name, p) for name, p in named if name not in hidden]
        decayed, others = [p for _, p in rest if p.ndim >= 2], [p for _, p in rest if p.ndim < 2]
        parameters = ((decayed, settings.weight_decay), (others, 0.0))
        groups = [{"params": part, "weight_decay": decay} for part, decay in parameters if part]
        betas = (0.9, 0.95) if settings.optimizer == "muon" else (0.9, 0.999)
        self.parts: list[Optimizer] = []
        self.peaks: list[float] = []
        if groups:
            self.parts.append(_adamw(groups, settings, betas))
            self.peaks.append(settings.learning_rate)
        if hidden:
            peak = MUON_RATIO * settings.learning_rate
            matrices = [p for name, p in named if name in hidden]
            dtype = torch.bfloat16 if fast_bfloat16(matrices[0].device.type) else torch.float32
            self.parts.append(Muon(matrices, peak, weight_decay=settings.weight_decay, dtype=dtype))
            self.peaks.append(peak)

    def step(self, share: float) -> None:
        """One update at `share` of the peak learning rates; gradients are freed."""
        for part, peak in zip(self.parts, self.peaks, strict=True):
            for group in part.param_groups:
                group["lr"] = peak * share
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def restore(self, states: Iterable[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def _adamw(groups: list[dict[str, Any]], settings: Training, betas: tuple[float, float]) -> Optimizer:
    """AdamW; with adamw8bit moments of weights of 4,096 numbers and more are in a byte each, by blocks
    (Dettmers et al. 2021, arXiv:2110.02861). Raises ConfigError where bitsandbytes is missing."""
    if settings.optimizer != "adamw8bit":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        remedy = "pip install 'escultor[8bit]'"
        raise ConfigError("optimizer adamw8bit needs bitsandbytes", remedy=remedy) from error
    return AdamW8bit(groups, lr=settings.learning_rate, betas=betas)


def state_bytes(model: nn.Module, settings: Training) -> int:
    """What the optimizers keep of a model that is trained whole."""
    named = model.named_parameters()
    adamw = adamw_bytes(settings)
    return sum(p.numel() * (4 if _takes_muon(name, p, settings) else adamw) for name, p in named)


def adamw_bytes(settings: Training) -> int:
    """What AdamW keeps of each number that it trains: two moments."""
    return 2 if settings.optimizer == "adamw8bit" else 8


def _takes_muon(name: str, parameter: nn.Parameter, settings: Training) -> bool:
    is_hidden = not any(part in name for part in ("embed", "lm_head", "wte", "wpe"))
    return settings.optimizer == "muon" and parameter.ndim == 2 and is_hidden
