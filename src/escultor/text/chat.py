"""Messages to tokens: the only place that knows the chat template and the mask.

The template is rendered with a placeholder for every content; template text and contents are then
tokenised apart, contents with control tokens switched off. So user text can write no control token,
no merge crosses a border, and the prompt in training is the prompt in serving, token for token.
What a template does to a content's ends is done to it: trimmed where the template trims.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from escultor.errors import ModelError
from escultor.text.plain import PlainText
from escultor.types import Messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A content's place, between blanks that are gone where the template trims.
_SLOT = re.compile("(\u2003?)\ue000(\\d+)\ue001(\u2003?)")
_ANSWERED = ("user", "assistant")
LAYOUTS = 256  # kept, each for one order of roles


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt and the response to it, apart. The mask is 1 on `response`, which ends the turn."""

    prompt: list[int]
    response: list[int]


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a template writes a content: which message's, after what blanks, and trimmed at which ends."""

    message: int
    lead: str
    left: bool
    right: bool

    def text(self, content: str) -> str:
        content = content.lstrip() if self.left else content
        return self.lead + (content.rstrip() if self.right else content)


class ChatTemplate:
    """A tokenizer's way of writing conversations. A tokenizer without a template writes plain text:
    contents one after the other, the response closed by the end-of-text token.

    Keep one for many texts; the tokenizer and its template are taken as they are at first use.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer: Any = tokenizer  # its stubs return unions that its calls here never do
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no end-of-text token", None, "an eos_token", "set tokenizer.eos_token"
            )
        self.eos: int = self.tokenizer.eos_token_id
        # A template that tells the date says something else tomorrow.
        dated = "strftime_now" in str(self.tokenizer.chat_template)
        self._layout = self._lay_out if dated else lru_cache(LAYOUTS)(self._lay_out)

    def prompt(self, messages: Messages) -> list[int]:
        """The tokens after which the model answers."""
        if self.tokenizer.chat_template is None:
            return self._begin() + self.text("".join(m.content for m in messages))
        ids: list[int] = []
        for part in self._layout(tuple(str(m.role) for m in messages), True):
            ids += self.text(part.text(messages[part.message].content)) if isinstance(part, _Slot) else part
        return ids

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Documents to pre-train on, opened and closed by the tokenizer's own tokens."""
        begin = self._begin()
        return [[*begin, *ids, self.eos] for ids in self._plain.encode(texts)]

    def example(self, messages: Messages, response: str) -> Rendered:
        """A prompt with its response; the response includes the token that ends the turn."""
        return Rendered(self.prompt(messages), self.response(response))

    def response(self, response: str) -> list[int]:
        """A response as later turns of its conversation will show it, to the token that ends the turn."""
        return self.text(self._answer.text(response)) + self.turn_end

    def text(self, text: str) -> list[int]:
        """The tokens of a text in which control tokens are text; see `escultor.text.plain`."""
        return self._plain.encode([text])[0]

    def decode(self, ids: list[int]) -> str:
        """The text of an answer, control tokens left out."""
        ids = ids[:-1] if ids and ids[-1] == self.turn_end[-1] else ids
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).removeprefix(self._answer.lead)

    @property
    def lead(self) -> str:
        """The blanks that the model writes before an answer because the template does; no part of it."""
        return self._answer.lead

    @property
    def control(self) -> frozenset[int]:
        """The tokens that only the template may write; see `escultor.text.plain.control_ids`."""
        return self._plain.control

    @cached_property
    def turn_end(self) -> list[int]:
        """What closes an answer: the template's text up to its first special token, or else up to its
        first control token, or else all of it and the EOS."""
        if self.tokenizer.chat_template is None:
            return [self.eos]
        ids = self._encode(self._closed[1])
        for enders in (set(self.tokenizer.all_special_ids), self.control):
            for at, token in enumerate(ids):
                if token in enders:
                    return ids[: at + 1]
        return [*ids, self.eos]

    @cached_property
    def _plain(self) -> PlainText:
        return PlainText(self.tokenizer)

    @cached_property
    def _answer(self) -> _Slot:
        """Where the answer to a prompt is written. A blank that the tokenizer puts before every text by
        itself is not written a second time."""
        if self.tokenizer.chat_template is None:
            return _Slot(1, "", False, False)
        slot = self._closed[0]
        own = self.tokenizer.convert_ids_to_tokens(self.text("a")[0]).startswith("\u2581")
        return replace(slot, lead=slot.lead.removesuffix(" ")) if own else slot

    @cached_property
    def _closed(self) -> tuple[_Slot, str]:
        """The slot of an answer that is followed by nothing, and the text after it.

        Its lead are the blanks that the template writes before an answer, but not at the end of a
        prompt: the model has to write them. (Mistral's `[/INST] answer</s>` is one.)
        """
        rendered = self._render(_ANSWERED, generation=False)
        slots = [slot for slot in _SLOT.finditer(rendered) if slot[2] == "1"]
        if not slots:
            raise ModelError("the chat template leaves out answers", None, "every message shown once")
        slot = slots[-1]
        prompt = _SLOT.sub("", self._render(_ANSWERED[:1], generation=True))
        before = _SLOT.sub("", rendered[: slot.start()])
        lead = before[len(prompt) :] if before.startswith(prompt) else ""
        return _Slot(1, lead if lead.isspace() else "", not slot[1], not slot[3]), rendered[slot.end() :]

    def _encode(self, text: str) -> list[int]:
        """The tokens of template text, in which control tokens are themselves."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)

    def _begin(self) -> list[int]:
        """What the tokenizer itself puts before a text: its BOS, or nothing."""
        if self.tokenizer.chat_template is not None and self.tokenizer.bos_token_id is not None:
            return [self.tokenizer.bos_token_id]
        ids = self.tokenizer.encode("", add_special_tokens=True)
        return [token for token in ids if token == self.tokenizer.bos_token_id][:1]

    def _render(self, roles: tuple[str, ...], generation: bool) -> str:
        turns = [{"role": r, "content": f"\u2003\ue000{i}\ue001\u2003"} for i, r in enumerate(roles)]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)
        except Exception as error:  # jinja's errors share no useful base with a template's own raise
            system = "system" in roles
            raise ModelError(
                "the chat template refuses these messages",
                str(error),
                remedy="say in the user's message what the system message says" if system else None,
            ) from error
        assert isinstance(text, str)
        return text

    def _lay_out(self, roles: tuple[str, ...], generation: bool) -> list[_Slot | list[int]]:
        """What a template makes of messages with these roles: its own tokens, and slots for contents."""
        text = self._render(roles, generation)
        parts: list[_Slot | list[int]] = []
        at = 0
        for slot in _SLOT.finditer(text):
            message = int(slot[2])
            between, lead = text[at : slot.start()], ""
            if roles[message] == "assistant" and between.endswith(blanks := self._closed[0].lead):
                between, lead = between.removesuffix(blanks), self._answer.lead
            if between:
                parts.append(self._encode(between))
            parts.append(_Slot(message, lead, not slot[1], not slot[3]))
            at = slot.end()
        if text[at:]:
            parts.append(self._encode(text[at:]))
        shown = {part.message for part in parts if isinstance(part, _Slot)}
        if missing := sorted(set(range(len(roles))) - shown):
            raise ModelError("the chat template leaves out messages", missing, "every message shown once")
        return parts
