"""Steps that are computed once: a step whose result is in the log is not run again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from escultor.errors import IdTaken
from escultor.ids import hash_value
from escultor.store import Store
from escultor.types import Step

Result = dict[str, Any]


class StepProgress(Protocol):
    """What is shown of a training step; `escultor.train.loop.StepReport` is one."""

    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def tokens_per_s(self) -> float: ...


class Progress:
    """Receives what happens during a cycle run. This one shows nothing; the command line's does."""

    def phase(self, name: str) -> None:
        """A step begins."""

    def training(self, report: StepProgress) -> None:
        """An optimizer step was taken."""

    def note(self, text: str) -> None:
        """Something worth a line happened."""

    def done(self, step: Step, reused: bool) -> None:
        """A step is in the log; `reused` when it was there already."""


@dataclass
class Workflow:
    """Runs steps over a store. `check` raises where this process may no longer record anything."""

    store: Store
    progress: Progress = field(default_factory=Progress)
    steps: list[tuple[Step, bool]] = field(default_factory=list)  # in order, and whether it was reused
    check: Callable[[], None] = lambda: None

    def step(
        self,
        name: str,
        inputs: Result,
        work: Callable[[str], tuple[Result, list[Any]]],
        *,
        code: str,
        kind: str | None = None,
    ) -> Result:
        """The result of `work(key)`, taken from the log where it is there.

        The key is the hash of the name (or of `kind`, where the name is only a label), of `inputs`, and of
        `code`, the version of the code that decides the result (`escultor.code_closure.code_version`).
        `work` returns a JSON-like result and the records it made. They and the step are written in one
        transaction: either the whole step is in the log or nothing of it. Where another process has recorded
        the step meanwhile, its result stands and this one's records are left.
        """
        key = hash_value([kind or name, code, inputs])
        step = self.store.log.get(Step, key)
        reused = step is not None
        if step is None:
            self.progress.phase(name)
            began = time.perf_counter()
            result, records = work(key)
            step = Step(key, time.time(), name, round(time.perf_counter() - began, 3), result)
            step, reused = self._record(records, step)
        self.steps.append((step, reused))
        self.progress.done(step, reused)
        return step.result

    def _record(self, records: list[Any], step: Step) -> tuple[Step, bool]:
        """The step that is in the log, and whether another process was first."""
        self.check()
        try:
            self.store.log.append(*records, step)
        except IdTaken:
            first = self.store.log.get(Step, step.key)
            if first is None:
                raise
            return first, True
        return step, False
