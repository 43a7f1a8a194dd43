"""The deployment in force: its engines, and how requests are split between them.

Switching is atomic: the engines of a new deployment are loaded beside the old ones, then one assignment
changes which engine gets the next request; requests in flight finish on the engine they started on, which is
closed after the last of them. A deployment whose champion cannot be loaded never replaces one that answers.
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
MAX_RETRY_PAUSE_S = 60.0  # between two attempts to load what could not be loaded
LOADED_WAIT_S = 2.0  # for an engine whose loading nobody waits for any more
EVICT_WAIT_S = 5.0  # for requests on a dead engine to receive its error

Load = Callable[[str], Awaitable[Engine]]


class EngineHandle:
    """A loaded engine and the number of requests that use it."""

    def __init__(self, engine: Engine):
        self.engine, self.version, self.in_flight = engine, engine.version, 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def in_use(self) -> Iterator[Engine]:
        """The engine, which is not closed before this context ends."""
        self.in_flight += 1
        self._idle.clear()
        try:
            yield self.engine
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def close(self, wait_s: float | None = None) -> None:
        """Close the engine once no request uses it, or after `wait_s` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._idle.wait()
        await self.engine.close()


@dataclass(frozen=True, slots=True)
class EnginePick:
    """The engine chosen for a request, the alias it was chosen under, and the probability of that choice."""

    handle: EngineHandle
    arm: str
    propensity: float


@dataclass(frozen=True)
class ActiveDeployment:
    """A deployment with its engines: immutable, only replaced as a whole."""

    deployment: Deployment
    engines: dict[str, EngineHandle]
    missing: dict[str, str] = field(default_factory=dict)  # version: why it could not be loaded

    @property
    def champion(self) -> EngineHandle:
        return self.engines[self.deployment.aliases[CHAMPION]]

    @property
    def problems(self) -> list[str]:
        """Which engines have died, and why."""
        problems = ((version, handle.engine.problem) for version, handle in self.engines.items())
        return [f"the engine of {version} died: {why}" for version, why in problems if why is not None]

    @property
    def shadow(self) -> EngineHandle | None:
        """The candidate in shadow: named by the deployment, alive, and without a share of the traffic."""
        version = self.deployment.aliases.get(CANDIDATE)
        if version is None or version in self.deployment.shares:
            return None
        handle = self.engines.get(version)
        return None if handle is None or handle.engine.problem is not None else handle

    def arm_of(self, version: str) -> str:
        """The alias of a version: the first it has, else candidate."""
        return next((a for a in ALIASES if self.deployment.aliases.get(a) == version), CANDIDATE)

    def split(self, subject: str | None, draw: float) -> EnginePick:
        """Choose the engine of a request by its subject's hash; without a subject by `draw`, uniform in
        [0, 1).

        A subject keeps its version while the same versions take part, and a candidate whose share grows
        keeps its subjects: candidates take the lower end of the interval, the champion what is left.
        """
        champion = self.champion.version
        candidates = sorted(set(self.deployment.shares) - {champion})
        point = draw if subject is None else position(subject, candidates)
        lower = 0.0
        for version in candidates:
            share = self.deployment.shares[version]
            if version not in self.engines or self.engines[version].engine.problem is not None:
                continue  # its share goes to the champion
            if point < lower + share:
                return EnginePick(self.engines[version], self.arm_of(version), share)
            lower += share
        return EnginePick(self.champion, CHAMPION, 1.0 - lower)


def position(subject: str, candidates: list[str]) -> float:
    """A subject's point in [0, 1): uniform over subjects, and independent for other candidates."""
    data = "|".join([*candidates, subject]).encode()
    return int.from_bytes(hashlib.sha256(data).digest()[:7], "big") / (1 << 56)


