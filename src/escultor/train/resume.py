"""The state of a run on disk, so that a run that was killed goes on bit for bit."""

from __future__ import annotations

import json
import os
import pickle
import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from escultor.errors import StoreError, TrainingError


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`state.pt` (tensors and plain values only) and `metrics.jsonl`, a row per step.

    `key` names what the run is made of; the state of another run in the same folder is refused.
    """

    path: Path
    key: str

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def save(self, state: dict[str, Any]) -> None:
        """Write the state whole or not at all: to a temporary file, flushed, then renamed."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".state.{os.getpid()}.tmp"
        try:
            with temporary.open("wb") as file:
                torch.save({"key": self.key, **state, "rng": _rng_state()}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / "state.pt")
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            temporary.unlink(missing_ok=True)
            raise StoreError(
                f"the run's state could not be written to {self.path}", error, remedy="free disk space"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """The last state, random generators restored; None where the run has not begun."""
        path = self.path / "state.pt"
        for left in self.path.glob(".state.*.tmp"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        if not path.is_file():
            self.metrics.unlink(missing_ok=True)
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                state = torch.load(path, weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise StoreError(
                f"{path} cannot be read", first, remedy="delete it; the run begins again"
            ) from error
        if state["key"] != self.key:
            raise TrainingError(
                f"{self.path} holds the state of another run",
                f"run {state['key']}",
                f"run {self.key}",
                "give another --out, or delete the folder",
            )
        _restore_rng(state["rng"])
        self._cut_metrics(int(state["step"]))
        return state

    def append_metrics(self, row: dict[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        if not self.metrics.is_file():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def finish(self) -> None:
        """The run is done and its result saved elsewhere; the state is not needed any more."""
        (self.path / "state.pt").unlink(missing_ok=True)

    def _cut_metrics(self, step: int) -> None:
        """Forget rows written after the state: those steps are taken again."""
        if not self.metrics.is_file():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines[:step] if line.endswith("}")]
        self.metrics.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _rng_state() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    return {"torch": torch.get_rng_state(), "python": [version, list(numbers), gauss]}


def _restore_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
