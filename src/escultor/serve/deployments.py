"""Who answers: the deployment that holds in the log, its engines, and how requests are dealt to them.

Switching is atomic: a new deployment's engines are loaded beside the old ones, then one assignment
changes who gets the next request; requests under way end on the engine they began on, which is closed
after the last of them. What cannot be loaded never takes the place of what answers.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from escultor.errors import EscultorError
from escultor.serve.protocol import Engine
from escultor.serve.restart_policy import DeadEngineStub, RestartPolicy
from escultor.serve.wire.errors import ApiError
from escultor.store.registry import ALIASES, CANDIDATE, CHAMPION
from escultor.types import Deployment

logger = logging.getLogger(__name__)

SHADOW = "shadow"
MOST_WAIT_S = 60.0  # between two attempts to load what could not be loaded
HEAR_S = 5.0  # for those on an engine that has died to hear of it

Load = Callable[[str], Awaitable[Engine]]


class EngineHandle:
    """A loaded engine and how many requests are on it."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.users = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def version(self) -> str:
        return self.engine.version

    @contextmanager
    def used(self) -> Iterator[Engine]:
        """The engine, which is not closed before this ends."""
        self.users += 1
        self._idle.clear()
        try:
            yield self.engine
        finally:
            self.users -= 1
            if not self.users:
                self._idle.set()

    async def retire(self) -> None:
        """Close the engine once nobody is on it."""
        await self._idle.wait()
        await self.engine.close()

    async def bury(self) -> None:
        """Close an engine that has died; those on it hear of its end, and are waited for only so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEAR_S):
                await self._idle.wait()
        await self.engine.close()


@dataclass(frozen=True, slots=True)
class EnginePick:
    """Who answers a request, under which alias, and how probable that was."""

    held: EngineHandle
    arm: str
    propensity: float


@dataclass(frozen=True)
class ActiveDeployment:
    """A deployment with its engines: never changed, only replaced whole."""

    deployment: Deployment
    engines: dict[str, EngineHandle]
    missing: dict[str, str] = field(default_factory=dict)  # version: why it could not be loaded

    @property
    def champion(self) -> EngineHandle:
        return self.engines[self.deployment.aliases[CHAMPION]]

    @property
    def problems(self) -> list[str]:
        """Which engines will answer no more, and why."""
        found = ((version, held.engine.problem) for version, held in self.engines.items())
        return [f"{version} answers no more: {why}" for version, why in found if why is not None]

    @property
    def shadow(self) -> EngineHandle | None:
        """The candidate that answers unseen: one that is named and has no share of the traffic."""
        name = self.deployment.aliases.get(CANDIDATE)
        held = None if name is None or name in self.deployment.shares else self.engines.get(name)
        return None if held is None or held.engine.problem is not None else held

    def arm_of(self, version: str) -> str:
        """Under which alias a version answers: the first it has, else candidate."""
        return next((a for a in ALIASES if self.deployment.aliases.get(a) == version), CANDIDATE)

    def split(self, subject: str | None, draw: float) -> EnginePick:
        """Deal a request by its subject's hash; one without a subject by `draw`, uniform in [0, 1).

        A subject stays where it is while the same versions take part, and a candidate whose share
        grows keeps those it had: it takes the lower end of the line, the champion what is left.
        """
        champion = self.champion.version
        others = sorted(set(self.deployment.shares) - {champion})
        at = draw if subject is None else position(subject, others)
        below = 0.0
        for version in others:
            share = self.deployment.shares[version]
            if version not in self.engines or self.engines[version].engine.problem is not None:
                continue  # its share falls to the champion
            if at < below + share:
                return EnginePick(self.engines[version], self.arm_of(version), share)
            below += share
        return EnginePick(self.champion, CHAMPION, 1.0 - below)


def position(subject: str, others: list[str]) -> float:
    """Where a subject stands on the line from 0 to 1: uniform, and drawn afresh for other versions."""
    data = "|".join([*others, subject]).encode()
    return int.from_bytes(hashlib.sha256(data).digest()[:7], "big") / (1 << 56)


class Deployments:
    """Follows the log and holds the engines. Belongs to one event loop; close it when done."""

    def __init__(
        self,
        read: Callable[[], Deployment | None],
        load: Load,
        default: Deployment,
        names: tuple[str, ...],
        reopening: RestartPolicy,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`read` gives what holds (called in a thread), `default` what holds where the log has none;
        `names` are the model names that mean the champion and its split, beside `champion`."""
        self._read, self._load, self._default, self._clock = read, load, default, clock
        self.reopening = reopening
        self._any, self._names = "*" in names, {CHAMPION, *names}
        self._standing: ActiveDeployment | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._again, self._wait = 0.0, 1.0  # when what failed to load is tried again
        self._failed: str | None = None  # the deployment that could not be taken on
        self.problem: str | None = None  # what a person should know, for /health

    @property
    def standing(self) -> ActiveDeployment:
        """What holds now."""
        assert self._standing is not None, "start() comes first"
        return self._standing

    async def start(self) -> None:
        """Load what holds. Raises what the loading of the champion raises."""
        wanted = await asyncio.to_thread(self._read) or self._default
        await self._switch(wanted)

    async def follow(self) -> bool:
        """Look once for another deployment, and take it on; whether it did. Never raises.

        Engines that have died meanwhile are opened again, as `reopening` says.
        """
        await self._reopen()
        try:
            wanted = await asyncio.to_thread(self._read) or self._default
        except EscultorError as error:
            self.problem = f"deployments could not be read: {error}"
            return False
        there = self.standing
        if wanted.id == there.deployment.id and not there.missing:
            self.problem = None
            return False
        tried = wanted.id == self._failed or wanted.id == there.deployment.id
        if tried and self._clock() < self._again:
            return False
        try:
            await self._switch(wanted)
        except Exception as error:  # whatever it is, the old champion goes on answering
            self._postpone(wanted.id, tried)
            self.problem = f"deployment {wanted.id} could not be taken on: {error}"
            logger.warning("%s", self.problem)
            return False
        if self.standing.missing:
            self._postpone(None, tried)
        return True

    def pick(self, model: str, subject: str | None, draw: float) -> EnginePick:
        """Who answers a request for a model: the champion's split by one of its names, an alias, or a
        version that is loaded. Raises Refusal (404) for any other name."""
        standing = self.standing
        if model in self._names:
            return standing.split(subject, draw)
        version = standing.deployment.aliases.get(model, model)
        if (held := standing.engines.get(version)) is not None:
            return EnginePick(held, model if model in ALIASES else standing.arm_of(version), 1.0)
        if self._any:
            return standing.split(subject, draw)
        known = ", ".join(sorted(self._names) + sorted(standing.engines))
        message = f"the model `{model[:100]}` does not exist; known: {known}"
        raise ApiError(404, message, "model_not_found", param="model")

    def models(self) -> dict[str, str]:
        """Every name that may be asked for, and the version it stands for."""
        standing = self.standing
        names = dict.fromkeys(sorted(self._names - {"*"}), standing.champion.version)
        aliases = {a: v for a, v in standing.deployment.aliases.items() if v in standing.engines}
        return {**names, **aliases, **{version: version for version in standing.engines}}

    async def close(self) -> None:
        """Close every engine, once nobody is on it."""
        if self._standing is not None:
            for held in self._standing.engines.values():
                self._retire(held)
        await asyncio.gather(*self._retiring, return_exceptions=True)

    async def _switch(self, wanted: Deployment) -> None:
        old = {} if self._standing is None else self._standing.engines
        same = self._standing is not None and self._standing.deployment.id == wanted.id
        champion = wanted.aliases[CHAMPION]
        engines: dict[str, EngineHandle] = {}
        missing: dict[str, str] = {}
        for version in dict.fromkeys([champion, *wanted.shares, *wanted.aliases.values()]):
            there = old.get(version)
            try:
                # One that has died is loaded anew for another deployment; otherwise `_reopen` sees to it.
                keeps = there is not None and (there.engine.problem is None or same)
                engines[version] = there if there and keeps else EngineHandle(await self._load(version))
            except Exception as error:
                if version == champion:
                    raise
                missing[version] = str(error)
                logger.warning("version %s cannot be loaded: %s", version, error)
        self._standing = ActiveDeployment(
            wanted, engines, missing
        )  # from here on the next request goes there
        self._failed = None
        self.problem = "; ".join(f"{v} cannot be loaded: {why}" for v, why in missing.items()) or None
        for version, held in old.items():
            if engines.get(version) is not held:
                self._retire(held)

    async def _reopen(self) -> None:
        """Open engines again that have died, beside nothing of what they were. Never raises."""
        # All are buried first: one may hold what another is made of.
        if await self._bury():
            gc.collect()  # faults, and the frames they were raised through, hold one another and the model
        for version, held in list(self.standing.engines.items()):
            if isinstance(held.engine, DeadEngineStub) and self.reopening.due(held.engine):
                try:
                    engine = await self._load(version)
                except Exception as error:
                    self.reopening.failed(held.engine, error)
                else:
                    self.reopening.succeeded(held.engine)
                    self._put(EngineHandle(engine))

    async def _bury(self) -> bool:
        """Put something in the place of every engine that has died, and close it; whether there was one."""
        dead = [
            h
            for h in self.standing.engines.values()
            if h.engine.problem and not isinstance(h.engine, DeadEngineStub)
        ]
        for held in dead:
            self._put(
                EngineHandle(self.reopening.down(held.version, str(held.engine.problem)))
            )  # who asks is told
            try:
                await held.bury()
            except Exception as error:
                logger.warning("an engine that died could not be closed: %s", error)
        return bool(dead)

    def _put(self, held: EngineHandle) -> None:
        """Let an engine have the place of its version."""
        there = self.standing
        self._standing = replace(there, engines={**there.engines, held.version: held})

    def _postpone(self, failed: str | None, tried: bool) -> None:
        self._failed = failed
        self._wait = min(2 * self._wait, MOST_WAIT_S) if tried else 1.0
        self._again = self._clock() + self._wait

    def _retire(self, held: EngineHandle) -> None:
        task = asyncio.create_task(held.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retired)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._retiring.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("an engine could not be closed: %s", error)
