"""Progress on stderr: a moving line in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from escultor.cycle.workflow import Progress, StepProgress
from escultor.evaluate.report.parts import count, duration
from escultor.types import Step

EVERY_S = 5.0


class LiveProgress(Progress):
    """Shows phases, notes and training steps while its context is open."""

    def __init__(self) -> None:
        self.name = ""
        self.bar: Any = None
        self.task: Any = None
        self.began_s = self.shown_s = 0.0
        self.first_step = 0

    def __enter__(self) -> LiveProgress:
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        if console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            name, figures = TextColumn("{task.description}"), TextColumn("{task.fields[figures]}")
            self.bar = Bar(name, BarColumn(24), MofNCompleteColumn(), figures, console=console)
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def phase(self, name: str) -> None:
        self.name, self.task, self.began_s = name, None, 0.0
        self.note(name)

    def note(self, text: str) -> None:
        if self.bar is not None:
            self.bar.console.print(text, style="dim", markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def training(self, report: StepProgress) -> None:
        """Show the loss, tokens/s, and the time left at the pace of this process."""
        now = time.monotonic()
        if not self.began_s:
            self.began_s, self.first_step = now, report.step
        # The first step of a process compiles kernels, so the pace is that of the steps after it.
        taken, left = report.step - self.first_step, report.steps - report.step
        remaining = f"  {duration(left * (now - self.began_s) / taken)} left" if taken and left else ""
        figures = f"loss {report.loss:.4f}  {count(round(report.tokens_per_s))} tokens/s{remaining}"
        if self.bar is not None:
            if self.task is None:
                self.task = self.bar.add_task(self.name, total=report.steps, figures="")
            self.bar.update(self.task, completed=report.step, figures=figures)
        elif now - self.shown_s >= EVERY_S or report.step == report.steps:
            self.shown_s = now
            self.note(f"{self.name}  step {report.step}/{report.steps}  {figures}")

    def done(self, step: Step, reused: bool) -> None:
        self.note(f"{step.name}: {'reused' if reused else duration(step.seconds)}")
