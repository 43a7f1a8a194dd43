"""An OpenAI-compatible upstream's bytes: events out of a stream, JSON, its own words about errors."""

from __future__ import annotations

import json
from typing import Any

from escultor.errors import UpstreamFault
from escultor.strict_json import no_constant

LINE_LIMIT = 1 << 20  # bytes of one event of a stream; an honest one holds a token and what else was likely
DONE = b"[DONE]"  # behind the last event of a stream
EXCERPT = 300  # characters of an upstream's own words that are passed on


def reason_of(body: bytes) -> str:
    """An upstream's own words about an error, whatever shape they have, on one line."""
    text = body.decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    for key in ("error", "message", "detail"):
        if isinstance(said, dict) and said.get(key):
            said = said[key]
    return excerpt(said if isinstance(said, str) else text)


def excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(whole(text).split())
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT]}…"


def whole(text: str) -> str:
    """Text in which halves of a character that came as escapes are joined, and strays replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class Sse:
    """Server-sent events out of bytes, however they were cut."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of a line whose end has not come
        self._data: list[bytes] = []  # of an event whose end has not come
        self._size = 0  # bytes of both

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that these bytes complete. Raises UpstreamFault for one without end."""
        self._rest.append(data)
        self._size += len(data)
        if b"\n" not in data and b"\r" not in data:
            return self._held([])
        lines = b"".join(self._rest).splitlines(keepends=True)
        # A line that ends in CR may have its LF yet to come.
        self._rest = [] if lines[-1].endswith(b"\n") else [lines.pop()]
        events: list[bytes] = []
        for line in lines:
            if stripped := line.rstrip(b"\r\n"):
                name, _, value = stripped.partition(b":")
                if name == b"data":
                    self._data.append(value.removeprefix(b" "))
            elif self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        self._size = sum(map(len, self._rest)) + sum(map(len, self._data))
        return self._held(events)

    def _held(self, events: list[bytes]) -> list[bytes]:
        if self._size > LINE_LIMIT:
            raise UpstreamFault(
                "an event of the upstream's stream has no end",
                f"{self._size:,} bytes so far",
                f"{LINE_LIMIT:,} bytes",
            )
        return events


def json_of(payload: bytes) -> Any:
    try:
        return json.loads(payload.decode(), parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise UpstreamFault(
            "the upstream answered what is no JSON", excerpt(payload[:1000].decode("utf-8", "replace"))
        ) from error
