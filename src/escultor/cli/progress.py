"""What is going on, on stderr: a moving line in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from escultor.cycle.workflow import Progress, StepProgress
from escultor.evaluate.report.parts import count, duration
from escultor.types import Step

EVERY_S = 5.0


class LiveProgress(Progress):
    """Shows phases, notes and training steps; to be used as a context."""

    def __init__(self) -> None:
        self.name = ""
        self.bar: Any = None
        self.task: Any = None
        self.began = self.shown = 0.0
        self.first = 0

    def __enter__(self) -> LiveProgress:
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        if console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            words, figures = TextColumn("{task.description}"), TextColumn("{task.fields[figures]}")
            self.bar = Bar(words, BarColumn(24), MofNCompleteColumn(), figures, console=console)
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def phase(self, name: str) -> None:
        """Name what follows."""
        self.name, self.task, self.began = name, None, 0.0
        self.note(name)

    def note(self, text: str) -> None:
        """One line."""
        if self.bar is not None:
            self.bar.console.print(text, style="dim", markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def training(self, report: StepProgress) -> None:
        """A step: loss, tokens/s, and the time left at the pace of this session."""
        now = time.monotonic()
        if not self.began:
            self.began, self.first = now, report.step
        figures = (
            f"loss {report.loss:.4f}  {count(round(report.tokens_per_s))} tokens/s{self._left(report, now)}"
        )
        if self.bar is not None:
            if self.task is None:
                self.task = self.bar.add_task(self.name, total=report.steps, figures="")
            self.bar.update(self.task, completed=report.step, figures=figures)
        elif now - self.shown >= EVERY_S or report.step == report.steps:
            self.shown = now
            print(f"{self.name}  step {report.step}/{report.steps}  {figures}", file=sys.stderr, flush=True)

    def done(self, step: Step, reused: bool) -> None:
        """A step of a turn is in the log."""
        self.note(f"{step.name}: {'reused' if reused else duration(step.seconds)}")

    def _left(self, report: StepProgress, now: float) -> str:
        """The first step of a session prepares kernels, so the pace is taken from those after it."""
        taken, left = report.step - self.first, report.steps - report.step
        return f"  {duration(left * (now - self.began) / taken)} left" if taken and left else ""
