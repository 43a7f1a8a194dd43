"""The one training loop. It knows neither data nor method, and it alone divides by the weight."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import nn

from escultor.config import Training
from escultor.errors import TrainingError
from escultor.model.forward import precision
from escultor.model.memory import keep_freed_memory
from escultor.train.objectives import Loss
from escultor.train.optim import Optimizers, rate
from escultor.train.resume import RunFolder

SAVE_EVERY_S = 30.0


class Stream(Protocol):
    """Micro-batches by step: a function of the step alone, so that the cursor is the step."""

    @property
    def steps(self) -> int: ...
    def micro_batches(self, step: int) -> Iterator[Any]: ...


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised: `loss(model, batch, before)`. `before` is the mean of `survey` over the whole step,
    for what a micro-batch alone cannot know (KTO's divergence), without a gradient; 0 where there is no
    survey."""

    loss: Callable[[nn.Module, Any, float], Loss]
    survey: Callable[[nn.Module, Any], Loss] | None = None


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step. `loss` is the sum over the step divided by its weight."""

    step: int  # steps done
    steps: int
    loss: float
    tokens: int  # tokens computed so far, padding not counted
    seconds: float  # of this run so far, across resumes
    lr: float
    grad_norm: float
    tokens_per_s: float
    more: dict[str, float]

    def row(self) -> dict[str, Any]:
        """The row of metrics.jsonl."""
        values = asdict(self)
        return {k: v for k, v in values.items() if k not in ("steps", "more")} | self.more


def train(
    model: nn.Module,
    stream: Stream,
    objective: Objective,
    settings: Training,
    run: RunFolder | None = None,
    on_step: Callable[[StepReport], None] = lambda report: None,
) -> StepReport | None:
    """Train in place and return the last report (None where no step was left to take).

    With `run`, the state is kept on disk as it goes and a run that was cut short goes on where its
    last state stood. Raises TrainingError at a non-finite loss or gradient, naming the step and rows.
    """
    keep_freed_memory()
    model.zero_grad(set_to_none=True)  # what an earlier run that had to stop left behind
    optimizers = Optimizers(model, settings)
    state = run.load() if run else None
    if state:
        model.load_state_dict(state["model"])
        optimizers.restore(state["optimizers"])
    first, tokens, before = (state["step"], state["tokens"], state["seconds"]) if state else (0, 0, 0.0)
    began = saved = time.perf_counter()
    report = None
    model.train()
    for step in range(first, stream.steps):
        started = time.perf_counter()
        loss, weight, sums, seen = _accumulate(model, stream.micro_batches(step), objective, settings, step)
        grad_norm = _divide_and_clip(model, weight, settings.max_grad_norm, step, seen)
        share = rate(step, stream.steps, settings)
        optimizers.step(share)
        tokens += seen.tokens
        now = time.perf_counter()
        report = StepReport(
            step + 1,
            stream.steps,
            loss / weight,
            tokens,
            round(before + now - began, 4),
            settings.learning_rate * share,
            grad_norm,
            seen.tokens / (now - started),
            {name: value / weight for name, value in sums.items()},
        )
        if run:
            run.append_metrics(report.row())
            if now - saved > SAVE_EVERY_S or step + 1 == stream.steps:
                _save(run, model, optimizers, report)
                saved = time.perf_counter()
        on_step(report)
    model.eval()
    return report


@dataclass(slots=True)
class _Seen:
    rows: list[str]
    tokens: int = 0


def _accumulate(
    model: nn.Module, batches: Iterator[Any], objective: Objective, settings: Training, step: int
) -> tuple[float, float, dict[str, float], _Seen]:
    """Sum losses and gradients over the step's micro-batches."""
    total, weight, sums, seen = 0.0, 0.0, {}, _Seen([])
    before = 0.0
    if objective.survey:
        kept = list(batches)
        before, batches = _survey(model, kept, objective.survey, settings), iter(kept)
    for batch in batches:
        seen.rows.extend(batch.rows)
        seen.tokens += batch.packed.tokens
        with precision(settings.dtype):
            loss = objective.loss(model, batch, before)
        loss.total.backward()
        total += loss.total.item()
        weight += loss.weight
        for name, value in loss.sums.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    if not weight > 0:
        raise TrainingError(
            f"step {step + 1} has nothing to learn from", f"weight {weight}", "a weight above 0"
        )
    _refuse_non_finite("loss", total, step, seen)
    return total, weight, sums, seen


@torch.no_grad()
def _survey(
    model: nn.Module, batches: list[Any], survey: Callable[[nn.Module, Any], Loss], settings: Training
) -> float:
    """The mean of a figure over a whole step, taken before any of it is learnt from."""
    total, weight = 0.0, 0.0
    for batch in batches:
        with precision(settings.dtype):
            part = survey(model, batch)
        total += part.total.item()
        weight += part.weight
    return total / weight


def _divide_and_clip(model: nn.Module, weight: float, limit: float, step: int, seen: _Seen) -> float:
    """Divide the summed gradients by the whole weight, then clip their norm. Returns the norm."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    for gradient in gradients:
        gradient.div_(weight)
    norm = nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], limit)
    _refuse_non_finite("gradient norm", norm.item(), step, seen)
    return norm.item()


def _refuse_non_finite(what: str, value: float, step: int, seen: _Seen) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"the {what} of step {step + 1} is not finite",
            f"{value} on rows {', '.join(seen.rows[:8])}{' …' if len(seen.rows) > 8 else ''}",
            "a finite number",
            "lower the learning rate or look at these rows; the last saved state is kept",
        )


def _save(run: RunFolder, model: nn.Module, optimizers: Optimizers, report: StepReport) -> None:
    run.save(
        {
            "step": report.step,
            "tokens": report.tokens,
            "seconds": report.seconds,
            "model": model.state_dict(),
            "optimizers": optimizers.state(),
        }
    )
