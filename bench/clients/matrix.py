"""Official and popular clients against a gateway: every client does every feature that it has.

    python bench/clients/matrix.py [--python VENV/bin/python] [--node FOLDER] [--write docs/clients.md]

The gateway stands before a scripted upstream that speaks only chat completions (`upstream.py`), then before
weights of its own (`own_model.py`), each with keys and a store of its own. What comes back is compared with
what was said, and each thumb must be found on the row of its answer. `make clients` builds both environments.
Prints one JSON object last; exit code 1 where a cell fails that is not stated as not offered.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import upstream
from own_model import build

from escultor.store import open_store
from escultor.types import Feedback, Interaction

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "serve"))
from started import Started  # noqa: E402

PARIS, LIMA = (["get_weather", {"city": city}] for city in upstream.CITIES)
EXPECTED: dict[str, Any] = {
    "plain": upstream.TEXT,
    "stream": upstream.TEXT,
    "tools": [[PARIS], "It is sunny."],
    "tools_streamed": [PARIS],
    "parallel": [PARIS, LIMA],
    "structured": upstream.PERSON,
    "reasoning": upstream.THOUGHT,
    "picture": "A picture of the type image/png.",
    "error_401": 401,
    "error_429": 429,
    "feedback": 202,
}
TITLES = {
    "plain": "answer",
    "stream": "stream",
    "tools": "tool and its result",
    "tools_streamed": "tool, streamed",
    "parallel": "parallel tools",
    "structured": "structured output",
    "reasoning": "reasoning",
    "picture": "picture",
    "error_401": "401",
    "error_429": "429",
    "feedback": "thumb by own id",
}
NOT_OFFERED = {("own", "picture"): "this model reads text only"}  # and the error that says so
SIDES = {"upstream": "before an upstream", "own": "on own weights"}
START, END = "<!-- matrix: written by make clients -->", "<!-- end of the matrix -->"


@contextmanager
def gateway(store: Path, *options: str) -> Iterator[tuple[str, str]]:
    """A gateway with a key; its address and the key."""
    command = [sys.executable, "-m", "escultor"]
    scopes = ["--scope", "infer", "--scope", "feedback", "--scope", "read"]
    made = subprocess.run(
        [*command, "keys", "create", "matrix", *scopes, "--store", str(store), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    key = json.loads(made.stdout.splitlines()[-1])["key"]
    with Started([*command, "serve", "--port", "0", "--store", str(store), *options]) as process:
        yield process.url.removesuffix("/v1"), key


def asked(python: str, node: Path, url: str, key: str, *features: str) -> list[dict[str, Any]]:
    """What both sides of clients report."""
    script = node / "js_clients.mjs"
    shutil.copy(HERE / "js_clients.mjs", script)  # modules are found beside the file
    commands = ([python, str(HERE / "python_clients.py")], ["node", str(script)])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    rows = []
    for command in commands:
        done = subprocess.run(
            [*command, url, key, *features], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        rows += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return rows


def check_thumbs(store: Path, rows: list[dict[str, Any]]) -> None:
    """Mark as failed what was not found on its row."""
    with open_store(str(store)) as opened:
        answers = {row.id for _, row in opened.log.read(Interaction) if row.message.startswith("m-")}
        thumbs = {event.target for _, event in opened.log.read(Feedback)}
    if thumbs != answers:
        for row in rows:
            if row["feature"] == "feedback":
                row["error"] = f"{len(answers - thumbs)} answers have no thumb"


def use_up(url: str, key: str) -> None:
    """Make the one request that a key's rate allows."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    body = json.dumps({"model": "escultor", "messages": [{"role": "user", "content": "Say hello."}]})
    request = urllib.request.Request(f"{url}/v1/chat/completions", body.encode(), headers)
    with urllib.request.urlopen(request, timeout=120):
        pass


def run_side(side: str, python: str, node: Path, folder: Path) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        if side == "upstream":
            scripted = stack.enter_context(Started([sys.executable, str(HERE / "upstream.py")]))
            options = ["--upstream", f"{scripted.url}/v1", "--upstream-model", "scripted"]
            with gateway(folder / "upstream", *options) as (url, key):
                rows = asked(python, node, url, key)
        else:
            build(folder / "model")
            options = ["--model", str(folder / "model")]
            with gateway(folder / "own", *options) as (url, key):
                features = [name for name in EXPECTED if name != "error_429"]
                rows = asked(python, node, url, key, *features)
            limit = ["--set", "serve.rate_per_key=0.0001", "--set", "serve.burst=1"]
            with gateway(folder / "limited", *options, *limit) as (url, key):
                use_up(url, key)
                rows += asked(python, node, url, key, "error_429")
    check_thumbs(folder / side, rows)
    return [{"side": side, **row} for row in rows]


def cell(row: dict[str, Any]) -> str:
    """`yes`, `refused` as it is stated, or what failed."""
    if "error" not in row and row.get("got") == EXPECTED[row["feature"]]:
        return "yes"
    stated = NOT_OFFERED.get((row["side"], row["feature"]))
    if stated and stated in row.get("error", ""):
        return "refused"
    return "FAILS"


def table(rows: list[dict[str, Any]]) -> str:
    """The Markdown of the matrix: one table for each side."""
    lines = [START, ""]
    for side, title in SIDES.items():
        own = [row for row in rows if row["side"] == side]
        lines += [f"### Clients {title}", ""]
        lines += ["| client | " + " | ".join(TITLES.values()) + " |", "|---" * (len(TITLES) + 1) + "|"]
        for client in dict.fromkeys(row["client"] for row in own):
            cells = {row["feature"]: cell(row) for row in own if row["client"] == client}
            lines.append(f"| {client} | " + " | ".join(cells.get(name, "–") for name in TITLES) + " |")
        lines.append("")
    versions = sorted({row["version"] for row in rows})
    return "\n".join([*lines, "Versions: " + ", ".join(versions) + ".", "", END])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter of the clients' environment")
    parser.add_argument(
        "--node", type=Path, required=True, help="folder with the node_modules of package.json"
    )
    parser.add_argument("--write", type=Path, help="document whose matrix is replaced")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for side in SIDES:
            rows += run_side(side, given.python, given.node, Path(name))
    if given.write:
        document = given.write.read_text("utf-8")
        block = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)
        given.write.write_text(block.sub(lambda _: table(rows), document), "utf-8")
    failed = [row for row in rows if cell(row) == "FAILS"]
    for row in failed:
        print(json.dumps(row), file=sys.stderr)
    cells = [cell(row) for row in rows]
    print(
        json.dumps({"cells": len(rows), **{word: cells.count(word) for word in ("yes", "refused", "FAILS")}})
    )
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
