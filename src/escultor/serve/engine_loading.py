"""From a name to an engine: which model answers by default, and how a version of the log is loaded."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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

CONVERTED = "converted"  # beside the blobs: copies of models in the form of a fast engine


@dataclass(frozen=True)
class EngineSource:
    """Where answers come from: `folder` is the model that holds where the log names none, None before an
    upstream; where it is `fixed`, or an upstream is set, the log is not asked."""

    folder: Path | None
    fixed: bool = False


def engines(store: Store, source: EngineSource, settings: Serve) -> tuple[Load, Deployment, bool]:
    """How engines are loaded, the deployment that holds where the log has none, and whether it always does.

    Raises ConfigError for an upstream that cannot be asked, DataError for a folder that holds no files.
    """
    if settings.upstream is not None:
        upstream = open_upstream(settings.upstream, os.environ)

        async def ready(_: str) -> Engine:
            return upstream

        return ready, _sole(upstream.version, "an upstream is set"), True
    if source.folder is None:
        raise ConfigError("nothing can answer", "neither a model nor an upstream")
    own_folder = source.folder
    own = tree_hash(own_folder)

    async def whole(folder: Path, version: str) -> Engine:
        # In a thread that ends: a thread keeps the team of threads that its products were computed by, and
        # with more teams than cores each of them sleeps between products, those that decode too.
        thread = ThreadPoolExecutor(1, "escultor-opening")
        opened = partial(_open, folder, version, settings, store.blobs.root / CONVERTED)
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, opened)
        finally:
            thread.shutdown(wait=False)

    shared = SharedEngines(whole, partial(_base, settings))

    async def load(version: str) -> Engine:
        folder = own_folder if version == own else await asyncio.to_thread(store.blobs.tree, version)
        return await shared.acquire(version, folder)

    because = "it was asked for" if source.fixed else "the log names no champion"
    return load, _sole(own, because), source.fixed


def _sole(version: str, because: str) -> Deployment:
    return Deployment(f"sole-{version}", 0.0, {version: 1.0}, {CHAMPION: version}, because)


def _base(settings: Serve, folder: Path) -> tuple[str, Path] | None:
    """Version and folder of an adapter's base, None for a whole model. Raises ModelError where the base is
    gone, or the engine that is set knows no adapters."""
    from escultor.model.folders import is_adapter

    if not is_adapter(folder):
        return None
    from escultor.model.folders import base_folder

    if settings.engine != "transformers":
        remedy = "serve a whole model: `escultor merge` makes one"
        raise ModelError("this engine knows no adapters", settings.engine, "transformers", remedy)
    base = base_folder(folder)
    return tree_hash(base), base


def _open(folder: Path, version: str, settings: Serve, converted: Path) -> Engine:
    from escultor.model.load import load
    from escultor.serve.engines.factory import open_engine

    return open_engine(load(str(folder)), folder, version, settings, converted)
