"""The one training loop, for every method. Nothing else divides by weights:

    L = sum_b total_b / sum_b weight_b over all micro-batches b of a step, in all processes.

The gradient and the reported figures are divided alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from escultor.batching.batches import to_device
from escultor.config import Training
from escultor.errors import NotFinite, TrainingError
from escultor.model.forward import precision, set_train_mode
from escultor.model.memory import keep_freed_memory
from escultor.train.distributed import ALONE, World, whole
from escultor.train.objectives.loss import Loss
from escultor.train.optim import Optimizers, rate
from escultor.train.resume import RunFolder
from escultor.train.state import restore_state, save_state

SAVE_EVERY_S = 30.0
Forward = Callable[..., Loss]  # forward(function, batch, ...) = function(model, batch, ...) on the device


class Stream(Protocol):
    """Micro-batches by step, a function of the step alone: resuming needs no other cursor."""

    @property
    def steps(self) -> int: ...
    def micro_batches(self, step: int) -> Iterator[Any]: ...


@dataclass(frozen=True, slots=True)
class Objective:
    """What the loop minimises: `loss(model, batch, step_mean)`.

    `step_mean` is the mean of `pre_pass` over the whole step, without a gradient, for figures that one
    micro-batch does not determine (KTO's divergence); 0 without a pre-pass. `dropout` is off where the model
    is compared with a reference computed without it: the two would differ before the first step.
    """

    loss: Callable[[nn.Module, Any, float], Loss]
    pre_pass: Callable[[nn.Module, Any], Loss] | None = None
    dropout: bool = True


@dataclass(frozen=True, slots=True)
class StepReport:
    """The figures of one optimizer step. `loss` is the sum over the step divided by its weight."""

    step: int  # steps done
    steps: int
    loss: float
    tokens: int  # tokens computed so far, padding not counted
    seconds: float  # of this run so far, across resumes
    lr: float
    grad_norm: float
    tokens_per_s: float
    more: dict[str, float]  # means of the objective's further figures

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
    world: World = ALONE,
) -> StepReport | None:
    """Train in place and return the last report (None where no step was left).

    With `run`, the state is saved from time to time, and a run that was cut short resumes from its last
    state. Each process of `world` computes its share of the stream; the first writes. Sharded weights stay
    sharded (`world.unshard`). Raises NotFinite for a loss or gradient that is not finite, naming step and
    rows; the weights are then those of the step before.
    """
    keep_freed_memory()
    model.zero_grad(set_to_none=True)  # a run that was stopped may have left gradients
    forward = _forward(model, settings, world)
    optimizers = Optimizers(model, settings)
    first_step, tokens, earlier_s = restore_state(run, model, optimizers, world) if run else (0, 0, 0.0)
    started = saved = time.perf_counter()
    report = None
    set_train_mode(model, objective.dropout)
    for step in range(first_step, stream.steps):
        step_started = time.perf_counter()
        own = _accumulate(forward, stream.micro_batches(step), objective, world)
        total = _reduce(own, step, step_started - saved > SAVE_EVERY_S, world)
        world.sum_gradients(model)
        grad_norm = _divide_and_clip(model, total, settings.max_grad_norm, step, own, world=world)
        share = rate(step, stream.steps, settings)
        optimizers.step(share)
        tokens, now = tokens + total.tokens, time.perf_counter()
        figures: dict[str, Any] = {"tokens": tokens, "seconds": round(earlier_s + now - started, 4)}
        figures |= {"lr": settings.learning_rate * share, "grad_norm": grad_norm}
        figures |= {"tokens_per_s": total.tokens / (now - step_started), "more": total.sums}
        report = StepReport(step=step + 1, steps=stream.steps, loss=total.loss, **figures)
        if run and world.is_first:
            run.append_metrics(report.row())
        if run and (total.save or step + 1 == stream.steps):
            save_state(run, (report.step, tokens, report.seconds), model, optimizers, world)
            saved = time.perf_counter()
        on_step(report)
    model.eval()
    return report


def _forward(model: nn.Module, settings: Training, world: World) -> Forward:
    """Shard `model`; the result computes functions of it and a batch on its device, in its precision."""
    call_sharded = world.shard(model)

    def forward(function: Callable[..., Loss], batch: Any, *more: float) -> Loss:
        with precision(settings.dtype, world.device.type):
            return call_sharded(function, to_device(batch, world.device), *more)

    return forward


@dataclass(slots=True)
class _Step:
    """The sums over a step's micro-batches, in one process or in all."""

    loss: float = 0.0
    weight: float = 0.0
    tokens: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    save: bool = False  # whether to save the state after this step


def _accumulate(forward: Forward, batches: Iterator[Any], objective: Objective, world: World) -> _Step:
    """Sum losses and gradients over this process's micro-batches of a step."""
    own, step_mean = _Step(), 0.0
    if objective.pre_pass:
        batch_list = list(batches)
        step_mean = _step_mean(forward, batch_list, objective.pre_pass, world)
        batches = iter(batch_list)
    for batch in batches:
        loss = forward(objective.loss, batch, step_mean)
        counts = bool(batch.rows)  # one without rows only keeps pace with the other processes
        (loss.total if counts else loss.total * 0).backward()
        for name, value in loss.sums.items():
            own.sums[name] = own.sums.get(name, 0.0) + (value.item() if counts else 0.0)
        if counts:
            own.rows.extend(batch.rows)
            own.tokens += batch.packed.tokens
            own.loss += loss.total.item()
            own.weight += loss.weight
    return own


@torch.no_grad()
def _step_mean(forward: Forward, batches: list[Any], pre_pass: Callable[..., Loss], world: World) -> float:
    """The mean of a figure over a whole step, computed before its gradients."""
    losses = [(forward(pre_pass, batch), batch.rows) for batch in batches]
    own = [(loss.total.item(), loss.weight) for loss, rows in losses if rows]
    total, weight = world.sum([sum(t for t, _ in own), sum(w for _, w in own)])
    return total / weight


def _reduce(own: _Step, step: int, save: bool, world: World) -> _Step:
    """The step of all processes, divided by its whole weight. The first decides to save: clocks differ."""
    figures = [own.loss, own.weight, own.tokens, save and world.is_first, *own.sums.values()]
    loss, weight, tokens, save_all, *sums = world.sum(figures)
    if not weight > 0:
        what = f"step {step + 1} has nothing to learn from"
        raise TrainingError(what, f"weight {weight}", "a weight above 0")
    _refuse_non_finite("loss", loss, step, own, world)
    means = {name: value / weight for name, value in zip(own.sums, sums, strict=True)}
    return _Step(loss / weight, weight, int(tokens), means, save=bool(save_all))


def _divide_and_clip(
    model: nn.Module, total: _Step, max_norm: float, step: int, own: _Step, world: World
) -> float:
    """Divide the summed gradients by the whole weight, then clip their norm. Returns the norm."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    for parameter in parameters:
        parameter.grad.div_(total.weight)  # type: ignore[union-attr]
    norm = whole(nn.utils.clip_grad_norm_(parameters, max_norm)).item()
    _refuse_non_finite("gradient norm", norm, step, own, world)
    return norm


def _refuse_non_finite(what: str, value: float, step: int, own: _Step, world: World) -> None:
    """Raise NotFinite in all processes, with the rows of those whose own loss is not finite, or of all."""
    if math.isfinite(value):
        return
    steps = world.gather((own.loss, own.rows))
    suspects = [rows for loss, rows in steps if not math.isfinite(loss)]
    suspects = suspects or [rows for _, rows in steps if rows]
    names = [", ".join(rows[:8]) + (" …" if len(rows) > 8 else "") for rows in suspects]
    got = f"{value} on rows {'; '.join(names)}"
    remedy = "lower the learning rate or look at these rows; the last saved state is kept"
    raise NotFinite(f"the {what} of step {step + 1} is not finite", got, "a finite number", remedy)
