"""When engines that died are restarted, and the stubs that replace them meanwhile.

A dead engine is restarted at once, and after a failed attempt again, a limited number of times, each after
twice the pause. An engine that dies soon after a restart stays down: the cause is still there, and an engine
that dies every minute answers nobody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable

from escultor.errors import EngineDown
from escultor.serve.protocol import EngineEvent, GenerationRequest

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 60.0
RETRY_SOON = "try again in some seconds; the engine is being restarted"
RESTART_SERVER = "restart the server, or deploy another version; the server's log has the cause"


class DeadEngineStub:
    """Replaces an engine that died, without holding anything of it; an `escultor.serve.protocol.Engine`."""

    def __init__(self, version: str, cause: str, next_attempt: float):
        self.version, self._cause, self.next_attempt = version, cause, next_attempt
        self.failed_attempts = 0
        self.attempts = ""  # the outcome of the restarts so far, in words
        self.stays_down = False

    @property
    def problem(self) -> str:
        state = "it stays down" if self.stays_down else "it is being restarted"
        return "; ".join(part for part in (self._cause, self.attempts, state) if part)

    async def stream(self, request: GenerationRequest) -> AsyncIterator[EngineEvent]:
        remedy = RESTART_SERVER if self.stays_down else RETRY_SOON
        raise EngineDown("the engine has failed", self.version, remedy=remedy)
        yield  # makes this an async generator, as engines' streams are

    async def close(self) -> None:
        return


class RestartPolicy:
    """Decides when dead engines are restarted, from what happened to them before."""

    def __init__(self, attempts: int, quiet_s: float, clock: Callable[[], float] = time.monotonic):
        """A restart is tried `attempts` times; an engine that dies within `quiet_s` of it stays down."""
        self._attempts, self._quiet_s, self._clock = attempts, quiet_s, clock
        self._restarted_at: dict[str, float] = {}  # by version
        self.died = self.restarted = 0  # since the start

    def record_death(self, version: str, cause: str) -> DeadEngineStub:
        """Record that an engine died; the stub that replaces it."""
        self.died += 1
        stub = DeadEngineStub(version, cause, self._clock())
        restarted_at = self._restarted_at.pop(version, None)
        if restarted_at is not None and self._clock() - restarted_at < self._quiet_s:
            stub.stays_down, stub.attempts = True, f"it died twice within {self._quiet_s:g} s"
        elif not self._attempts:
            stub.stays_down, stub.attempts = True, "serve.reopen_attempts is 0"
        logger.error("the engine of version %s died: %s", version, stub.problem)
        return stub

    def is_due(self, stub: DeadEngineStub) -> bool:
        """Whether the engine is to be restarted now."""
        return not stub.stays_down and self._clock() >= stub.next_attempt

    def record_failure(self, stub: DeadEngineStub, error: Exception) -> None:
        """Record that a restart failed."""
        pause_s = min(FIRST_PAUSE_S * 2**stub.failed_attempts, MAX_PAUSE_S)
        stub.next_attempt = self._clock() + pause_s
        stub.failed_attempts += 1
        stub.attempts = f"attempt {stub.failed_attempts} of {self._attempts} to restart it failed: {error}"
        stub.stays_down = stub.failed_attempts >= self._attempts
        logger.warning("version %s: %s", stub.version, stub.problem)

    def record_restart(self, stub: DeadEngineStub) -> None:
        """Record that the engine was restarted."""
        self.restarted += 1
        self._restarted_at[stub.version] = self._clock()
        logger.warning("the engine of version %s was restarted", stub.version)
