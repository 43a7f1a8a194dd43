"""The log of the server on stderr: a message a line, whatever clients put into it, and few of one kind."""

from __future__ import annotations

import logging
import threading
import time

MAX_CHARACTERS = 4000  # of a message
BURST, WINDOW_S = 30, 60.0  # messages of one kind that are written within so many seconds
_ESCAPED = {c: f"\\x{c:02x}" for c in (*range(32), *range(127, 160))}
_ESCAPED_BUT_LINES = {c: text for c, text in _ESCAPED.items() if c not in b"\n\t"}
_Caller = tuple[str, int]  # file and line of the call that logs


class ReadableFormatter(logging.Formatter):
    """Control characters as `\\x1b`, so that no text can write to a terminal, or begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        text = f"{text[:MAX_CHARACTERS]}…" if len(text) > MAX_CHARACTERS else text
        line = text.translate(_ESCAPED)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info).translate(_ESCAPED_BUT_LINES)
        return line


class FewOfEachKind(logging.StreamHandler):
    """Writes the first `BURST` messages of one place in the code within a window of `window_s` seconds, and
    at its end how many more there were: what a client can cause as often as it likes fills no disk."""

    def __init__(self, window_s: float = WINDOW_S):
        super().__init__()
        self._window_s, self._counting = window_s, threading.Lock()
        self._seen: dict[_Caller, tuple[float, int]] = {}  # when the window began, and messages since

    def handle(self, record: logging.LogRecord) -> bool:
        caller, now = (record.pathname, record.lineno), time.monotonic()
        with self._counting:
            began, count = self._seen.get(caller, (now, 0))
            if count <= BURST and now - began > self._window_s:  # with more, a timer ends the window
                began, count = now, 0
            self._seen[caller] = began, count + 1
        if count < BURST:
            return bool(super().handle(record))
        if count == BURST:
            timer = threading.Timer(began + self._window_s - now, self._end_window, (caller, record))
            timer.daemon = True
            timer.start()
        return False

    def _end_window(self, caller: _Caller, record: logging.LogRecord) -> None:
        with self._counting:
            left_out = self._seen.pop(caller)[1] - BURST
        text = f"{left_out} more messages like this within {self._window_s:g} s: {record.getMessage()}"
        super().handle(logging.LogRecord(record.name, record.levelno, *caller, text, None, None))


def log_readably() -> None:
    """Send warnings and errors to stderr, unless the program has set up logging itself."""
    if not logging.root.handlers:
        handler = FewOfEachKind()
        handler.setFormatter(ReadableFormatter())
        handler.setLevel(logging.WARNING)
        logging.root.addHandler(handler)