class Deployments:
    """Follows the deployments in the log and holds their engines. Belongs to one event loop; close it when
    done."""

    def __init__(
        self,
        read: Callable[[], Deployment | None],
        load: Load,
        default: Deployment,
        names: tuple[str, ...],
        restarts: RestartPolicy,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`read` returns the deployment in the log (called in a thread), `default` is used where there is
        none; `names` are the model names that mean the champion and its split, besides `champion`."""
        self._read, self._load, self._default, self._clock = read, load, default, clock
        self.restarts = restarts
        self._any_name, self._names = "*" in names, {CHAMPION, *names}
        self._active: ActiveDeployment | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._retry_at, self._retry_pause_s = 0.0, 1.0  # for what could not be loaded
        self._failed: str | None = None  # the deployment whose champion could not be loaded
        self.problem: str | None = None  # for a person to read in /health

    @property
    def active(self) -> ActiveDeployment:
        """The deployment in force."""
        assert self._active is not None, "start() has not been called"
        return self._active

    async def start(self) -> None:
        """Load the deployment in force. Raises what loading its champion raises."""
        await self._switch(await asyncio.to_thread(self._read) or self._default)

    async def follow(self) -> bool:
        """Check the log for another deployment and switch to it; whether it did. Never raises. Engines that
        died meanwhile are restarted as the restart policy says."""
        await self._restart_dead()
        try:
            wanted = await asyncio.to_thread(self._read) or self._default
        except EscultorError as error:
            self.problem = f"deployments could not be read: {error}"
            return False
        active = self.active
        if wanted.id == active.deployment.id and not active.missing:
            self.problem = None
            return False
        tried = wanted.id in (self._failed, active.deployment.id)
        if tried and self._clock() < self._retry_at:
            return False
        try:
            await self._switch(wanted)
        except Exception as error:  # whatever it is, the old champion goes on answering
            self._postpone(wanted.id, tried)
            self.problem = f"deployment {wanted.id} could not be loaded: {error}"
            logger.warning("%s", self.problem)
            return False
        if self.active.missing:
            self._postpone(None, tried)
        return True

    def pick(self, model: str, subject: str | None, draw: float) -> EnginePick:
        """The engine for a request to a model: the champion's split by one of its names, an alias, or a
        loaded version. Raises ApiError (404) for any other name."""
        active = self.active
        if model in self._names:
            return active.split(subject, draw)
        version = active.deployment.aliases.get(model, model)
        if (handle := active.engines.get(version)) is not None:
            return EnginePick(handle, model if model in ALIASES else active.arm_of(version), 1.0)
        if self._any_name:
            return active.split(subject, draw)
        known = ", ".join(sorted(self._names) + sorted(active.engines))
        message = f"the model `{model[:100]}` does not exist; known: {known}"
        raise ApiError(404, message, "model_not_found", param="model")

    def models(self) -> dict[str, str]:
        """Every model name that a request may give, and the version it means."""
        active = self.active
        names = dict.fromkeys(sorted(self._names - {"*"}), active.champion.version)
        aliases = {a: v for a, v in active.deployment.aliases.items() if v in active.engines}
        return {**names, **aliases, **{version: version for version in active.engines}}

    async def close(self) -> None:
        """Close every engine once no request uses it."""
        if self._active is not None:
            for handle in self._active.engines.values():
                self._retire(handle)
        await asyncio.gather(*self._retiring, return_exceptions=True)

    async def _switch(self, wanted: Deployment) -> None:
        old = {} if self._active is None else self._active.engines
        is_reload = self._active is not None and self._active.deployment.id == wanted.id
        champion = wanted.aliases[CHAMPION]
        engines: dict[str, EngineHandle] = {}
        missing: dict[str, str] = {}
        for version in dict.fromkeys([champion, *wanted.shares, *wanted.aliases.values()]):
            handle = old.get(version)
            try:
                # A dead engine is loaded anew for another deployment; otherwise `_restart_dead` does it.
                if handle is None or (handle.engine.problem is not None and not is_reload):
                    handle = EngineHandle(await self._load_engine(version))
                engines[version] = handle
            except asyncio.CancelledError:
                for new in engines.values():
                    if new is not old.get(new.version):
                        self._retire(new)
                raise
            except Exception as error:
                if version == champion:
                    raise
                missing[version] = str(error)
                logger.warning("version %s cannot be loaded: %s", version, error)
        self._active = ActiveDeployment(wanted, engines, missing)  # the next request goes there
        self._failed = None
        self.problem = "; ".join(f"{v} cannot be loaded: {why}" for v, why in missing.items()) or None
        for version, handle in old.items():
            if engines.get(version) is not handle:
                self._retire(handle)

    async def _load_engine(self, version: str) -> Engine:
        """Load a version. If this is cancelled meanwhile, the engine is closed as soon as it is loaded."""
        loading = asyncio.ensure_future(self._load(version))
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            self._retire(loading)
            raise

    async def _restart_dead(self) -> None:
        """Restart engines that died, with nothing of them left in memory. Never raises."""
        # All are evicted first: one may hold what another is made of.
        if await self._evict_dead():
            gc.collect()  # errors and the frames of their tracebacks keep one another and the model alive
        for version, handle in list(self.active.engines.items()):
            if isinstance(handle.engine, DeadEngineStub) and self.restarts.is_due(handle.engine):
                try:
                    engine = await self._load_engine(version)
                except Exception as error:
                    self.restarts.record_failure(handle.engine, error)
                else:
                    self.restarts.record_restart(handle.engine)
                    self._set_engine(EngineHandle(engine))

    async def _evict_dead(self) -> bool:
        """Replace every engine that died by a stub, and close it; whether there was one."""
        handles = list(self.active.engines.values())
        dead = [h for h in handles if h.engine.problem and not isinstance(h.engine, DeadEngineStub)]
        for handle in dead:
            stub = self.restarts.record_death(handle.version, str(handle.engine.problem))
            self._set_engine(EngineHandle(stub))
            await _close(handle, EVICT_WAIT_S)
        return bool(dead)

    def _set_engine(self, handle: EngineHandle) -> None:
        active = self.active
        self._active = replace(active, engines={**active.engines, handle.version: handle})

    def _postpone(self, failed: str | None, tried: bool) -> None:
        self._failed = failed
        self._retry_pause_s = min(2 * self._retry_pause_s, MAX_RETRY_PAUSE_S) if tried else 1.0
        self._retry_at = self._clock() + self._retry_pause_s

    def _retire(self, handle: EngineHandle | asyncio.Future[Engine]) -> None:
        task = asyncio.create_task(_close(handle))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


async def _close(handle: EngineHandle | asyncio.Future[Engine], wait_s: float | None = None) -> None:
    """Close an engine once no request uses it (after `wait_s` at the latest), or once it is loaded; loading
    that takes longer than `LOADED_WAIT_S` is ended."""
    version = "being loaded"
    try:
        if (
            not isinstance(handle, EngineHandle)
            and not (await asyncio.wait({handle}, timeout=LOADED_WAIT_S))[0]
        ):
            handle.cancel()
            return
        handle = handle if isinstance(handle, EngineHandle) else EngineHandle(await handle)
        version = handle.version
        await handle.close(wait_s)
    except Exception as error:
        logger.warning("the engine of version %s could not be closed: %s", version, error)
