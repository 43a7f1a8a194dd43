"""Removes text from records where text may not be stored (`serve.keep_text: false`).

Figures, lengths and the names that an application gives (ids, skills, models, ratings) stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, cast

from escultor.types import Consent, Correction, Feedback, Interaction, Message, Remark, ToolCall

R = TypeVar("R", bound=Interaction | Feedback)


def redact_record(record: R, keyed_hash: Callable[[str], str]) -> R:
    """The record with every text replaced by its length; a record without text is returned unchanged.

    `keyed_hash` salts the prompt hash: equal prompts still share one, but no guess at a prompt can be
    verified. Redacted answers are never trained on. A correction is left empty: a placeholder would become a
    training target where the answer it corrects was stored with its text.
    """
    redacted: Interaction | Feedback = record
    if isinstance(record, Interaction):
        redacted = replace(
            record,
            messages=tuple(Message(m.role, _size(m.content)) for m in record.messages),
            answer=_size(record.answer),
            reasoning="",
            tool_calls=tuple(ToolCall(c.id, c.name, _size(c.arguments)) for c in record.tool_calls),
            tools="",
            parameters="",
            extras="",
            token_ids="",
            prompt_hash=keyed_hash(record.prompt_hash),
            consent=Consent.NONE,
        )
    elif isinstance(record, Correction):
        redacted = replace(record, text="")
    elif isinstance(record, Remark):
        redacted = replace(record, text=_size(record.text))
    return cast("R", redacted)


def _size(text: str) -> str:
    return f"[{len(text)} characters]"
