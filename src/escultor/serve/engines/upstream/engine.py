"""Any OpenAI-compatible server behind: vLLM, llama.cpp's server, Ollama, a hosted model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping

from escultor.config import Upstream
from escultor.errors import ConfigError, UpstreamFault
from escultor.serve.engines.upstream.http import BACKOFF_S, ResponseBody, UpstreamHttp
from escultor.serve.engines.upstream.response import UpstreamAnswer, in_pieces, is_chat, request_of
from escultor.serve.engines.upstream.sse import Sse
from escultor.serve.protocol import EngineEvent, GenerationRequest


class UpstreamEngine:
    """Answers of one model of one upstream. Belongs to the event loop that uses it first."""

    def __init__(self, settings: Upstream, key: str | None = None, backoff_s: float = BACKOFF_S):
        """`open_upstream` reads the key from its environment variable. Raises ConfigError for a url that
        is more than an address."""
        self._http = UpstreamHttp(settings, key, backoff_s)

    @property
    def version(self) -> str:
        return self._http.settings.model

    @property
    def problem(self) -> str | None:
        return None  # whether it answers is known when it is asked

    async def stream(self, request: GenerationRequest) -> AsyncIterator[EngineEvent]:
        """The events of one answer. Closing the iterator closes the connection, which ends the work.

        Raises InputError where the upstream finds the ask at fault, Overloaded where it has no room or no
        connection is free, UpstreamFault where it fails, hangs or speaks nonsense.
        """
        until = asyncio.get_running_loop().time() + self._http.settings.deadline_s
        path = "/chat/completions" if is_chat(request) else "/completions"
        asked = json.dumps(request_of(request, self.version)).encode()
        body = await self._http.post(path, asked, in_pieces(request), until)
        answer, events = UpstreamAnswer(request), Sse()
        try:
            if not in_pieces(request):
                for event in (*answer.piece(await _all(body)), answer.end()):
                    yield event
                return
            while not answer.done and (data := await _some(body, answer)) is not None:
                for payload in events.feed(data):
                    for event in answer.piece(payload):
                        yield event
            if answer.done:
                await body.drain()
            yield answer.end()
        finally:
            await body.close()

    async def close(self) -> None:
        """Close all connections; answers under way end in an EngineFault."""
        await self._http.close()


def open_upstream(settings: Upstream, environ: Mapping[str, str]) -> UpstreamEngine:
    """The engine of an upstream, with the key that its environment variable holds.

    Raises ConfigError when that variable holds none, or the url is more than an address.
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


async def _all(body: ResponseBody) -> bytes:
    parts = []
    try:
        while (data := await body.read()) is not None:
            parts.append(data)
    except ConnectionError as error:
        raise UpstreamFault("the upstream's answer broke off", error) from error
    return b"".join(parts)


async def _some(body: ResponseBody, answer: UpstreamAnswer) -> bytes | None:
    """The next bytes of a stream. One whose answer is all here may end in any way."""
    try:
        return await body.read()
    except ConnectionError as error:
        if answer.finished:
            return None
        raise UpstreamFault("the upstream's answer broke off", error) from error
