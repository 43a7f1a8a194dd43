"""Which machine figures are of."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """How many cores of what."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.processor() or platform.machine()}"
