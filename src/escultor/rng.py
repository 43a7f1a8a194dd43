"""Randomness by name: the same (seed, names) gives the same numbers, whatever ran before."""

from __future__ import annotations

import hashlib
import random


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on the run's seed and on what the numbers are for."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: object) -> random.Random:
    """A generator of the standard library for the purpose that `names` name."""
    return random.Random(derive_seed(seed, *names))


def unit(seed: int, *names: object) -> float:
    """One number in [0, 1) for the purpose that `names` name; order of calls does not matter."""
    return derive_seed(seed, *names) / float(1 << 63)
