"""The engine of an OpenAI-compatible server: vLLM, llama.cpp's server, Ollama, a hosted model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping

from escultor.config import Upstream
from escultor.errors import ConfigError
from escultor.serve.engines.upstream.http import BACKOFF_S, UpstreamHttp
from escultor.serve.engines.upstream.replies import (
    ReplyParser,
    SseParser,
    is_chat,
    is_streamed,
    request_body,
)
from escultor.serve.protocol import EngineEvent, GenerationRequest


class UpstreamEngine:
    """One model of one upstream. Belongs to the event loop that uses it first."""

    problem = None  # whether the upstream answers is known only by asking it

    def __init__(self, settings: Upstream, key: str | None = None, backoff_s: float = BACKOFF_S):
        """Raises ConfigError for a url with more than an address."""
        self._http, self.version = UpstreamHttp(settings, key, backoff_s), settings.model

    async def stream(self, request: GenerationRequest) -> AsyncIterator[EngineEvent]:
        """The events of one answer. Closing the iterator closes the connection, which ends the work.

        Raises InputError where the upstream blames the request, Overloaded where it has no capacity or no
        connection is free, UpstreamFault where it fails, hangs or sends a malformed reply.
        """
        deadline = asyncio.get_running_loop().time() + self._http.settings.deadline_s
        path = "/chat/completions" if is_chat(request) else "/completions"
        data = json.dumps(request_body(request, self.version)).encode()
        body = await self._http.post(path, data, is_streamed(request), deadline)
        reply, sse = ReplyParser(request), SseParser()
        try:
            if not is_streamed(request):
                parts = []
                while (data := await body.read()) is not None:
                    parts.append(data)
                for event in (*reply.feed(b"".join(parts)), reply.end()):
                    yield event
                return
            # A stream whose answer is complete may end in any way.
            while not reply.done and (data := await body.read(reply.is_complete)) is not None:
                for payload in sse.feed(data):
                    for event in reply.feed(payload):
                        yield event
            if reply.done:
                await body.drain()
            yield reply.end()
        finally:
            await body.close()

    async def close(self) -> None:
        """Close all connections; answers under way end in an EngineFault."""
        await self._http.close()


def open_upstream(settings: Upstream, environ: Mapping[str, str]) -> UpstreamEngine:
    """The engine of an upstream, with the API key in the environment variable `settings.key_env`.

    Raises ConfigError when that variable holds no key, or the url more than an address.
    """
    if settings.key_env is None:
        return UpstreamEngine(settings)
    key = environ.get(settings.key_env, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(
            "upstream.key_env names an environment variable that holds no key",
            settings.key_env,
            "a variable whose value is one line of ASCII",
            f"export {settings.key_env}=…, or leave key_env out",
        )
    return UpstreamEngine(settings, key)
