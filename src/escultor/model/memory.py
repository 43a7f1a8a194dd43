"""Memory that a process keeps instead of giving it back and asking again."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for them, glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 32 MiB: a training step frees and takes the same tensors
    over and over, and fresh pages cost more than the arithmetic on them. Says whether it worked."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(_MMAP_THRESHOLD, 32 << 20)) and bool(libc.mallopt(_TRIM_THRESHOLD, 1 << 30))
    except (OSError, AttributeError):  # another C library
        return False
