"""What the tests of the upstream engine share: asks, and answers gathered in one call."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from mock_upstream import MockUpstream

from escultor.config import Upstream
from escultor.serve.engines.upstream.engine import UpstreamEngine
from escultor.serve.protocol import Delta, End, EngineEvent, GenerationRequest, ScoredPrompt
from escultor.types import Message, Role, Sampling

CHAT = GenerationRequest((Message(Role.USER, "Where is the cat?"),), Sampling(0.5, 0.9, 16, 7))
TEXT = replace(CHAT, prompt="The cat ")
QUICK = {"connect_timeout_s": 2.0, "idle_timeout_s": 0.2, "deadline_s": 5.0, "retries": 2}


def engine(mock: MockUpstream, key: str | None = None, **changes: Any) -> UpstreamEngine:
    settings = Upstream.model_validate({"url": mock.url, "model": "tiny", **QUICK, **changes})
    return UpstreamEngine(settings, key, backoff_s=0.01)


async def events(upstream: UpstreamEngine, ask: GenerationRequest) -> list[EngineEvent]:
    return [event async for event in upstream.stream(ask)]


def asked(
    mock: MockUpstream, ask: GenerationRequest = CHAT, key: str | None = None, **changes: Any
) -> list[EngineEvent]:
    """All events of one ask of a fresh engine."""

    async def run() -> list[EngineEvent]:
        upstream = engine(mock, key, **changes)
        try:
            return await events(upstream, ask)
        finally:
            await upstream.close()

    return asyncio.run(run())


def text_of(found: list[EngineEvent]) -> str:
    return "".join(event.text for event in found if isinstance(event, Delta))


def end_of(found: list[EngineEvent]) -> End:
    assert isinstance(found[-1], End)
    return found[-1]


def scored_of(found: list[EngineEvent]) -> ScoredPrompt:
    assert isinstance(found[0], ScoredPrompt)
    return found[0]
