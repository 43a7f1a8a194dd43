"""A PostgreSQL server of the tests' own: a new cluster in a temporary folder, reached by a Unix socket alone.

It is started where Debian's binaries are (`.ci/run` installs them) and ends with the tests. No setting of
the machine is touched. ESCULTOR_TEST_POSTGRES gives the url of another server to use instead.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S = 60.0
# For tests that do not pull the plug: a killed client loses nothing by it.
FAST = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB")


def binaries() -> Path | None:
    """The folder of initdb and postgres: of the newest version installed, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    onpath = shutil.which("initdb")
    return found[-1].parent if found else Path(onpath).resolve().parent if onpath else None


@contextmanager
def server(*settings: str) -> Iterator[str]:
    """A running server; its url has no password, and works for this user and the server's alone."""
    folder = binaries()
    if folder is None:
        raise FileNotFoundError("initdb is not installed")
    root = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        owner = _owner(root)
        data = str(root / "data")
        command = [str(folder / "initdb"), "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run([*command, "--locale=C"], check=True, capture_output=True, timeout=START_S, **owner)
        command = [str(folder / "postgres"), "-D", data, "-k", str(root), "-c", "listen_addresses="]
        with (root / "server.log").open("wb") as log:
            process = subprocess.Popen([*command, *settings], stdout=log, stderr=log, cwd=root, **owner)
        try:
            _wait(folder, root, process)
            yield f"postgresql://tests@/postgres?host={root}"
        finally:
            process.send_signal(2)  # a fast shutdown: sessions are cut, what is committed is kept
            process.wait(START_S)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _owner(root: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: there it runs as a user who owns nothing else."""
    root.chmod(0o755)
    if os.getuid() != 0:
        return {}
    name = next(n for n in ("postgres", "nobody") if any(user.pw_name == n for user in pwd.getpwall()))
    shutil.chown(root, name)
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def _wait(folder: Path, root: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_S
    ready = [str(folder / "pg_isready"), "-q", "-h", str(root)]
    while subprocess.run(ready, timeout=START_S).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start: {(root / 'server.log').read_text()[-2000:]}")
        time.sleep(0.05)
