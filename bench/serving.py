"""What the benchmarks of serving share: servers as processes, requests, and segments that take turns."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# What the tests of faults do in seconds, the benchmarks do for long: by the same hand.
sys.path.insert(0, str(HERE.parent / "tests" / "serve"))

import wrk  # noqa: E402
from kill_rounds import found, killed  # noqa: E402
from mock_upstream import MockUpstream, serves  # noqa: E402
from started import Started, family, gateway  # noqa: E402

__all__ = [
    "MockUpstream",
    "Started",
    "chat",
    "family",
    "feedback",
    "found",
    "gateway",
    "killed",
    "mock",
    "serves",
    "tidily",
    "wrk",
]


def tidily() -> None:
    """Leave as for an error when told to end, so that servers that were started end too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def mock(*options: str) -> Started:
    """The cheapest upstream, in a process of its own."""
    return Started([sys.executable, str(HERE / "mock_upstream.py"), *options])


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"tool_{k}",
            "description": "Finds what was said about something, the newest first.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}, "limit": {"type": "integer", "minimum": 1}},
                "required": ["query"],
            },
        },
    }
    for k in range(10)
]


def chat(n: int, stream: bool = False, tools: bool = False) -> bytes:
    """The body of the n-th chat request: no two are alike. With `tools` it offers ten, always the same."""
    said = f"Request {n}: where does the cat sleep when the dog is out, and who told you so?"
    body: dict[str, Any] = {"model": "escultor", "messages": [{"role": "user", "content": said}]}
    body |= {"max_tokens": 16, "user": f"user{n % 1000}"}
    body |= {"tools": TOOLS} if tools else {}
    return json.dumps(body | ({"stream": True} if stream else {})).encode()


def feedback(n: int, target: str) -> bytes:
    """The body of a thumb for an answer."""
    event = {"kind": "boolean", "id": f"fb-bench-{n}", "target": target, "value": n % 3 > 0}
    return json.dumps(event).encode()
