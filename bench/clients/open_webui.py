"""The real Open WebUI, driven by a real browser: what a person does there lands on the rows, within seconds.

    python bench/clients/open_webui.py --open-webui VENV/bin/open-webui --node FOLDER [--shots FOLDER]

VENV has Open WebUI from the package index (`pip install torch==2.13.0 open-webui`, about 3 GB), FOLDER the
node_modules of package.json and `playwright-core`. Default settings, but for the connection, the function of
`escultor connect open-webui`, and the arena switched on. Prints one JSON object last; exit code 1 where an
event is missing, late, or not on its row.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from matrix import HERE, gateway

from escultor.store import open_store
from escultor.types import Choice, Correction, Feedback, Implicit, Interaction, Rating, Remark

sys.path.insert(0, str(HERE.parents[1] / "tests" / "serve"))
from started import Started

PORT = 7410
START_S, LATEST_S = 300, 2.0
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
HEADERS = {
    "x-escultor-subject": "{{USER_ID}}",
    "x-escultor-message": "{{MESSAGE_ID}}",
    "x-escultor-task": "{{TASK}}",
}
PERSON = {"name": "Admin", "email": "admin@example.com", "password": "pw-Admin-123"}
OFF = {"ENABLE_OLLAMA_API": "false", "OFFLINE_MODE": "true", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "true"}
# Models, what is done, and the events that come of it by the step that brings them about.
SESSIONS: tuple[tuple[str, tuple[str, ...], dict[str, type]], ...] = (
    (
        "escultor",
        ("say:Say hello.", "up", "score:9", "edit:Good day to you.", "say:What time is it?"),
        {"up": Rating, "score": Remark, "edit": Correction},
    ),
    (
        "escultor",
        ("picture:FILE", "say:What is this?", "say:Say hello, and think first.", "regenerate", "down"),
        {"regenerate": Implicit, "down": Rating},
    ),
    ("escultor,escultor-b", ("say:Say hello side by side.", "up"), {"up": Rating}),
    ("arena-model", ("say:Say hello in the arena.", "regenerate", "up"), {"up": Choice}),
)


def call(path: str, body: Any = None, token: str = "") -> Any:
    """The answer of Open WebUI's own API."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@contextmanager
