"""Model folders as checkpoints of a store, and which of them is the champion."""

from __future__ import annotations

from pathlib import Path

from escultor.errors import InputError
from escultor.ids import code_hash
from escultor.store import Store, registry
from escultor.types import Checkpoint


def require_champion(store: Store) -> str:
    """The checkpoint id of the champion. Raises InputError where there is none."""
    champion = registry.champion(registry.read_deployments(store.log))
    if champion is None:
        raise InputError("there is no champion", remedy="run `escultor promote MODEL` or `escultor demo`")
    return champion


def keep_model(store: Store, folder: Path, name: str | None = None) -> Checkpoint:
    """Keep a model folder's files in the store and record its checkpoint, under `name` or the folder's; of an
    adapter, its base first.

    Raises InputError for an adapter whose base is not named by hash.
    """
    from escultor.model.folders import base_folder, base_hash, is_adapter

    base: tuple[str, ...] = ()
    if is_adapter(folder):
        if base_hash(folder) is None:
            remedy = "merge it first: escultor merge"
            raise InputError(f"the adapter in {folder} does not name its base by hash", remedy=remedy)
        base = (keep_model(store, base_folder(folder)).id,)
    tree = store.blobs.put_tree(folder)
    checkpoint = store.log.get(Checkpoint, tree) or describe_model(tree, folder, base, name)
    store.log.append(checkpoint)
    return checkpoint


def describe_model(
    tree: str, folder: Path, base: tuple[str, ...] = (), name: str | None = None
) -> Checkpoint:
    """The checkpoint of a model folder whose files have the hash `tree`; of an adapter, with the id of its
    `base`. Method, parents and hashes come from the run's record where there is one beside the folder."""
    from escultor.model.load import load
    from escultor.model.loaded import count_parameters
    from escultor.train.filenames import ADAPTER, MODEL
    from escultor.train.run_record import read_record

    parameters = count_parameters(load(str(folder)).model)
    run = read_record(folder.parent) if folder.name in (MODEL, ADAPTER) else {}
    if not run:
        return Checkpoint(
            tree,
            name or folder.name,
            "import",
            parents=base,
            config_hash="",
            dataset_hash="",
            code_version=code_hash(),
            seed=0,
            parameters=parameters,
        )
    return Checkpoint(
        tree,
        name or folder.parent.absolute().name,
        run["method"],
        parents=tuple(dict.fromkeys((*base, *run["parents"]))),
        config_hash=run["config_hash"],
        dataset_hash=run["dataset_hash"],
        code_version=run["code_version"],
        seed=run["seed"],
        parameters=parameters,
        datasets=run.get("datasets", ()),
    )
