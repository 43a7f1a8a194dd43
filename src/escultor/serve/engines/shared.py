"""Engines that share weights: a version is loaded once however many hold it, an adapter beside its base.

An adapter's engine computes with the weights of its base's, which are loaded for it where nobody has them and
freed when nobody is left: a champion, a candidate and a previous version that are adapters of one model
cost its memory once, and switching from one to another reads megabytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol, cast

from escultor.serve.protocol import Engine, EngineEvent, GenerationRequest


class Host(Engine, Protocol):
    """An engine that adapters can be put beside."""

    async def with_adapter(self, version: str, folder: Path) -> Engine: ...


class _Held:
    """An engine that is there, how many hold it, and what else they hold by it."""

    def __init__(self, engine: Engine, base: Lease | None):
        self.engine, self.base = engine, base
        self.holders = 0


class SharedEngines:
    """Engines by version. Belongs to one event loop."""

    def __init__(
        self,
        open_whole: Callable[[Path, str], Awaitable[Engine]],
        base_of: Callable[[Path], tuple[str, Path] | None],
    ):
        """`open_whole` loads the model in a folder; `base_of` (called in a thread) gives version and folder
        of what the adapter in a folder belongs to, None for a whole model. The engine of a base is a Host."""
        self._open, self._base_of = open_whole, base_of
        self._held: dict[str, _Held] = {}
        self._lock = asyncio.Lock()  # one comes or goes at a time

    async def take(self, version: str, folder: Path) -> Engine:
        """The engine of a version, whose files are in `folder`; close it when done. Raises what loading
        raises, ModelError where an adapter does not belong to its base."""
        async with self._lock:
            return await self._take(version, folder)

    async def _take(self, version: str, folder: Path) -> Lease:
        held = self._held.get(version)
        if held is None or held.engine.problem is not None:  # one that has died is its holders' to close
            held = self._held[version] = await self._made(version, folder)
        held.holders += 1
        return Lease(self, held)

    async def _made(self, version: str, folder: Path) -> _Held:
        below = await asyncio.to_thread(self._base_of, folder)
        if below is None:
            return _Held(await self._open(folder, version), None)
        base = await self._take(*below)
        try:
            return _Held(await cast("Host", base.held.engine).with_adapter(version, folder), base)
        except BaseException:
            await self._let_go(base)
            raise

    async def give_back(self, lease: Lease) -> None:
        """What was taken; whoever holds it last frees it."""
        async with self._lock:
            await self._let_go(lease)

    async def _let_go(self, lease: Lease) -> None:
        held = lease.held
        held.holders -= 1
        if held.holders:
            return
        if self._held.get(held.engine.version) is held:
            del self._held[held.engine.version]
        try:
            await held.engine.close()
        finally:  # an engine that has failed holds its base no longer
            if held.base is not None:
                await self._let_go(held.base)


class Lease:
    """One holder's share of an engine: an engine like any other, which ends when all have closed theirs."""

    def __init__(self, shared: SharedEngines, held: _Held):
        self._shared, self.held, self._closed = shared, held, False

    @property
    def version(self) -> str:
        return self.held.engine.version

    @property
    def problem(self) -> str | None:
        return self.held.engine.problem

    def stream(self, ask: GenerationRequest) -> AsyncIterator[EngineEvent]:
        return self.held.engine.stream(ask)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._shared.give_back(self)
