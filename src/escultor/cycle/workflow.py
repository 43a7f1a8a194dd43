"""Arrows that are drawn once: a step whose inputs are in the log is not run again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from escultor.ids import code_hash, hash_value
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
    """Told what goes on; this one keeps quiet. The command line has one that speaks."""

    def phase(self, name: str) -> None:
        """A step begins."""

    def training(self, report: StepProgress) -> None:
        """An optimizer step was taken."""

    def note(self, text: str) -> None:
        """Something worth a line happened."""

    def done(self, step: Step, reused: bool) -> None:
        """A step is in the log; `reused` when it was there already."""


@dataclass(slots=True)
class Workflow:
    """Runs named steps against a store. The key of a step names its code and all its inputs, so what
    was computed before is found again, and a cycle that died goes on at the first missing arrow."""

    store: Store
    progress: Progress = field(default_factory=Progress)
    steps: list[tuple[Step, bool]] = field(default_factory=list)  # in order, and whether it was reused

    def key(self, name: str, inputs: Result) -> str:
        return hash_value([name, code_hash(), inputs])

    def step(
        self,
        name: str,
        inputs: Result,
        work: Callable[[str], tuple[Result, list[Any]]],
        kind: str | None = None,
    ) -> Result:
        """The result of `work(key)`, from the log where it is there. `kind` stands for the name in the
        key where the name is only what people call it.

        `work` returns a JSON-like result and the nouns it made; they and the step are written
        in one transaction, so either all of the arrow is in the log or none.
        """
        key = self.key(kind or name, inputs)
        found = self.store.log.get(Step, key)
        reused = found is not None
        if found is None:
            self.progress.phase(name)
            began = time.perf_counter()
            result, nouns = work(key)
            found = Step(key, time.time(), name, round(time.perf_counter() - began, 3), result)
            self.store.log.append(*nouns, found)
        self.steps.append((found, reused))
        self.progress.done(found, reused)
        return found.result
