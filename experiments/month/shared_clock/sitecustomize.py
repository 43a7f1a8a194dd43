"""Every process with this folder on PYTHONPATH reads the time of day from the file that ESCULTOR_CLOCK names:
8 bytes, a double of seconds since the epoch. So the command line runs as it is on an accelerated clock, and
the clock outlives any process. Durations (`time.monotonic`, `time.perf_counter`) stay real.
"""

import mmap
import os
import struct
import time

if path := os.environ.get("ESCULTOR_CLOCK"):
    with open(path, "rb") as _file:
        _view = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)

    def _now() -> float:
        return struct.unpack("<d", _view)[0]

    time.time = _now
