"""A share that was counted in simulated runs, with its Monte-Carlo error."""

from __future__ import annotations

import math


def share(count: int, runs: int) -> dict[str, float]:
    value = count / runs
    return {
        "share": round(value, 4),
        "mc_error": round(math.sqrt(value * (1 - value) / runs), 4),
        "runs": runs,
    }
