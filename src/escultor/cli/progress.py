"""Progress on stderr: a moving line in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Protocol

from escultor.cli.output import printable
from escultor.cycle.workflow import Progress, StepProgress
from escultor.evaluate.report.parts import count, duration
from escultor.types import Step

EVERY_S = 5.0


class TimeLeft(Protocol):
    """What knows how long all of the steps take; `escultor.demo.forecast.Forecast` is one."""

    def begin(self, name: str) -> None: ...
    def advance(self, share: float) -> None: ...
    def done(self, name: str) -> None: ...
    def left_s(self) -> float: ...


class LiveProgress(Progress):
    """Shows phases, notes and training steps while its context is open. With `forecast` it also shows the
    time left in all, and that it goes on where nothing else is said for a while."""

    def __init__(self, forecast: TimeLeft | None = None) -> None:
        self.name = ""
        self.bar: Any = None
        self.task: Any = None
        self.overall: Any = None
        self.began_s = self.phase_s = self.shown_s = 0.0
        self.first_step = 0
        self.forecast = forecast
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LiveProgress:
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        if console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            name = TextColumn("{task.description}", markup=False)
            figures = TextColumn("{task.fields[figures]}", markup=False)
            self.bar = Bar(name, BarColumn(24), MofNCompleteColumn(), figures, console=console)
            self.bar.start()
        if self.forecast is not None:
            self._thread = threading.Thread(target=self._beat, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self.bar is not None:
            self.bar.stop()

    def phase(self, name: str) -> None:
        self.name, self.task, self.began_s, self.phase_s = name, None, 0.0, time.monotonic()
        if self.forecast is not None:
            self.forecast.begin(name)
        self.note(f"{name}{self._in_all()}")

    def note(self, text: str) -> None:
        self.shown_s = time.monotonic()
        text = printable(text)
        if self.bar is not None:
            self.bar.console.print(text, style="dim", markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def training(self, report: StepProgress) -> None:
        """Show the loss, tokens/s, and the time left at the pace of this process."""
        now = time.monotonic()
        if not self.began_s:
            self.began_s, self.first_step = now, report.step
        if self.forecast is not None:
            self.forecast.advance(report.step / report.steps)
        # The first step of a process compiles kernels, so the pace is that of the steps after it.
        taken, left = report.step - self.first_step, report.steps - report.step
        remaining = f"  {duration(left * (now - self.began_s) / taken)} left" if taken and left else ""
        figures = f"loss {report.loss:.4f}  {count(round(report.tokens_per_s))} tokens/s{remaining}"
        if self.bar is not None:
            if self.task is None:
                self.task = self.bar.add_task(self.name, total=report.steps, figures="")
            self.bar.update(self.task, completed=report.step, figures=figures)
        elif now - self.shown_s >= EVERY_S or report.step == report.steps:
            self.note(f"{self.name}  step {report.step}/{report.steps}  {figures}{self._in_all()}")

    def done(self, step: Step, reused: bool) -> None:
        if self.forecast is not None:
            self.forecast.done(step.name)
        self.note(f"{step.name}: {'reused' if reused else duration(step.seconds)}")

    def _in_all(self) -> str:
        return "" if self.forecast is None else f", {duration(self.forecast.left_s())} left in all"

    def _beat(self) -> None:
        """Say every few seconds that it goes on."""
        while not self._ended.wait(EVERY_S / 5):
            now = time.monotonic()
            passed = f"{self.name}, for {duration(now - self.phase_s)}{self._in_all()}"
            if self.bar is not None:
                if self.overall is None:
                    self.overall = self.bar.add_task("", total=None, figures="")
                self.bar.update(self.overall, figures=passed)
            elif now - self.shown_s >= EVERY_S:
                self.note(passed)
