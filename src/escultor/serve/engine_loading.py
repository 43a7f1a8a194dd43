"""Engine loading: the model that answers by default, and how a version in the log becomes an engine."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from escultor.config import Serve
from escultor.errors import ConfigError, ModelError
from escultor.serve.deployments import Load
from escultor.serve.engines.shared import SharedEngines
from escultor.serve.engines.upstream.engine import open_upstream
from escultor.serve.protocol import Engine
from escultor.store import Store
from escultor.store.blobs import tree_hash
from escultor.store.registry import CHAMPION
from escultor.types import Deployment

if TYPE_CHECKING:
    from escultor.model.loaded import Loaded

CONVERTED = "converted"  # folder beside the blobs: copies of models converted to CTranslate2's format


@dataclass(frozen=True)
class EngineSource:
    """Where answers come from. `folder` is the model used where the log names none, None with an upstream;
    where it is `fixed`, or an upstream is set, the log's deployments are ignored."""

    folder: Path | None
    fixed: bool = False


def engine_loader(store: Store, source: EngineSource, settings: Serve) -> tuple[Load, Deployment, bool]:
    """The function that loads a version, the deployment used where the log has none, and whether it is used
    always.

    Raises ConfigError for an upstream that cannot be used, DataError for a folder without files.
    """
    if settings.upstream is not None:
        upstream = open_upstream(settings.upstream, os.environ)

        async def load_upstream(_: str) -> Engine:
            return upstream

        return load_upstream, _sole(upstream.version, "an upstream is set"), True
    if source.folder is None:
        raise ConfigError("there is nothing to serve", "neither a model nor an upstream")
    own_folder = source.folder
    own_version = tree_hash(own_folder)

    async def load_whole(folder: Path, version: str) -> Engine:
        # In a thread that ends: a thread keeps the OpenMP team that computed its products, and with more
        # teams than cores every team sleeps between products, those that decode included.
        thread = ThreadPoolExecutor(1, "escultor-loading")
        opened = partial(_open, folder, version, settings, store.blobs.root / CONVERTED)
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, opened)
        finally:
            thread.shutdown(wait=False)

    shared = SharedEngines(load_whole, partial(_base, settings))

    async def load(version: str) -> Engine:
        folder = own_folder if version == own_version else await asyncio.to_thread(store.blobs.tree, version)
        return await shared.acquire(version, folder)

    because = "it was asked for" if source.fixed else "the log names no champion"
    return load, _sole(own_version, because), source.fixed


def _sole(version: str, because: str) -> Deployment:
    return Deployment(f"sole-{version}", 0.0, {version: 1.0}, {CHAMPION: version}, because)


def _base(settings: Serve, folder: Path) -> tuple[str, Path] | None:
    """Version and folder of an adapter's base model, None for a whole model. Raises ModelError where the base
    is missing, or the engine in the settings cannot use adapters."""
    from escultor.model.folders import base_folder, is_adapter

    if not is_adapter(folder):
        return None
    if settings.engine != "transformers":
        remedy = "serve a whole model: `escultor merge` makes one"
        raise ModelError("this engine cannot use adapters", settings.engine, "transformers", remedy)
    base = base_folder(folder)
    return tree_hash(base), base


def open_engine(loaded: Loaded, folder: Path, version: str, settings: Serve, copies: Path) -> Engine:
    """Make the engine that `serve.engine` names, of the model loaded from `folder`; blocks meanwhile.

    Converted models go to `copies`. Raises ModelError where the engine cannot serve this model.
    """
    if settings.engine == "transformers":
        from escultor.serve.engines.transformers_engine import TransformersEngine

        return TransformersEngine(loaded, version, settings)
    from escultor.serve.engines.ctranslate2_engine import CTranslate2Engine

    return CTranslate2Engine(loaded, folder, version, settings, copies)


def _open(folder: Path, version: str, settings: Serve, converted: Path) -> Engine:
    from escultor.model.load import load

    return open_engine(load(str(folder)), folder, version, settings, converted)
