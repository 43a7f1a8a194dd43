"""Server-sent events out of the bytes of a stream, however they were cut."""

from __future__ import annotations

from escultor.errors import UpstreamFault

EVENT_LIMIT = 1 << 20  # bytes of one event; a normal one holds a token and its alternatives
DONE = b"[DONE]"  # the data after the last event of a stream


class SseParser:
    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of a line whose end has not arrived
        self._data: list[bytes] = []  # data lines of an event whose end has not arrived
        self._size = 0  # bytes of both

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that these bytes complete. Raises UpstreamFault for an endless event."""
        self._line.append(data)
        self._size += len(data)
        events: list[bytes] = []
        if b"\n" in data or b"\r" in data:
            lines = b"".join(self._line).splitlines(keepends=True)
            # The LF after a line's CR may not have arrived yet.
            self._line = [] if lines[-1].endswith(b"\n") else [lines.pop()]
            for line in lines:
                if stripped := line.rstrip(b"\r\n"):
                    name, _, value = stripped.partition(b":")
                    if name == b"data":
                        self._data.append(value.removeprefix(b" "))
                elif self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
            self._size = sum(map(len, self._line)) + sum(map(len, self._data))
        if self._size > EVENT_LIMIT:
            raise UpstreamFault(
                "an event of the upstream's stream has no end",
                f"{self._size:,} bytes so far",
                f"{EVENT_LIMIT:,} bytes",
            )
        return events
