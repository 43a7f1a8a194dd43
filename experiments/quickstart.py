"""The page docs/quickstart.md, run as it stands: its files are written, its commands and programs run.

    python experiments/quickstart.py SmolLM2-135M-Instruct.Q4_1.gguf [--calls 300] [--folder NEW]

The GGUF file is any small chat model's. Prints each step with its time, and one JSON object last: the steps,
their seconds and exit codes, and the verdicts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

PAGE = Path(__file__).parents[1] / "docs" / "quickstart.md"
GGUF, FIRST_ID, ADDRESS = "SmolLM2-135M-Instruct.Q4_1.gguf", "1fb78c42ca60", "127.0.0.1:8000"
# A block that is a file, or a command on a line of its own.
STEP = re.compile(r'^```\w+ title="([^"]+)"\n([\s\S]*?)^```$|^ {4}((?:escultor|python) .*)$', re.MULTILINE)
# Exit codes that are an answer: no promotion, too little feedback, doubts about a skill.
ANSWERS = {"compare": (3,), "cycle": (2, 3), "skills": (2,)}
START_S = 600
SUBJECTS = {
    "billing": ("invoice", "refund", "charge", "payment", "receipt", "tax number", "direct debit"),
    "technical": ("login", "crash", "error", "upload", "screen", "password", "update"),
    "sales": ("offer", "price list", "discount", "demo", "upgrade", "contract", "licence for ten people"),
}
OPENINGS = (
    "Good morning,", "Hello from Porto,", "This is the third time I write:", "On Monday", "Since last week",
    "My colleague Ana says that", "Before our meeting", "Yesterday at noon", "For the Lisbon office", "Again",
)  # fmt: skip
MIDDLES = (
    "there is trouble with the {}", "nobody could explain the {} to us", "we are waiting for the {}",
    "I looked for the {} and found nothing", "the {} was mentioned by your team",
    "our director asks about the {}",
    "something about the {} seems odd", "I would like to talk about the {}",
)  # fmt: skip
ENDINGS = (
    "and two of us need it today.", "which surprised everyone here.", "so please call me back.",
    "although the manual says otherwise.", "because our customers ask.", "and it is rather urgent.",
    "as I told Mister Costa on the phone.", "while the others have none.", "before the end of the month.",
)  # fmt: skip
Call = Callable[[list[str]], tuple[int, dict[str, Any]]]


def messages(count: int) -> list[tuple[str, str]]:
    """Distinct messages with their queues."""
    draw = random.Random(0)
    made: dict[str, str] = {}
    while len(made) < count:
        queue = draw.choice(list(SUBJECTS))
        middle = draw.choice(MIDDLES).format(draw.choice(SUBJECTS[queue]))
        made[f"{draw.choice(OPENINGS)} {middle} {draw.choice(ENDINGS)}"] = queue
    return list(made.items())


def write_data(folder: Path, calls: int, examples: int = 60, items: int = 80, more: int = 100) -> None:
    """Own examples, of which `skills new` makes items too, calls, and calls during the trial; no two ask the
    same."""
    rows = messages(examples + items + calls + more)
    asked = [
        {"message": m, "queue": q, "person": f"person-{n % 60}"}
        for n, (m, q) in enumerate(rows[examples + items :])
    ]
    parts = {
        "own.jsonl": [{"input": m, "output": q} for m, q in rows[: examples + items]],
        "calls.jsonl": asked[:calls],
        "more.jsonl": asked[calls:],
    }
    for name, own in parts.items():
        text = "".join(json.dumps(row) + "\n" for row in own)
        (folder / name).write_text(text, encoding="utf-8")


def steps_of(page: str) -> Iterator[tuple[str, str]]:
    """The page's steps in order: a file's name and its text, or a command and an empty text."""
    for file, text, command in STEP.findall(page):
        yield (file, text) if file else (command.strip(), "")


def walk(
    folder: Path,
    gguf: Path,
    call: Call,
    environment: dict[str, str],
    note: Callable[[str], None] = print,
    changes: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Run the page in a folder; `call` runs an `escultor` command, and `changes` are made in the files.
    Raises RuntimeError where a step fails."""
    first_id, done = FIRST_ID, []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server: subprocess.Popen[bytes] | None = None
    try:
        for step, text in steps_of(PAGE.read_text(encoding="utf-8")):
            if text:
                for old, new in {ADDRESS: f"127.0.0.1:{port}", **(changes or {})}.items():
                    text = text.replace(old, new)
                (folder / step).write_text(text, encoding="utf-8")
                continue
            began, code, data = time.perf_counter(), 0, {}
            program, *words = shlex.split(step.replace(GGUF, str(gguf)).replace(FIRST_ID, first_id))
            if program == "python":
                subprocess.run([sys.executable, *words], cwd=folder, env=environment, check=True)
                _end(server)
            elif words == ["serve"]:
                command = [sys.executable, "-m", "escultor", "serve", "--port", str(port)]
                server = subprocess.Popen(command, cwd=folder, env=environment)
                _wait(f"http://127.0.0.1:{port}/health", server)
            else:
                code, data = call(words)
                first_id = data.get("id", first_id) if words[:2] == ["models", "import"] else first_id
            if code not in (0, *ANSWERS.get(words[0], ())):
                raise RuntimeError(f"{step}: exit code {code}: {data}")
            seconds = round(time.perf_counter() - began, 1)
            told = {key: data.get(key) for key in ("verdict", "state", "reason")}
            done.append({"step": step, "seconds": seconds, "code": code, **told})
            note(f"{seconds:8.1f} s  {step}  {data.get('state') or data.get('verdict') or ''}")
    finally:
        _end(server)
    return done


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"`escultor serve` ended with {server.returncode}")
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"{url} did not answer within {START_S} s")


def _end(server: subprocess.Popen[bytes] | None) -> None:
    if server is not None:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="new; default: a temporary one, which is deleted")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="escultor-quickstart-"))
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder, options.calls)

    def call(words: list[str]) -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "escultor", *words, "--json"]
        ended = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=False)
        lines = ended.stdout.decode().splitlines()
        return ended.returncode, json.loads(lines[-1]) if lines else {}

    try:
        steps = walk(folder, options.gguf.resolve(), call, dict(os.environ))
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(
        json.dumps(
            {"seconds": round(sum(s["seconds"] for s in steps), 1), "calls": options.calls, "steps": steps}
        )
    )


if __name__ == "__main__":
    main()
