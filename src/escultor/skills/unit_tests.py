"""Unit tests of a generated program, run in a process of their own with limits of time, memory and output.

The process starts in isolated mode (no site packages of the user, no environment) in an empty folder that is
deleted afterwards; on Linux it has no network, and nothing that it starts outlives it, where the kernel
allows that. It has the rights of this user otherwise: run a model that is not trusted in a container.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

TIME_LIMIT_S = 10
MEMORY_BYTES = 1 << 30
FILE_BYTES = 1 << 20
FIELDS: tuple[str, str] = ("{answer}", "{reference}")  # of a template
_FENCE = re.compile(r"```[A-Za-z0-9_+-]*[ \t]*\n(.*?)\n?```", re.DOTALL)
# Limits are set by the child itself: code between fork and exec is not safe in a program with threads.
_LIMITED = f"""
import sys
try:
    import resource
    limits = {{"CPU": {TIME_LIMIT_S}, "AS": {MEMORY_BYTES}, "FSIZE": {FILE_BYTES}, "CORE": 0}}
    for limit, most in limits.items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + limit), (most, most))
except ImportError:
    pass
code = int(sys.stdin.readline())
exec(compile(sys.stdin.read(), "answer.py", "exec"), {{"__name__": "__main__"}})
import os
os._exit(code)
"""


def code_in(answer: str) -> str:
    """The program of an answer: its first fenced block, else all of it."""
    found = _FENCE.search(answer)
    return found[1] if found else answer


def passes(template: str, answer: str, tests: str, time_limit_s: float = TIME_LIMIT_S) -> float:
    """1.0 if a program ends without an error: the template with the answer's program for `{answer}` and the
    tests for `{reference}`; else 0.0."""
    parts: dict[str, str] = dict(zip(FIELDS, (code_in(answer), tests), strict=True))
    program = re.sub("|".join(map(re.escape, FIELDS)), lambda match: parts[match[0]], template)
    with tempfile.TemporaryDirectory(prefix="escultor-test-") as folder:
        return float(_runs(program, Path(folder), time_limit_s))


def _runs(program: str, folder: Path, time_limit_s: float) -> bool:
    # Only who comes to the end knows the code: a program that leaves early has not passed.
    success = 65 + secrets.randbelow(50)
    process = subprocess.Popen(
        [*_without_network(), sys.executable, "-I", "-S", "-c", _LIMITED],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={},
        start_new_session=True,
    )
    try:
        process.communicate(f"{success}\n{program}".encode("utf-8", "replace"), time_limit_s)
    except subprocess.TimeoutExpired:
        return False
    finally:
        _end(process)
    return process.returncode == success


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


@cache
def _without_network() -> tuple[str, ...]:
    """The beginning of a command that runs without network, where this machine can do that."""
    unshare = shutil.which("unshare") if sys.platform == "linux" else None
    if unshare is None:
        return ()
    # With processes of its own nothing that the program started outlives it, in whatever session it is.
    for more in (("--pid", "--fork", "--kill-child"), ()):
        command = (unshare, "--map-root-user", "--net", *more)
        tried = subprocess.run([*command, sys.executable, "-c", ""], capture_output=True, check=False)
        if tried.returncode == 0:
            return command
    return ()
