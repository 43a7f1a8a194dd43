"""`wrk`, the load generator, as a program that asks one thing over and over and says what came of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

# wrk calls `done` when all is over: latencies are in microseconds, errors counted by their kind.
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[%s]==]

done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"answered": %%d, "seconds": %%.3f, "p50_ms": %%.3f, "p99_ms": %%.3f, "not_2xx": %%d, ' ..
    '"connect": %%d, "read": %%d, "write": %%d, "timeout": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status, e.connect, e.read, e.write, e.timeout))
end
"""
ERRORS = ("not_2xx", "connect", "read", "write", "timeout")


def installed() -> bool:
    return shutil.which("wrk") is not None


def drive(url: str, body: bytes, connections: int, seconds: int) -> dict[str, Any]:
    """Ask with this JSON body from so many connections at once; each asks again when it was answered."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "ask.lua"
        script.write_text(SCRIPT % body.decode())
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1])
