"""What the server logs is readable, a message a line."""

import logging
import time

from hypothesis import given
from hypothesis import strategies as st

from escultor.serve.gateway.server_log import BURST, MAX_CHARACTERS, FewOfEachKind, ReadableFormatter


def formatted(text, error=None):
    info = (type(error), error, None) if error else None
    return ReadableFormatter().format(logging.LogRecord("a", 30, "b", 1, "%s", (text,), info))


@given(st.text(st.characters(min_codepoint=0, max_codepoint=0x2FF)))
def test_no_control_character_reaches_the_terminal(text):
    line = formatted(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line)
    shown = formatted(text, ValueError(text))
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in shown)


def test_escapes_are_shown_and_long_messages_cut():
    assert formatted("a\x1b]0;title\x07\nb\x9b31m") == "a\\x1b]0;title\\x07\\x0ab\\x9b31m"
    assert len(formatted("a" * 10**6)) == MAX_CHARACTERS + 1


def test_messages_of_one_kind_are_few_and_the_others_counted():
    handler, written = FewOfEachKind(window_s=0.2), []
    handler.emit = lambda record: written.append(record.getMessage())
    logger = logging.Logger("flooded")
    logger.addHandler(handler)
    until = time.monotonic() + 30
    logged = 0
    while not any("more messages" in text for text in written):
        assert time.monotonic() < until
        logger.warning("request %d is invalid", logged)
        logged += 1
    logger.warning("another kind")
    told = next(at for at, text in enumerate(written) if "more messages" in text)
    assert written[: told + 1 : told] == ["request 0 is invalid", written[told]]
    assert told == BURST
    left_out = int(written[told].split()[0])
    assert 0 < left_out <= logged - BURST
    assert written[-1] == "another kind"