def open_webui(program: str, data: Path) -> Iterator[None]:
    environment = os.environ | OFF | {"DATA_DIR": str(data), "WEBUI_SECRET_KEY": "for-a-test"}
    environment.pop("PYTHONPATH", None)
    with (data / "log").open("w") as log:
        process = subprocess.Popen(
            [program, "serve", "--host", "127.0.0.1", "--port", str(PORT)],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + START_S
        while time.monotonic() < until and process.poll() is None:
            with suppress(OSError, urllib.error.URLError):
                call("/health")
                break
            time.sleep(1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def connect(url: str, key: str, folder: Path) -> str:
    """Sign up, add the connection and the function, as the page says; the session's token."""
    file = folder / "function.py"
    command = [sys.executable, "-m", "escultor", "connect", "open-webui", "--url", url, "--out", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    token = call("/api/v1/auths/signup", PERSON)["token"]
    connection = {"OPENAI_API_BASE_URLS": [f"{url}/v1"], "OPENAI_API_KEYS": [key]}
    connection["OPENAI_API_CONFIGS"] = {"0": {"enable": True, "headers": HEADERS}}
    call("/openai/config/update", {"ENABLE_OPENAI_API": True, **connection}, token)
    made = {"id": "escultor", "name": "Escultor", "content": file.read_text("utf-8")}
    call("/api/v1/functions/create", {**made, "meta": {"description": "", "manifest": {}}}, token)
    call("/api/v1/functions/id/escultor/valves/update", {"url": url, "key": key}, token)
    call("/api/v1/functions/id/escultor/toggle", {}, token)
    call("/api/v1/evaluations/config", {"ENABLE_EVALUATION_ARENA_MODELS": True}, token)
    call("/api/models", token=token)
    return token


def drive(node: Path, shots: Path, token: Path, models: str, steps: tuple[str, ...]) -> list[dict[str, Any]]:
    """What the browser did and saw."""
    script = node / "open_webui.mjs"
    shutil.copy(HERE / "open_webui.mjs", script)
    shots.mkdir(parents=True, exist_ok=True)
    command = ["node", str(script), f"http://127.0.0.1:{PORT}", str(token), str(shots), models, *steps]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def delays(
    seen: list[dict[str, Any]], expected: dict[str, type], events: list[Feedback], rows: set[str]
) -> dict[str, float | str]:
    """For each expected event, the seconds from the last request before it to the event on a row."""
    found: dict[str, float | str] = {}
    for at, row in enumerate(seen):
        step = str(row.get("step", "")).partition(":")[0]
        if step not in expected:
            continue
        later = [each["time"] for each in seen[at + 1 :] if "step" in each]
        end = (later[0] if later else float("inf")) + LATEST_S
        asked = [each["time"] for each in seen if "request" in each and row["time"] <= each["time"] <= end]
        kind = expected[step]
        own = [event for event in events if isinstance(event, kind) and row["time"] <= event.time <= end]
        if not own or not asked:
            found[step] = "missing"
        elif not rows.issuperset(own[0].shown_order if isinstance(own[0], Choice) else (own[0].target,)):
            found[step] = "not on its row"
        else:
            found[step] = round(max(0.0, own[0].time - max(t for t in asked if t <= own[0].time)), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--open-webui", required=True, help="the program of its environment")
    parser.add_argument("--node", type=Path, required=True, help="folder with node_modules")
    parser.add_argument("--shots", type=Path, help="where screenshots are left")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        picture = folder / "picture.png"
        picture.write_bytes(base64.b64decode(PIXEL))
        seen = []
        with Started([sys.executable, str(HERE / "upstream.py")]) as scripted:
            options = ["--upstream", f"{scripted.url}/v1", "--upstream-model", "scripted"]
            options += ["--set", 'serve.names=["escultor","escultor-b"]']
            with (
                gateway(folder / "store", *options) as (url, key),
                open_webui(given.open_webui, folder / "data"),
            ):
                token = folder / "token"
                token.write_text(connect(url, key, folder))
                for at, (models, steps, _) in enumerate(SESSIONS):
                    shots = (given.shots or folder / "shots") / str(at)
                    steps = tuple(step.replace("FILE", str(picture)) for step in steps)
                    seen.append(drive(given.node, shots, token, models, steps))
                time.sleep(LATEST_S)
        with open_store(str(folder / "store")) as store:
            answers = [row for _, row in store.log.read(Interaction)]
            events = [event for _, event in store.log.read(Feedback)]
    ids = {row.id for row in answers}
    results = [
        delays(each, expected, events, ids) for each, (_, _, expected) in zip(seen, SESSIONS, strict=True)
    ]
    failed = [each for session in seen for each in session if "failed" in each]
    own = [row for row in answers if not row.task]
    figures = {
        "seconds": results,
        "rows": len(answers),
        "tasks": len(answers) - len(own),
        "with_tools": sum(bool(row.tools) for row in own),
        "calls": sum(bool(row.tool_calls) for row in own),
        "pictures": sum(any(message.parts for message in row.messages) for row in own),
        "with_reasoning": sum(bool(row.reasoning) for row in own),
        "steps_failed": failed,
    }
    print(json.dumps(figures))
    times = [value for result in results for value in result.values()]
    is_right = not failed and all(isinstance(t, float) and t <= LATEST_S for t in times)
    is_right = is_right and all(figures[name] for name in ("calls", "pictures", "with_reasoning", "tasks"))
    raise SystemExit(not is_right)


if __name__ == "__main__":
    main()
