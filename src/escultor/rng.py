"""Named random streams: the same (seed, names) gives the same numbers, independent of earlier calls."""

from __future__ import annotations

import hashlib
import random


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed derived from the run's seed and the names of a purpose."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: object) -> random.Random:
    """A `random.Random` seeded by `derive_seed`."""
    return random.Random(derive_seed(seed, *names))


def unit(seed: int, *names: object) -> float:
    """One number in [0, 1) from `derive_seed`; the order of calls does not matter."""
    return derive_seed(seed, *names) / float(1 << 63)
