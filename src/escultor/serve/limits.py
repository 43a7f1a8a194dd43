"""How much, how deep, how often: limits that hold before anything is computed."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable

_REMEMBERED = 1 << 16  # names whose buckets are kept; the longest unused is forgotten, and is full again
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class Buckets:
    """A token bucket for each name: `burst` requests at once, `rate` per second after that."""

    def __init__(
        self,
        rate: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        remembered: int = _REMEMBERED,
    ):
        self._rate, self._burst, self._clock, self._remembered = rate, burst, clock, remembered
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when

    def take(self, name: str) -> float:
        """Take a token: 0 where there was one, else the seconds until there is."""
        now = self._clock()
        tokens, when = self._buckets.pop(name, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - when) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[name] = (tokens - 1 if wait == 0 else tokens), now
        if len(self._buckets) > self._remembered:
            self._buckets.popitem(last=False)
        return wait


def too_deep(body: bytes, limit: int) -> bool:
    """Whether JSON text nests brackets deeper than the limit; told without parsing it."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > limit:
            return True
    return False
