"""The server's log on stderr: a message a line, whatever clients and upstreams put into it."""

from __future__ import annotations

import logging

MAX_CHARACTERS = 4000  # of a message
_ESCAPED = {c: f"\\x{c:02x}" for c in (*range(32), *range(127, 160))}
_ESCAPED_BUT_LINES = {c: text for c, text in _ESCAPED.items() if c not in b"\n\t"}


class ReadableFormatter(logging.Formatter):
    """Control characters as `\\x1b`, so that no text can write to a terminal, or begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        text = f"{text[:MAX_CHARACTERS]}…" if len(text) > MAX_CHARACTERS else text
        line = text.translate(_ESCAPED)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info).translate(_ESCAPED_BUT_LINES)
        return line


def log_readably() -> None:
    """Send warnings and errors to stderr, unless the program has set up logging itself."""
    if not logging.root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(ReadableFormatter())
        handler.setLevel(logging.WARNING)
        logging.root.addHandler(handler)
