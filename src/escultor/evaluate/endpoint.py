"""An OpenAI-compatible server: asked again where it failed, several requests at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from escultor.errors import InputError, UpstreamFault

TRIES = 4
WAIT_S = 0.5  # before the second try; doubled from try to try
RETRIED = frozenset((408, 409, 425, 429, 500, 502, 503, 504))
ASKED_AT_ONCE = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Endpoint:
    """`url` ends before /chat/completions; the key goes nowhere but into the header."""

    url: str
    key: str | None = None
    timeout_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def ask(self, path: str, bodies: Sequence[Any], read: Callable[[Any], T]) -> list[T]:
        """What `read` makes of the reply to each body, in their order.

        Raises UpstreamFault when the server fails four times, refuses, or answers what `read` (by a
        ValueError, KeyError, IndexError or TypeError) says is no answer.
        """
        with self._client() as client, ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            waiting = [pool.submit(self._one, client, "POST", path, read, body) for body in bodies]
            try:
                return [each.result() for each in waiting]
            finally:
                for each in waiting:
                    each.cancel()

    def get(self, path: str, read: Callable[[Any], T]) -> T:
        """What `read` makes of what lies under a path; raises as `ask`."""
        with self._client() as client:
            return self._one(client, "GET", path, read)

    def _client(self) -> Any:
        import httpx2

        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx2.Client(timeout=self.timeout_s, headers=headers)

    def _one(self, client: Any, method: str, path: str, read: Callable[[Any], T], body: Any = None) -> T:
        import httpx2

        why, place = "", f"{self.url.rstrip('/')}{path}"
        for attempt in range(TRIES):
            if attempt:
                self.sleep(WAIT_S * 2 ** (attempt - 1))
            try:
                reply = client.request(method, place, json=body)
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
                allowed = "http://host:port/v1"
                raise InputError("this is no address of a server", self.url, allowed, str(error)) from error
            except httpx2.HTTPError as error:
                why = f"{type(error).__name__}: {error}"
                continue
            if reply.status_code not in RETRIED:
                return self._read(reply, place, read)
            why = f"status {reply.status_code}"
        raise UpstreamFault(f"{place} failed {TRIES} times", why, remedy="try again later")

    def _read(self, reply: Any, place: str, read: Callable[[Any], T]) -> T:
        try:
            if reply.status_code != 200:
                raise ValueError(f"status {reply.status_code}: {reply.text[:200]}")
            return read(reply.json())
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            what, remedy = f"{place} answered what is no answer", "check its address, model and key"
            raise UpstreamFault(what, f"{type(error).__name__}: {error}", "a completion", remedy) from error
