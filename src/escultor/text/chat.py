"""Conversations to token ids and loss mask: the only file that applies the chat template.

The template is rendered with a placeholder for each content; template text and contents are tokenised
separately, contents with control tokens disabled. So user text cannot produce a control token, no merge
crosses a boundary, and training and serving see the same prompt token for token. Contents are trimmed where
the template trims them.
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

# The placeholder of a content, between spaces that are gone where the template trims.
_SLOT = re.compile("(\u2003?)\ue000(\\d+)\ue001(\u2003?)")
_ANSWERED = ("user", "assistant")
LAYOUTS = 256  # layouts cached, one per sequence of roles


@dataclass(frozen=True, slots=True)
class Rendered:
    """The token ids of a prompt and its response. The loss mask is 1 on `response`, which ends the turn."""

    prompt: list[int]
    response: list[int]


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a template inserts a content: the message, the spaces before it, the ends that are trimmed."""

    message: int
    lead: str
    left: bool
    right: bool

    def text(self, content: str) -> str:
        content = content.lstrip() if self.left else content
        return self.lead + (content.rstrip() if self.right else content)


class ChatTemplate:
    """Encodes conversations with a tokenizer's chat template. Without a template the contents are
    concatenated, and the response ends with the end-of-text token. Reuse one instance: layouts are cached,
    and later changes of the tokenizer have no effect."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer: Any = tokenizer  # its stubs return unions that these calls never do
        if tokenizer.eos_token_id is None:
            remedy = "set tokenizer.eos_token"
            raise ModelError("the tokenizer has no end-of-text token", None, "an eos_token", remedy)
        self.eos: int = self.tokenizer.eos_token_id
        # A template that prints the date changes from day to day.
        dated = "strftime_now" in str(self.tokenizer.chat_template)
        self._layout = self._lay_out if dated else lru_cache(LAYOUTS)(self._lay_out)

    def prompt(self, messages: Messages) -> list[int]:
        """The token ids of a prompt, after which the model generates the answer."""
        if self.tokenizer.chat_template is None:
            return self._begin() + self.text("".join(m.content for m in messages))
        ids: list[int] = []
        for part in self._layout(tuple(str(m.role) for m in messages), True):
            ids += self.text(part.text(messages[part.message].content)) if isinstance(part, _Slot) else part
        return ids

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of documents to pre-train on, with the tokenizer's BOS and EOS."""
        begin = self._begin()
        return [[*begin, *ids, self.eos] for ids in self._plain.encode(texts)]

    def example(self, messages: Messages, response: str) -> Rendered:
        """A prompt and its response, which includes the token that ends the turn."""
        return Rendered(self.prompt(messages), self.response(response))

    def response(self, response: str) -> list[int]:
        """The token ids of a response, as in later turns of its conversation, with the end of the turn."""
        return self.text(self._answer.text(response)) + self.turn_end

    def text(self, text: str) -> list[int]:
        """The token ids of a text without control tokens; see `escultor.text.plain`."""
        return self._plain.encode([text])[0]

    def decode(self, ids: list[int]) -> str:
        """The text of an answer without control tokens."""
        ids = ids[:-1] if ids and ids[-1] == self.turn_end[-1] else ids
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).removeprefix(self._answer.lead)

    @property
    def lead(self) -> str:
        """The spaces that the template, and so the model, writes before an answer; not part of it."""
        return self._answer.lead

    @property
    def control(self) -> frozenset[int]:
        """The ids that only the template may produce; see `escultor.text.plain.control_ids`."""
        return self._plain.control

    @cached_property
    def turn_end(self) -> list[int]:
        """The ids that end an answer: the template's text up to its first special token; without one, up to
        its first control token; without either, all of it and the EOS."""
        if self.tokenizer.chat_template is None:
            return [self.eos]
        ids = self._encode(self._closed[1])
        for enders in (set(self.tokenizer.all_special_ids), self.control):
            for position, token in enumerate(ids):
                if token in enders:
                    return ids[: position + 1]
        return [*ids, self.eos]

    @cached_property
    def _plain(self) -> PlainText:
        return PlainText(self.tokenizer)

    @cached_property
    def _answer(self) -> _Slot:
        """The slot of an answer. A space that the tokenizer puts before every text is not written twice."""
        if self.tokenizer.chat_template is None:
            return _Slot(1, "", False, False)
        slot = self._closed[0]
        own = self.tokenizer.convert_ids_to_tokens(self.text("a")[0]).startswith("\u2581")
        return replace(slot, lead=slot.lead.removesuffix(" ")) if own else slot

    @cached_property
    def _closed(self) -> tuple[_Slot, str]:
        """The slot of a conversation's last answer, and the template's text after it. Its `lead` holds the
        spaces that the template writes before an answer but not at the end of a prompt, so that the model has
        to generate them (as in Mistral's `[/INST] answer</s>`)."""
        rendered = self._render(_ANSWERED, generation=False)
        slots = [slot for slot in _SLOT.finditer(rendered) if slot[2] == "1"]
        if not slots:
            raise ModelError("the chat template drops answers", None, "every message shown once")
        slot = slots[-1]
        prompt = _SLOT.sub("", self._render(_ANSWERED[:1], generation=True))
        before = _SLOT.sub("", rendered[: slot.start()])
        lead = before[len(prompt) :] if before.startswith(prompt) else ""
        return _Slot(1, lead if lead.isspace() else "", not slot[1], not slot[3]), rendered[slot.end() :]

    def _encode(self, text: str) -> list[int]:
        """The token ids of template text, control tokens included."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)

    def _begin(self) -> list[int]:
        """The ids that the tokenizer puts before a text: its BOS, or none."""
        if self.tokenizer.chat_template is not None and self.tokenizer.bos_token_id is not None:
            return [self.tokenizer.bos_token_id]
        ids = self.tokenizer.encode("", add_special_tokens=True)
        return [token for token in ids if token == self.tokenizer.bos_token_id][:1]

    def _render(self, roles: tuple[str, ...], generation: bool) -> str:
        turns = [{"role": r, "content": f"\u2003\ue000{i}\ue001\u2003"} for i, r in enumerate(roles)]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)
        except Exception as error:  # Jinja's errors and a template's own have no useful base class
            system = "system" in roles
            raise ModelError(
                "the chat template refuses these messages",
                str(error),
                remedy="move the system message into the user's message" if system else None,
            ) from error
        assert isinstance(text, str)
        return text

    def _lay_out(self, roles: tuple[str, ...], generation: bool) -> list[_Slot | list[int]]:
        """The layout of messages with these roles: the template's own token ids, and slots for contents."""
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
            raise ModelError("the chat template drops messages", missing, "every message shown once")
        return parts
