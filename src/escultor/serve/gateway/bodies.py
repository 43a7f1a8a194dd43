"""Bodies of requests: read after the caller is known, within one budget for all, and parsed within limits.

Law: a route that has not admitted its caller has read nothing; whatever callers send, the bodies under way
and what was made of them are worth at most the budget (and small ones a connection each). The smallest body
that waits is next; while any waits, one that comes more slowly than `SLOW_BYTES_PER_S` is dropped.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import count
from typing import Any, NamedTuple, TypeVar

from starlette.requests import ClientDisconnect, Request

from escultor.config import Serve
from escultor.errors import Overloaded
from escultor.serve.interruptible import run_interruptible
from escultor.serve.side_process import SIDE
from escultor.serve.wire.body_json import BodyReader
from escultor.serve.wire.body_json import read_body as read_bytes
from escultor.serve.wire.errors import ApiError

T = TypeVar("T")

JSON = "application/json"
HELD = "escultor.held"  # key of a request's scope: what is released after its response
BODY = "escultor.body"  # key of a request's scope: the body that was received
TINY = 1 << 14  # bytes of a body that is read on the event loop
SMALL = 1 << 16  # bytes of a body that needs no budget, and no other process
BYTES_PER_VALUE = 100
SLOW_BYTES_PER_S, SLOW_AFTER_S = 1 << 16, 2.0
_RECHECK_S = 0.5  # how often slow bodies are looked for while others wait


class HeldBody:
    """A body's share of the budget."""

    def __init__(self, size: int):
        self.size, self.received, self.began = size, 0, time.monotonic()
        self.limit: asyncio.Timeout | None = None  # while it is read

    def is_slow(self, now: float) -> bool:
        """Whether it is being read, and comes more slowly than it has to while others wait."""
        seconds = now - self.began - SLOW_AFTER_S
        return self.limit is not None and self.received < seconds * SLOW_BYTES_PER_S


class ReceivedBody(NamedTuple):
    """The bytes of a body, and its share of the budget."""

    data: bytes
    held: HeldBody


class BodyBudget:
    """The bytes that all bodies in flight may hold. Belongs to one event loop."""

    def __init__(self, max_bytes: int):
        self.max_bytes, self.free = max_bytes, max_bytes
        self._held: set[HeldBody] = set()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()
        self.turn = asyncio.Lock()  # large bodies are computed on one after the other

    async def acquire(self, size: int) -> HeldBody:
        """Wait until a body of so many bytes has its place; the smallest is first."""
        body = HeldBody(min(size, self.max_bytes) if size > SMALL else 0)
        if body.size > self.free or (body.size and self._waiting):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (body.size, next(self._order), turn))
            try:
                while not turn.done():
                    self._drop_slow()
                    self._admit()
                    await asyncio.wait({turn}, timeout=_RECHECK_S)
            except BaseException:
                if turn.done() and not turn.cancelled():
                    self.free += body.size  # it was admitted meanwhile
                turn.cancel()
                self._admit()
                raise
        else:
            self.free -= body.size
        body.began = time.monotonic()
        self._held.add(body)
        return body

    def resize(self, body: HeldBody, size: int) -> None:
        """Charge a body with what it turned out to hold. Raises Overloaded where that finds no place."""
        size = min(size, self.max_bytes) if size > SMALL else 0
        if size - body.size > self.free:
            raise Overloaded("too many large requests are under way", None, None, "ask again later")
        self.free += body.size - size
        body.size = size
        self._admit()

    def release(self, body: HeldBody) -> None:
        self._held.discard(body)
        self.free += body.size
        body.size = 0
        self._admit()

    def _admit(self) -> None:
        while self._waiting and (self._waiting[0][2].done() or self._waiting[0][0] <= self.free):
            size, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self.free -= size
                turn.set_result(None)

    def _drop_slow(self) -> None:
        now = time.monotonic()
        for body in self._held:
            if body.limit is not None and body.is_slow(now) and not body.limit.expired():
                body.limit.reschedule(asyncio.get_running_loop().time())
                body.limit = None


async def read_json(request: Request) -> Any:
    """The parsed JSON body of a request whose caller was admitted. Raises as `read_body`."""
    return await read_body(request, _as_parsed)


