"""Servers as processes of their own, for tests and benchmarks: started, listened for, killed, weighed."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ADDRESS = re.compile(r"https?://[\w.:\[\]-]+")
START_S = 60.0


class Started:
    """A process that says on stdout where it listens. `with` ends it, gently at first."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        limits: str = "",
        cwd: Path | None = None,
    ):
        """`limits` are words of the shell ahead of the program, such as `ulimit -n 64`.

        Raises RuntimeError when the process never says where it listens.
        """
        if limits:
            command = ["sh", "-c", f'{limits}; exec "$@"', "sh", *command]
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115  a pipe that nobody reads would fill up
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._err,
            text=True,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
        try:
            self.url = self._address()
        except BaseException:
            self.kill()
            raise

    def _address(self) -> str:
        out, until = self.process.stdout, time.monotonic() + START_S
        assert out is not None
        said = ""
        while time.monotonic() < until:
            if not select.select([out], [], [], 0.5)[0]:
                continue
            line = out.readline()
            said += line
            if found := ADDRESS.search(line):
                return found[0]
            if not line:
                break
        self.kill()
        raise RuntimeError(f"{self.process.args} does not listen: {said}{self.said}")

    @property
    def said(self) -> str:
        """What it wrote on stderr so far."""
        self._err.seek(0)
        return self._err.read()

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """`kill -9` of the process and all it started: nothing can be tidied up."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, within_s: float = 20.0) -> int:
        """End it gently; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def rss_mib(self) -> float:
        """Resident memory of the process and all it started."""
        return sum(_rss_kib(pid) for pid in family(self.pid)) / 1024

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._err.close()


def gateway(
    store: str | Path,
    upstream_url: str,
    *options: str,
    env: Mapping[str, str] | None = None,
    limits: str = "",
    cwd: Path | None = None,
    **settings: object,
) -> Started:
    """`escultor serve` before an upstream, on a free port; settings are keys of `serve:`."""
    sets = {"upstream.url": upstream_url, "upstream.model": "mock", **settings}
    command = [sys.executable, "-m", "escultor", "serve", "--port", "0", "--store", str(store), *options]
    for key, value in sets.items():
        command += ["--set", f"serve.{key}={value}"]
    return Started(command, env, limits, cwd)


def family(pid: int) -> list[int]:
    """A process and all that it and its children started."""
    found = [pid]
    for at in found:
        for children in Path(f"/proc/{at}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # it has just ended
                continue
    return found


def _rss_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)
