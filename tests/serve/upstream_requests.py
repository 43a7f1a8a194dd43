"""Requests and helpers shared by the tests of the upstream engine."""

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


async def events(upstream: UpstreamEngine, request: GenerationRequest) -> list[EngineEvent]:
    return [event async for event in upstream.stream(request)]


def all_events(
    mock: MockUpstream, request: GenerationRequest = CHAT, key: str | None = None, **changes: Any
) -> list[EngineEvent]:
    """All events of one request to a new engine."""

    async def run() -> list[EngineEvent]:
        upstream = engine(mock, key, **changes)
        try:
            return await events(upstream, request)
        finally:
            await upstream.close()

    return asyncio.run(run())


def text_of(collected: list[EngineEvent]) -> str:
    return "".join(event.text for event in collected if isinstance(event, Delta))


def end_of(collected: list[EngineEvent]) -> End:
    assert isinstance(collected[-1], End)
    return collected[-1]


def scored_of(collected: list[EngineEvent]) -> ScoredPrompt:
    assert isinstance(collected[0], ScoredPrompt)
    return collected[0]
