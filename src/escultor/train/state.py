"""From model and optimizers to the state of a run and back, so that it goes on bit for bit.

Whole weights are a file (`RunFolder`). Weights in shares are a folder `state-<step>` of
torch.distributed.checkpoint, into which every process writes its own shares, with a file per process for
what is its own (random generators). It is written under another name and renamed when all are done, so that
a folder of that name is whole; the one before goes only then.
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
    """Write the state whole or not at all. Raises StoreError when the disk refuses."""
    done: dict[str, Any] = dict(zip(("step", "tokens", "seconds"), progress, strict=True))
    if world.sharded:
        _save_shares(run, done, model, optimizers.parts, world)
    else:
        run.save(done | {"model": _learnt(model), "optimizers": optimizers.state()}, world)


def restore_state(run: RunFolder, model: nn.Module, optimizers: Optimizers, world: World) -> TrainingProgress:
    """Bring the run's last state into model and optimizers; zeros where the run has not begun."""
    if world.sharded:
        state = _load_shares(run, model, optimizers.parts, world)
    elif state := run.load(world):
        _restore_learnt(model, state["model"])
        optimizers.restore(state["optimizers"])
    return (state["step"], state["tokens"], state["seconds"]) if state else (0, 0, 0.0)


def _frozen(model: nn.Module) -> set[str]:
    """Weights that training does not move: those around which an adapter lies."""
    return {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}


def _learnt(model: nn.Module) -> dict[str, Any]:
    """All of a model but what is frozen; a hundredth of it where an adapter is trained."""
    frozen = _frozen(model)
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def _restore_learnt(model: nn.Module, learnt: dict[str, Any]) -> None:
    found = model.load_state_dict(learnt, strict=False)
    if wrong := {*found.unexpected_keys, *found.missing_keys} - _frozen(model):
        raise StoreError("the run's state does not fit its model", sorted(wrong)[:3], remedy="delete it")


def _save_shares(
    run: RunFolder, progress: dict[str, Any], model: nn.Module, optimizers: Sequence[Optimizer], world: World
) -> None:
    target = run.path / f"state-{progress['step']:09d}"
    temporary = run.path / f".{target.name}.tmp"
    weights, moments = get_state_dict(model, optimizers, options=StateDictOptions(ignore_frozen_params=True))
    try:
        save({"model": weights, "optimizers": moments}, checkpoint_id=temporary)
        run.write(_own(temporary, world.rank), progress | {"rng": rng_state()})
    except (CheckpointException, OSError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StoreError(
            f"the run's state could not be written to {run.path}", error, remedy="free disk space"
        ) from error
    world.wait()
    if world.first:
        before = run.sharded_states()
        temporary.rename(target)
        for folder in before:
            shutil.rmtree(folder)


def _load_shares(
    run: RunFolder, model: nn.Module, optimizers: Sequence[Optimizer], world: World
) -> dict[str, Any] | None:
    """With another number of processes shares are cut anew, and each keeps the random generators it has."""
    run.refuse_other_strategy(sharded=True)
    if world.first:
        run.clear_half_written()
    newest = run.sharded_states()[-1:]
    run.same_for_all([folder.name for folder in newest], world)
    if not newest:
        run.begin_anew(world)
        return None
    (folder,) = newest
    same_size = len(list(folder.glob("rank*.pt"))) == world.size
    progress = run.read(_own(folder, world.rank if same_size else 0))
    weights, moments = get_state_dict(model, optimizers, options=StateDictOptions(ignore_frozen_params=True))
    state = {"model": weights, "optimizers": moments}
    try:
        load(state, checkpoint_id=folder)
    except (CheckpointException, OSError) as error:
        first = str(error).splitlines()[0]
        raise StoreError(
            f"{folder} cannot be read", first, remedy="delete it; the run begins again"
        ) from error
    set_state_dict(
        model,
        optimizers,
        model_state_dict=weights,
        optim_state_dict=moments,
        options=StateDictOptions(strict=not _frozen(model)),
    )
    if same_size:
        restore_rng(progress["rng"])
    run.cut_metrics(progress["step"], world)
    return progress


def _own(folder: Path, rank: int) -> Path:
    """What only this process can say: progress and random generators."""
    return folder / f"rank{rank}.pt"
