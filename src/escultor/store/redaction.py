"""What is kept of nouns where text may not be kept (`serve.keep_text: false`): figures, lengths, no word.

What an application itself gives a name (ids, skills, models, ratings) is no text of anybody's, and stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, cast

from escultor.types import Consent, Correction, Feedback, Interaction, Message, Remark

N = TypeVar("N", bound=Interaction | Feedback)


def redacted(noun: N, keyed: Callable[[str], str]) -> N:
    """The noun without a word of what was said; one that says none is itself.

    Equal prompts still share a hash, which `keyed` makes of the store's own salt: a guess at a prompt cannot
    be tried on it. Such answers are never learnt from. A correction is kept empty: what stood for its text
    would be learnt as an answer where the corrected one was kept with its words.
    """
    if isinstance(noun, Interaction):
        made = replace(
            noun,
            messages=tuple(Message(m.role, _size(m.content)) for m in noun.messages),
            answer=_size(noun.answer),
            prompt_hash=keyed(noun.prompt_hash),
            consent=Consent.NONE,
        )
    elif isinstance(noun, Correction):
        made = replace(noun, text="")
    elif isinstance(noun, Remark):
        made = replace(noun, text=_size(noun.text))
    else:
        made = noun
    return cast("N", made)


def _size(text: str) -> str:
    return f"[{len(text)} characters]"
