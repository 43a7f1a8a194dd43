"""Several upstreams that answer for one another: asked in order, until the first event of an answer."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from escultor.errors import EngineFault, Overloaded, UpstreamFault, UpstreamStatus
from escultor.serve.engines.upstream.engine import UpstreamEngine
from escultor.serve.protocol import EngineEvent, GenerationRequest, ServedBy

logger = logging.getLogger(__name__)

AVOID_S = 10.0  # how long an upstream that failed is asked after the others
OWN_STATUSES = (404, 408, 429)  # a refusal that may be one upstream's alone; other 4xx are the request's


class FallbackEngine:
    """An engine over upstreams in order. Only the last one to be asked is asked again; what an upstream
    refuses because of the request itself is refused. The version is that of the first."""

    problem = None  # they can always be asked again

    def __init__(self, upstreams: Sequence[UpstreamEngine]):
        """`upstreams` has one at least; they are closed by who made them."""
        self._upstreams, self.version = tuple(upstreams), upstreams[0].version

    async def stream(self, request: GenerationRequest) -> AsyncIterator[EngineEvent]:
        """The events of one answer, after a `ServedBy`. Raises as `UpstreamEngine.stream`."""
        has_begun = False
        for upstream, is_last in self._in_order():
            try:
                events = cast("Any", upstream.stream(request, None if is_last else 0))
                async with aclosing(events) as source:
                    async for event in source:
                        if not has_begun:
                            has_begun = True
                            yield ServedBy(upstream.version)
                        yield event
                return
            except EngineFault as error:
                if has_begun or is_last or not _may_another_answer(error):
                    raise
                logger.warning("%s does not answer, and the next one is asked: %s", upstream.version, error)

    async def ask_json(self, path: str, body: Mapping[str, Any]) -> tuple[bytes, str]:
        """The reply to a request that is answered in one piece, and the version that gave it."""
        for upstream, is_last in self._in_order():
            try:
                return await upstream.ask_json(path, body, None if is_last else 0)
            except EngineFault as error:
                if is_last or not _may_another_answer(error):
                    raise
                logger.warning("%s does not answer, and the next one is asked: %s", upstream.version, error)
        raise AssertionError("there is no upstream")

    async def close(self) -> None:
        """The upstreams stay: other names may be answered by them."""

    def _in_order(self) -> list[tuple[UpstreamEngine, bool]]:
        """The upstreams, those that failed a moment ago behind the others, and whether each is the last."""
        since = time.monotonic() - AVOID_S
        order = sorted(
            self._upstreams, key=lambda each: each.trouble is not None and each.troubled_at > since
        )
        return [(each, each is order[-1]) for each in order]


def _may_another_answer(error: EngineFault) -> bool:
    """Whether a failure is that of one upstream, and not of the request."""
    if isinstance(error, UpstreamStatus):
        return error.status >= 500 or error.status in OWN_STATUSES
    return isinstance(error, UpstreamFault | Overloaded)
