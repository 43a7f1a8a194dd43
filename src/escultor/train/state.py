"""The state of model and optimizers on disk, so that a run resumes bit for bit.

Whole weights are a file (`RunFolder`). Sharded weights are a folder `state-<step>` of
torch.distributed.checkpoint, into which every process writes its shards, and a file per process with its
random generators. The folder is written under another name and renamed when all are done, so that a folder of
that name is complete; only then is the one before it deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from escultor.errors import StoreError
from escultor.train.distributed import World
from escultor.train.optim import Optimizers
from escultor.train.resume import RunFolder, restore_rng, rng_state

TrainingProgress = tuple[int, int, float]  # steps done, tokens, seconds


def save_state(
    run: RunFolder, progress: TrainingProgress, model: nn.Module, optimizers: Optimizers, world: World
) -> None:
    """Write the state whole or not at all. Raises StoreError where the disk fails."""
    figures: dict[str, Any] = dict(zip(("step", "tokens", "seconds"), progress, strict=True))
    if world.is_sharded:
        _save_sharded(run, figures, model, optimizers.parts, world)
    else:
        run.save(figures | {"model": _trained_state(model), "optimizers": optimizers.state()}, world)


def restore_state(run: RunFolder, model: nn.Module, optimizers: Optimizers, world: World) -> TrainingProgress:
    """Load the run's last state into model and optimizers; zeros where the run has not begun."""
    if world.is_sharded:
        state = _load_sharded(run, model, optimizers.parts, world)
    elif state := run.load(world):
        _restore_trained(model, state["model"])
        optimizers.restore(state["optimizers"])
    return (state["step"], state["tokens"], state["seconds"]) if state else (0, 0, 0.0)


def _frozen(model: nn.Module) -> set[str]:
    """Names of the weights that training leaves as they are: those under an adapter."""
    return {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}


def _trained_state(model: nn.Module) -> dict[str, Any]:
    """The state of a model without its frozen weights: a hundredth of it where an adapter is trained."""
    frozen = _frozen(model)
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def _restore_trained(model: nn.Module, state: dict[str, Any]) -> None:
    keys = model.load_state_dict(state, strict=False)
    if wrong := {*keys.unexpected_keys, *keys.missing_keys} - _frozen(model):
        raise StoreError("the run's state does not fit its model", sorted(wrong)[:3], remedy="delete it")


def _save_sharded(
    run: RunFolder, figures: dict[str, Any], model: nn.Module, optimizers: Sequence[Optimizer], world: World
) -> None:
    target = run.path / f"state-{figures['step']:09d}"
    temporary = run.path / f".{target.name}.tmp"
    weights, moments = get_state_dict(model, optimizers, options=StateDictOptions(ignore_frozen_params=True))
    try:
        save({"model": weights, "optimizers": moments}, checkpoint_id=temporary)
        run.write(_rank_file(temporary, world.rank), figures | {"rng": rng_state()})
    except (CheckpointException, OSError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        what = f"the run's state could not be written to {run.path}"
        raise StoreError(what, error, remedy="free disk space") from error
    world.barrier()
    if world.is_first:
        before = run.sharded_states()
        temporary.rename(target)
        for folder in before:
            shutil.rmtree(folder)


def _load_sharded(
    run: RunFolder, model: nn.Module, optimizers: Sequence[Optimizer], world: World
) -> dict[str, Any] | None:
    """The last sharded state; None where the run has not begun. With another number of processes weights are
    sharded anew, and each process keeps its random generators."""
    folder = run.last_state(world)
    if folder is None:
        return None
    same_size = len(list(folder.glob("rank*.pt"))) == world.size
    figures = run.read(_rank_file(folder, world.rank if same_size else 0))
    weights, moments = get_state_dict(model, optimizers, options=StateDictOptions(ignore_frozen_params=True))
    state = {"model": weights, "optimizers": moments}
    try:
        load(state, checkpoint_id=folder)
    except (CheckpointException, OSError) as error:
        first = str(error).splitlines()[0]
        remedy = "delete it; the run starts again"
        raise StoreError(f"{folder} cannot be read", first, remedy=remedy) from error
    set_state_dict(
        model,
        optimizers,
        model_state_dict=weights,
        optim_state_dict=moments,
        options=StateDictOptions(strict=not _frozen(model)),
    )
    if same_size:
        restore_rng(figures["rng"])
    run.cut_metrics(figures["step"], world)
    return figures


def _rank_file(folder: Path, rank: int) -> Path:
    """The file of one process: figures and random generators."""
    return folder / f"rank{rank}.pt"
