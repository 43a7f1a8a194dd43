"""Limits on requests that are checked before anything is computed: rate and JSON depth."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable

_MAX_BUCKETS = 1 << 16  # the bucket unused for longest is dropped, and starts full again
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class RateLimiter:
    """A token bucket for each name: `burst` requests at once, `rate` per second after that."""

    def __init__(
        self,
        rate: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        max_buckets: int = _MAX_BUCKETS,
    ):
        self._rate, self._burst, self._clock, self._max_buckets = rate, burst, clock, max_buckets
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name: tokens, and when

    def acquire(self, name: str) -> float:
        """Take a token: 0 where there was one, else the seconds until there is."""
        now = self._clock()
        tokens, updated = self._buckets.pop(name, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - updated) * self._rate)
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[name] = (tokens - 1 if wait_s == 0 else tokens), now
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        return wait_s


def is_nested_deeper(body: bytes, limit: int) -> bool:
    """Whether JSON text nests brackets deeper than the limit, found without parsing it."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > limit:
            return True
    return False
