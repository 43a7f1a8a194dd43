"""What transformers says while a model is loaded, run and saved: in one line each, in the words of a warning,
without its progress bars and without what is taken care of here."""

from __future__ import annotations

import logging

# Beginnings of messages that a user can do nothing about, and why.
ANSWERED = (
    "The following generation flags are not valid",  # they are not used here, and saved again as they are
    "Token indices sequence length is longer than",  # rows are measured, dropped and counted before a run
)


def plain_messages() -> None:
    """Let transformers' own handler write its messages as warnings of one line. Errors and warnings stay."""
    from transformers.utils import logging as library

    library.disable_progress_bar()
    for handler in library.get_logger("transformers").handlers:
        if type(handler) is logging.StreamHandler and not isinstance(handler.formatter, _OneLine):
            handler.setFormatter(_OneLine())
            handler.addFilter(lambda record: not record.getMessage().startswith(ANSWERED))


class _OneLine(logging.Formatter):
    """A message as one line, with the library that it comes from."""

    def format(self, record: logging.LogRecord) -> str:
        return f"warning: {' '.join(record.getMessage().split())} ({record.name.partition('.')[0]})"