def _as_parsed(body: Any) -> Any:
    return body


async def read_body(request: Request, reader: BodyReader[T]) -> T:
    """What `reader` makes of the parsed JSON body of a request whose caller was admitted: at once where the
    body is tiny, in a thread where it is small, else in another process, so that reader and result have to be
    picklable. Raises as it does, and ApiError: 415 where the body was not sent as JSON (a web page may send
    other media types to any host without a CORS preflight; JSON it may not), 413 and 408 for one that is too
    large or too slow, 400 for what is not JSON or beyond the limits; Overloaded where the budget has no
    place for it."""
    gateway = request.app.state.gateway
    settings: Serve = gateway.settings
    data = await _received(request, settings, gateway.bodies)
    read = partial(read_bytes, data, settings.max_depth, reader)
    if len(data) <= TINY:
        return read()[1]
    if len(data) <= SMALL:
        return (await asyncio.to_thread(read))[1]
    values, result = await SIDE.call(read, settings.prepare_timeout_s)
    gateway.bodies.resize(request.scope[BODY].held, max(len(data), values * BYTES_PER_VALUE))
    return result


async def _received(request: Request, settings: Serve, budget: BodyBudget) -> bytes:
    """The bytes of a body, which are received once and held until the response."""
    if BODY in request.scope:
        return request.scope[BODY].data
    if media_type(request) != JSON:
        raise ApiError(415, "the body has to be sent as Content-Type: application/json", "unsupported_media")
    body = HeldBody(0)
    try:
        async with asyncio.timeout(settings.body_timeout_s) as limit:
            body = await budget.acquire(_declared_size(request, settings))
            request.scope[HELD].callback(budget.release, body)
            body.limit = limit
            pieces = [piece async for piece in read_pieces(request, body)]
    except TimeoutError:
        raise too_slow(settings) from None
    finally:
        body.limit = None
    data = b"".join(pieces)
    budget.resize(body, len(data))
    request.scope[BODY] = ReceivedBody(data, body)
    return data


async def compute(request: Request, work: Callable[[], T]) -> T:
    """The result of `work` on what was read of a body. Where that was large, in a thread, one such thread at
    a time: they share one interpreter with the event loop, which would wait for each."""
    body: ReceivedBody | None = request.scope.get(BODY)
    if body is None or len(body.data) <= SMALL:
        return work()
    gateway = request.app.state.gateway
    async with gateway.bodies.turn:
        return await run_interruptible(work, gateway.settings.prepare_timeout_s, "parsing")


async def read_pieces(request: Request, body: HeldBody | None = None) -> AsyncIterator[bytes]:
    """The pieces of a body as they arrive. Raises ApiError: 413 for one that is too large, 408 where a piece
    does not come within `serve.body_timeout_s`; ClientDisconnect."""
    settings: Serve = request.app.state.gateway.settings
    _declared_size(request, settings)
    received, has_more = 0, True
    while has_more:
        try:
            async with asyncio.timeout(settings.body_timeout_s if body is None else None):
                message = await request.receive()
        except TimeoutError:
            raise too_slow(settings) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece, has_more = message.get("body", b""), message.get("more_body", False)
        received += len(piece)
        if received > _max_bytes(settings):
            raise _too_large(settings)
        if body is not None:
            body.received = received
        if piece:
            yield piece


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _declared_size(request: Request, settings: Serve) -> int:
    """The size that a request says its body has, or the largest. Raises ApiError (413) for more than that."""
    declared, largest = request.headers.get("content-length"), _max_bytes(settings)
    if declared is None:
        return largest if "transfer-encoding" in request.headers else 0
    if not declared.isdigit() or int(declared[:20]) > largest:
        raise _too_large(settings)
    return int(declared)


def _max_bytes(settings: Serve) -> int:
    return int(settings.max_body_mb * 1e6)


def too_slow(settings: Serve) -> ApiError:
    message = f"the body did not arrive within {settings.body_timeout_s:g} s, or came too slowly"
    return ApiError(408, message, "timeout")


def _too_large(settings: Serve) -> ApiError:
    return ApiError(413, f"the body is larger than {settings.max_body_mb:g} MB", "request_too_large")
