"""Engine loading: the model that answers by default, and how a version in the log becomes an engine.

A version is loaded once however many use it, an adapter beside its base. An adapter's engine computes with
the weights of its base, which are loaded with the first adapter that needs them and freed with the last: a
champion, a candidate and a previous version that are adapters of one model cost its memory once, and
switching from one to another reads megabytes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escultor.config import Serve
from escultor.config.serving import ANY_MODEL, upstream_version
from escultor.errors import ConfigError, ModelError
from escultor.serve.deployments import Load
from escultor.serve.engines.upstream.engine import UpstreamEngine, open_upstream
from escultor.serve.interruptible import run_interruptible
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
    always. Raises ConfigError for an upstream that cannot be used, DataError for a folder without files."""
    if (upstream := _sole_upstream(settings)) is not None:

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
        opened = partial(_open, folder, version, settings, store.blobs.root / CONVERTED)
        try:
            return await run_interruptible(opened, settings.load_timeout_s, "loading")
        except TimeoutError:
            allowed = f"{settings.load_timeout_s:g} s (serve.load_timeout_s)"
            raise ModelError("the model took too long to load", str(folder), allowed) from None

    shared = SharedEngines(load_whole, partial(_base, settings))

    async def load(version: str) -> Engine:
        folder = own_folder if version == own_version else await asyncio.to_thread(store.blobs.tree, version)
        return await shared.acquire(version, folder)

    because = "it was asked for" if source.fixed else "the log names no champion"
    return load, _sole(own_version, because), source.fixed


def _sole_upstream(settings: Serve) -> UpstreamEngine | None:
    """The upstream that answers where the log's deployments do not."""
    if settings.upstream is not None:
        return open_upstream(settings.upstream, os.environ)
    if (names := settings.models.get(ANY_MODEL)) is None:
        return None
    first = settings.upstreams[names[0]]
    return open_upstream(first, os.environ, upstream_version(names[0], first))


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
    Converted models go to `copies`. Raises ModelError where the engine cannot serve this model."""
    if settings.engine == "transformers":
        from escultor.serve.engines.transformers_engine import TransformersEngine

        return TransformersEngine(loaded, version, settings)
    from escultor.serve.engines.ctranslate2_engine import CTranslate2Engine

    return CTranslate2Engine(loaded, folder, version, settings, copies)


def _open(folder: Path, version: str, settings: Serve, converted: Path) -> Engine:
    from escultor.model.load import load

    return open_engine(load(str(folder)), folder, version, settings, converted)


class _LoadedEngine:
    """A loaded engine, the number of its users, and the lease it holds on its base."""

    def __init__(self, engine: Any, base: EngineLease | None):
        self.engine, self.base, self.users = engine, base, 0


class SharedEngines:
    """Engines by version, with their users counted. Belongs to one event loop."""

    def __init__(
        self,
        load_model: Callable[[Path, str], Awaitable[Any]],
        base_of: Callable[[Path], tuple[str, Path] | None],
    ):
        """`load_model` loads the whole model in a folder, with `with_adapter` where it can have adapters;
        `base_of` (called in a thread) gives version and folder of an adapter's base, None for a whole model.
        """
        self._load_model, self._base_of = load_model, base_of
        self._loaded: dict[str, _LoadedEngine] = {}
        self._lock = asyncio.Lock()  # one load or close at a time

    async def acquire(self, version: str, folder: Path) -> EngineLease:
        """A lease on the engine of a version, whose files are in `folder`; close it when done. Raises what
        loading raises, ModelError where an adapter does not fit its base."""
        async with self._lock:
            return await self._acquire(version, folder)

    async def release(self, lease: EngineLease) -> None:
        """End a lease; the last one to end frees the engine."""
        async with self._lock:
            await self._release(lease)

    async def _acquire(self, version: str, folder: Path) -> EngineLease:
        entry = self._loaded.get(version)
        if entry is None or entry.engine.problem is not None:  # a dead engine is closed by its own users
            entry = self._loaded[version] = await self._load(version, folder)
        entry.users += 1
        return EngineLease(self, entry)

    async def _load(self, version: str, folder: Path) -> _LoadedEngine:
        base_source = await asyncio.to_thread(self._base_of, folder)
        if base_source is None:
            return _LoadedEngine(await self._load_model(folder, version), None)
        base = await self._acquire(*base_source)
        try:
            return _LoadedEngine(await base.entry.engine.with_adapter(version, folder), base)
        except BaseException:
            await self._release(base)
            raise

    async def _release(self, lease: EngineLease) -> None:
        entry = lease.entry
        entry.users -= 1
        if entry.users:
            return
        if self._loaded.get(entry.engine.version) is entry:
            del self._loaded[entry.engine.version]
        try:
            await entry.engine.close()
        finally:  # an engine that fails to close holds its base no longer
            if entry.base is not None:
                await self._release(entry.base)


class EngineLease:
    """One user's share of an engine; itself an Engine. The engine is closed when all leases are."""

    def __init__(self, engines: SharedEngines, entry: _LoadedEngine):
        self._engines, self.entry, self._closed = engines, entry, False
        self.engine: Engine = entry.engine
        self.version, self.stream = self.engine.version, self.engine.stream

    @property
    def problem(self) -> str | None:
        return self.engine.problem

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._engines.release(self)
