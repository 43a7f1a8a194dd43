"""A scripted OpenAI-compatible server on loopback, in a thread of its own: what it does is a plan."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
PIECES = ("The ", "cat ", "sleeps.")
JSON_TYPE = {"Content-Type": "application/json"}
SSE_TYPE = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}


@dataclass
class Asked:
    """A request, and the connection its answer goes to."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    connection: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items())]
        await self.raw(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        await self.head(status, JSON_TYPE | {"Content-Length": str(len(body))} | (headers or {}))
        await self.raw(body)

    async def chunk(self, data: bytes) -> None:
        await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, payload: Any) -> None:
        text = payload if isinstance(payload, str) else json.dumps(payload)
        await self.chunk(f"data: {text}\n\n".encode())


Plan = Callable[[Asked], Awaitable[None]]


class MockUpstream:
    """Answers the n-th request by the n-th plan, those beyond by the last one. `with` starts and ends it."""

    def __init__(self, *plans: Plan):
        self.plans = plans
        self.asked: list[Asked] = []
        self.hung_up = threading.Event()  # a client closed its connection before its answer was whole
        self.connections = 0
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MockUpstream:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.cancel)
        self._thread.join(10)

    def now(self, *plans: Plan) -> None:
        """Begin anew with other plans, and no memory of what was asked."""
        self.asked.clear()
        self.hung_up.clear()
        self.plans = plans

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._stop = self._loop.create_task(self._serve())
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._stop)
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))  # transports close in the next turn
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await asyncio.Event().wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *rest = head.decode().splitlines()[:-1]
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                asked = Asked(first.split()[1], headers, body, connection, reader, writer)
                self.asked.append(asked)
                await self._answer(asked, self.plans[min(len(self.asked), len(self.plans)) - 1])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, asked: Asked, plan: Plan) -> None:
        """Run the plan; should the client close meanwhile, end it."""
        work = asyncio.ensure_future(plan(asked))
        gone = asyncio.ensure_future(asked.reader.read(1))
        for task in (work, gone):  # whatever they end in is known, should this server be stopped meanwhile
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        left = not work.done()
        if left:
            self.hung_up.set()
        (work if left else gone).cancel()
        done, _ = await asyncio.gather(work, gone, return_exceptions=True)
        if left or isinstance(done, ConnectionError):
            raise ConnectionError
        assert done is None, done


# --- plans ------------------------------------------------------------------------------------


def choice(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish, **more}]}


def completion(text: str = "".join(PIECES), usage: Any = USAGE, finish: str = "stop", **more: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    said = {"choices": [{"index": 0, "message": message, "finish_reason": finish, **more}], "usage": usage}
    return json.dumps(said).encode()


def answers(body: bytes | None = None, headers: dict[str, str] | None = None, status: int = 200) -> Plan:
    async def plan(asked: Asked) -> None:
        await asked.reply(status, completion() if body is None else body, headers)

    return plan


def streams(
    *payloads: Any, done: bool = True, pause_s: float = 0.0, hang: bool = False, cut: bool = False
) -> Plan:
    """Send these events (or a usual answer), then `[DONE]`; or hang or cut the connection before it."""
    usual = (
        *(choice(piece) for piece in PIECES),
        choice("", "stop"),
        {"choices": [], "usage": USAGE},
    )

    async def plan(asked: Asked) -> None:
        await asked.head(200, SSE_TYPE)
        for payload in payloads or usual:
            await asked.event(payload)
            await asyncio.sleep(pause_s)
        if hang:
            await asyncio.Event().wait()
        if cut:
            asked.writer.transport.abort()
            raise ConnectionError
        if done:
            await asked.event("[DONE]")
        await asked.raw(b"0\r\n\r\n")

    return plan


CALL_PIECES = ('{"query": "', "where the ", 'cat sleeps"}')


def calls(pause_s: float) -> tuple[Plan, Plan]:
    """A call of a tool, whole and streamed in pieces."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "find", "arguments": ""}}
    deltas = [call, *({"index": 0, "function": {"arguments": piece}} for piece in CALL_PIECES)]
    chunks = [{"choices": [{"index": 0, "delta": {"tool_calls": [each]}}]} for each in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    whole = {**call, "function": {"name": "find", "arguments": "".join(CALL_PIECES)}}
    message = {"role": "assistant", "content": None, "tool_calls": [whole]}
    said = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": USAGE}
    return answers(json.dumps(said).encode()), streams(
        *chunks, end, {"choices": [], "usage": USAGE}, pause_s=pause_s
    )


def serves(pause_s: float = 0.0, calls_tools: bool = False) -> Plan:
    """A usual answer in whichever way it was asked for; a call, where tools are offered and it is to be."""
    called, called_in_pieces = calls(pause_s)

    async def plan(asked: Asked) -> None:
        if calls_tools and asked.body.get("tools"):
            await (called_in_pieces if asked.body.get("stream") else called)(asked)
        else:
            await (streams(pause_s=pause_s) if asked.body.get("stream") else answers())(asked)

    return plan


async def hangs(asked: Asked) -> None:
    await asyncio.Event().wait()


async def disconnects(asked: Asked) -> None:
    asked.writer.close()
    raise ConnectionError


def says(data: bytes) -> Plan:
    """These very bytes, then the end of the connection."""

    async def plan(asked: Asked) -> None:
        await asked.raw(data)
        asked.writer.close()
        raise ConnectionError

    return plan
