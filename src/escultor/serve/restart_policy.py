"""Engines that have died: what stands in their place, and whether they are opened again.

An engine that dies is opened again at once, and where that fails so many times more, each after twice the
pause. One that dies again soon after it was opened stays down: whatever kills it is still there, and an
engine that dies every minute answers nobody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from escultor.errors import EngineDown
from escultor.serve.protocol import EngineEvent, GenerationRequest

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, MOST_PAUSE_S = 1.0, 60.0
SOON = "ask again in some seconds; it is being opened again"
LATER = "restart the server, or deploy another version; the server's log says what happened"


class DeadEngineStub:
    """Has the place of an engine that has died, and holds nothing of it; see `serve.protocol.Engine`."""

    def __init__(self, version: str, why: str):
        self._version, self._why = version, why
        self.lasting = False  # nobody opens it again
        self.tried = ""  # what came of opening it

    @property
    def version(self) -> str:
        return self._version

    @property
    def problem(self) -> str:
        then = "it stays down" if self.lasting else "it is being opened again"
        return "; ".join(part for part in (self._why, self.tried, then) if part)

    async def stream(self, request: GenerationRequest) -> AsyncIterator[EngineEvent]:
        raise EngineDown("the engine has failed", self._version, remedy=LATER if self.lasting else SOON)
        yield  # a generator, as engines' streams are

    async def close(self) -> None:
        return


@dataclass
class _Outage:
    attempts: int = 0
    again: float = 0.0  # when it is tried next
    opened: float | None = None  # when it was opened again


class RestartPolicy:
    """What has died of a gateway's engines, and what was opened again."""

    def __init__(self, attempts: int, quiet_s: float, clock: Callable[[], float] = time.monotonic):
        """Opening is tried `attempts` times; who dies within `quiet_s` of it stays down."""
        self._attempts, self._quiet_s, self._clock = attempts, quiet_s, clock
        self._outages: dict[str, _Outage] = {}
        self.died = self.reopened = 0  # since the start

    def down(self, version: str, why: str) -> DeadEngineStub:
        """An engine has died; what takes its place."""
        self.died += 1
        there, before = DeadEngineStub(version, why), self._outages.get(version)
        opened = before.opened if before else None
        if opened is not None and self._clock() - opened < self._quiet_s:
            self._leave(there, f"it died twice within {self._quiet_s:g} s")
        elif not self._attempts:
            self._leave(there, "serve.reopen_attempts is 0")
        self._outages[version] = _Outage(again=self._clock())
        logger.error("version %s answers no more: %s", version, there.problem)
        return there

    def due(self, there: DeadEngineStub) -> bool:
        """Whether it is to be opened now."""
        return not there.lasting and self._clock() >= self._outages[there.version].again

    def failed(self, there: DeadEngineStub, error: Exception) -> None:
        """It could not be opened."""
        outage = self._outages[there.version]
        outage.attempts += 1
        outage.again = self._clock() + min(FIRST_PAUSE_S * 2 ** (outage.attempts - 1), MOST_PAUSE_S)
        there.tried = f"attempt {outage.attempts} of {self._attempts} to open it failed: {error}"
        if outage.attempts >= self._attempts:
            there.lasting = True
        logger.warning("version %s: %s", there.version, there.problem)

    def succeeded(self, there: DeadEngineStub) -> None:
        """It was opened."""
        self.reopened += 1
        self._outages[there.version].opened = self._clock()
        logger.warning("version %s was opened again", there.version)

    @staticmethod
    def _leave(there: DeadEngineStub, why: str) -> None:
        there.lasting, there.tried = True, why
