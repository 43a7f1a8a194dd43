"""Engines that share weights: a version is loaded once however many use it, an adapter beside its base.

An adapter's engine computes with the weights of its base, which are loaded with the first adapter that needs
them and freed with the last: a champion, a candidate and a previous version that are adapters of one model
cost its memory once, and switching from one to another reads megabytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from escultor.serve.protocol import Engine


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
        """A lease on the engine of a version, whose files are in `folder`; close it when done.

        Raises what loading raises, ModelError where an adapter does not fit its base.
        """
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
