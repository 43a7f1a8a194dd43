"""A run's folder: its state and metrics on disk, so that a killed run resumes bit for bit."""

from __future__ import annotations

import datetime
import json
import os
import pickle
import random
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from escultor.errors import LocationError, StoreError, TrainingError
from escultor.store.files import atomic_write
from escultor.train.distributed import ALONE, World
from escultor.train.filenames import BEGUN, HALF_WRITTEN, LAST_GOOD, LOCK, LOCK_OWNER, METRICS, PLAIN, SHARDED


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The state of a run, and `metrics.jsonl` with a row per step. The state is `state.pt` (tensors and plain
    values only), or a folder where weights are sharded; see `train.state`. `key` is the run's key; the state
    of another run is refused."""

    path: Path
    key: str

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def begun(self) -> bool:
        """Whether a run was cut short here: its state is here, or nothing but metrics and left-overs."""
        if (self.path / PLAIN).is_file() or self.sharded_states():
            return True
        own = (self.metrics.name, LAST_GOOD, LOCK, LOCK_OWNER, BEGUN)
        return all(path.name in own or path.match(HALF_WRITTEN) for path in self.path.iterdir())

    def began(self) -> datetime.date | None:
        """The day on which this run began, by the call that was cut short; None where it has not begun."""
        path = self.path / BEGUN
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return datetime.date.fromisoformat(known["date"]) if known.get("key") == self.key else None

    def begin(self, date: datetime.date) -> None:
        """Note the day on which the run began."""
        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path / BEGUN) as draft:
            draft.write_text(json.dumps({"key": self.key, "date": date.isoformat()}) + "\n", encoding="utf-8")

    def sharded_states(self) -> list[Path]:
        """Folders of sharded states, the newest last."""
        return sorted(self.path.glob(SHARDED))

    def save(self, state: dict[str, Any], world: World = ALONE) -> None:
        """Write the state whole or not at all; the first process writes, with all random generators."""
        generators = world.gather(rng_state())
        if world.is_first:
            self.write(self.path / PLAIN, state | {"rng": generators})

    def load(self, world: World = ALONE) -> dict[str, Any] | None:
        """The last state, or None where the run has not begun. Restores this process's random generators."""
        path = self.last_state(world)
        if path is None:
            return None
        state = self.read(path)
        self.check_same(state["step"], world)
        if world.size == len(state["rng"]):
            restore_rng(state["rng"][world.rank])
        self.cut_metrics(int(state["step"]), world)
        return state

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Append a row. Raises LocationError where the disk is full or fails."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            what = f"a step's metrics could not be written to {self.metrics}"
            raise LocationError(what, error, remedy="free disk space") from error

    def read_metrics(self) -> list[dict[str, Any]]:
        if not self.metrics.is_file():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def finish(self) -> None:
        """Remove the state of a run that is done and saved, and what killed processes left."""
        for name in (PLAIN, LOCK, LOCK_OWNER, BEGUN):
            (self.path / name).unlink(missing_ok=True)
        for folder in (*self.sharded_states(), self.path / LAST_GOOD):
            shutil.rmtree(folder, ignore_errors=True)
        self.clear_half_written()

    # --- for whole and sharded states alike --------------------------------------------------------

    def write(self, path: Path, state: dict[str, Any]) -> None:
        """Write a file with the run's key whole or not at all: to a temporary file, synced, then renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save({"key": self.key, **state}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            temporary.unlink(missing_ok=True)
            what = f"the run's state could not be written to {self.path}"
            raise LocationError(what, error, remedy="free disk space") from error

    def read(self, path: Path) -> dict[str, Any]:
        """Read a file of `write`. Raises StoreError where it is damaged, TrainingError for another key."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise StoreError(
                f"{path} cannot be read", first, remedy="delete it; the run starts again"
            ) from error
        if state["key"] != self.key:
            what = f"{self.path} holds the state of another run"
            remedy = "give another --out, or delete the folder"
            raise TrainingError(what, f"run {state['key']}", f"run {self.key}", remedy)
        return state

    def last_state(self, world: World) -> Path | None:
        """The newest state; None where the run has not begun, when metrics without a state are deleted.
        Removes half-written files. Raises TrainingError for a state of the other strategy, StoreError where
        processes see different states."""
        sharded = world.is_sharded
        if any(self.path.glob(PLAIN if sharded else SHARDED)):
            what = f"{self.path} holds a run of another strategy"
            got = f"a state of {'whole' if sharded else 'sharded'} weights"
            remedy = f"give --strategy {'ddp' if sharded else 'fsdp'}, or another --out"
            raise TrainingError(what, got, "the strategy that the run started with", remedy)
        if world.is_first:
            self.clear_half_written()
        newest = sorted(self.path.glob(SHARDED if sharded else PLAIN))[-1:]
        self.check_same([path.name for path in newest], world)
        if not newest and world.is_first:
            self.metrics.unlink(missing_ok=True)
        return newest[0] if newest else None

    def check_same(self, state: Any, world: World) -> None:
        """Raise StoreError where processes see different states in what should be one folder."""
        states = world.gather(state)
        if any(other != state for other in states):
            what = f"the processes see different states in {self.path}"
            remedy = "give an --out on a disk that all of them share"
            raise StoreError(what, ", ".join(map(str, states)), "the same", remedy)

    def clear_half_written(self) -> None:
        """Remove files that a killed process left half-written."""
        for path in self.path.glob(HALF_WRITTEN):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def cut_metrics(self, step: int, world: World) -> None:
        """Delete metrics of steps after the saved state: those steps are taken again."""
        if not world.is_first or not self.metrics.is_file():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines[:step] if line.endswith("}")]
        temporary = self.path / f".{self.metrics.name}.tmp"
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        temporary.replace(self.metrics)


def rng_state() -> dict[str, Any]:
    """The state of this process's random generators, as tensors and plain values."""
    version, numbers, gauss = random.getstate()
    state = {"torch": torch.get_rng_state(), "python": [version, list(numbers), gauss]}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def restore_rng(state: dict[str, Any]) -> None:
    """Set this process's random generators to a state of `rng_state`."""
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
