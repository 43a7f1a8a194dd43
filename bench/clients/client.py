"""What the clients of the matrix share: the questions, the tool, and the class that each of them extends."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterable
from typing import Any

import httpx
from pydantic import BaseModel

URL, KEY = sys.argv[1].rstrip("/"), sys.argv[2]
MODEL = "escultor"
HELLO, THINK, FAIL = "Say hello.", "Say hello, and think first.", "Say hello; please fail with 429."
ONE, BOTH = "What is the weather in Paris?", "What is the weather in Paris and in Lima?"
PERSON = "Who comes, and when?"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
PICTURE = f"data:image/png;base64,{PIXEL}"
PARIS, LIMA = ("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Lima"})
ADA = {"name": "Ada", "day": "Friday"}


class Person(BaseModel):
    """Who comes, and on which day."""

    name: str
    day: str


def get_weather(city: str) -> str:
    """The weather of a city."""
    return "sunny"


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "The weather of a city.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": FUNCTION}]
PARTS = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": PICTURE}},
]


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def call(name: str, arguments: Any) -> tuple[str, Any]:
    """A call in the one form that the results are compared in."""
    return name, json.loads(arguments) if isinstance(arguments, str) else dict(arguments)


def joined(pieces: Iterable[str | None]) -> str:
    """The text of a stream that came in more than one piece."""
    held = [piece for piece in pieces if piece]
    assert len(held) > 1, f"the stream came in {len(held)} pieces"
    return "".join(held)


def status_of(ask: Any) -> int:
    """The status that a client's own error names."""
    try:
        ask()
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            for name in ("status_code", "code", "status"):
                for held in (cause, getattr(cause, "response", None)):
                    if isinstance(status := getattr(held, name, None), int):
                        return status
            cause = cause.__cause__ or cause.__context__
        raise
    raise AssertionError("no error was raised")


def rated(ask: Any) -> int:
    """Ask with an id of our own for the answer, then send a thumb for that id; the status of the thumb."""
    id = f"m-{uuid.uuid4()}"
    ask({"x-escultor-message": id, "x-escultor-subject": "maria"})
    event = {"kind": "boolean", "name": "thumb", "value": True, "target": id, "id": f"thumb-{id}"}
    event["source"] = {"kind": "end_user", "id": "maria"}
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.post(f"{URL}/v1/feedback", json=event, headers=headers).status_code


class Client:
    """A client; each method named like a feature does it, and returns what is compared."""

    package = ""

    def __init__(self, key: str = KEY):
        self.key = key

    def error_401(self) -> Any:
        return status_of(type(self)("sk-wrong").plain)  # type: ignore[attr-defined]

    def error_429(self) -> Any:
        return status_of(lambda: self.plain(FAIL))  # type: ignore[attr-defined]

    def feedback(self) -> Any:
        return rated(lambda headers: self.plain(headers=headers))  # type: ignore[attr-defined]
