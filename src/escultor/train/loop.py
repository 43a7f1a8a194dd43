"""The one training loop. It knows neither data nor method, and it alone divides by the weight:

    L = sum_b total_b / sum_b weight_b over all micro-batches b of a step, in all processes,

and so do the gradient and all that is reported; nothing else divides by weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from escultor.batching.batches import on
from escultor.config import Training
from escultor.errors import NotFinite, TrainingError
from escultor.model.forward import precision, set_train_mode
from escultor.model.memory import keep_freed_memory
from escultor.train.distributed import ALONE, World, whole
from escultor.train.objectives import Loss
from escultor.train.optim import Optimizers, rate
from escultor.train.resume import RunFolder
from escultor.train.state import restore_state, save_state

SAVE_EVERY_S = 30.0
Forward = Callable[..., Loss]  # of a function of model and batch, on this process's device and precision


class Stream(Protocol):
    """Micro-batches by step: a function of the step alone, so that the cursor is the step."""

    @property
    def steps(self) -> int: ...
    def micro_batches(self, step: int) -> Iterator[Any]: ...


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised: `loss(model, batch, before)`. `before` is the mean of `survey` over the whole step,
    for what a micro-batch alone cannot know (KTO's divergence), without a gradient; 0 where there is no
    survey. `dropout`: whether the model's own acts; not where what it says is compared with what a reference
    said without, for then it would differ from itself before it has learnt anything."""

    loss: Callable[[nn.Module, Any, float], Loss]
    survey: Callable[[nn.Module, Any], Loss] | None = None
    dropout: bool = True


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
    world: World = ALONE,
) -> StepReport | None:
    """Train in place and return the last report (None where no step was left to take).

    With `run`, the state is kept on disk as it goes and a run that was cut short goes on where its
    last state stood. Of several processes (`world`) each gives its own share of the stream, and the first
    writes; `world.gathered` makes sharded weights whole. Raises NotFinite at such a loss or gradient,
    naming the step and rows; the weights are then those of the step before.
    """
    keep_freed_memory()
    model.zero_grad(set_to_none=True)  # what an earlier run that had to stop left behind
    spread = world.spread(model)

    def forward(what: Callable[..., Loss], batch: Any, *more: float) -> Loss:
        with precision(settings.dtype, world.device.type):
            return spread(what, on(world.device, batch), *more)

    optimizers = Optimizers(model, settings)
    first, tokens, before = restore_state(run, model, optimizers, world) if run else (0, 0, 0.0)
    began = saved = time.perf_counter()
    report = None
    set_train_mode(model, objective.dropout)
    for step in range(first, stream.steps):
        started = time.perf_counter()
        own = _accumulate(forward, stream.micro_batches(step), objective, world)
        taken = _of_all(own, step, started - saved > SAVE_EVERY_S, world)
        world.sum_gradients(model)
        grad_norm = _divide_and_clip(model, taken, settings.max_grad_norm, step, own, world)
        share = rate(step, stream.steps, settings)
        optimizers.step(share)
        tokens += taken.tokens
        now = time.perf_counter()
        lr, pace = settings.learning_rate * share, taken.tokens / (now - started)
        figures = (taken.loss, tokens, round(before + now - began, 4), lr, grad_norm, pace)
        report = StepReport(step + 1, stream.steps, *figures, taken.sums)
        if run and world.first:
            run.append_metrics(report.row())
        if run and (taken.save or step + 1 == stream.steps):
            save_state(run, (report.step, tokens, report.seconds), model, optimizers, world)
            saved = time.perf_counter()
        on_step(report)
    model.eval()
    return report


@dataclass(slots=True)
class _Step:
    """What a step's micro-batches came to, in one process or in all."""

    loss: float = 0.0
    weight: float = 0.0
    tokens: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    save: bool = False  # whether it is time to keep the state


def _accumulate(forward: Forward, batches: Iterator[Any], objective: Objective, world: World) -> _Step:
    """Sum losses and gradients over this process's micro-batches of a step."""
    own, before = _Step(), 0.0
    if objective.survey:
        kept = list(batches)
        before, batches = _survey(forward, kept, objective.survey, world), iter(kept)
    for batch in batches:
        loss = forward(objective.loss, batch, before)
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
def _survey(forward: Forward, batches: list[Any], survey: Callable[..., Loss], world: World) -> float:
    """The mean of a figure over a whole step, taken before any of it is learnt from."""
    parts = [(forward(survey, batch), batch.rows) for batch in batches]
    own = [(part.total.item(), part.weight) for part, rows in parts if rows]
    total, weight = world.sum([sum(t for t, _ in own), sum(w for _, w in own)])
    return total / weight


def _of_all(own: _Step, step: int, due: bool, world: World) -> _Step:
    """The step of all processes, loss and sums divided by its whole weight. The clock of the first says
    whether it is time to save."""
    figures = [own.loss, own.weight, own.tokens, due and world.first, *own.sums.values()]
    loss, weight, tokens, save, *sums = world.sum(figures)
    if not weight > 0:
        raise TrainingError(
            f"step {step + 1} has nothing to learn from", f"weight {weight}", "a weight above 0"
        )
    _refuse_non_finite("loss", loss, step, own, world)
    means = {name: value / weight for name, value in zip(own.sums, sums, strict=True)}
    return _Step(loss / weight, weight, int(tokens), means, save=bool(save))


def _divide_and_clip(
    model: nn.Module, taken: _Step, limit: float, step: int, own: _Step, world: World
) -> float:
    """Divide the summed gradients by the whole weight, then clip their norm. Returns the norm."""
    weights = [p for p in model.parameters() if p.grad is not None]
    for weight in weights:
        weight.grad.div_(taken.weight)  # type: ignore[union-attr]
    norm = whole(nn.utils.clip_grad_norm_(weights, limit)).item()
    _refuse_non_finite("gradient norm", norm, step, own, world)
    return norm


def _refuse_non_finite(what: str, value: float, step: int, own: _Step, world: World) -> None:
    """Stop all processes alike, with the rows of those whose own loss is not finite, or else of all."""
    if math.isfinite(value):
        return
    seen = world.gather((own.loss, own.rows))
    named = [rows for loss, rows in seen if not math.isfinite(loss)] or [rows for _, rows in seen if rows]
    first = [", ".join(rows[:8]) + (" …" if len(rows) > 8 else "") for rows in named]
    raise NotFinite(
        f"the {what} of step {step + 1} is not finite",
        f"{value} on rows {'; '.join(first)}",
        "a finite number",
        "lower the learning rate or look at these rows; the last saved state is kept",
    )
