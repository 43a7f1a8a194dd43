"""Messages to tokens: the only place that knows the chat template and the mask.

The template is rendered with a placeholder for every content; template text and contents are then
tokenised apart, contents with control tokens switched off. So user text can write no control token,
no merge crosses a border, and the prompt in training is the prompt in serving, token for token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escultor.errors import ModelError
from escultor.types import Message, Messages, Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt and the response to it, apart. The mask is 1 on `response`, which ends the turn."""

    prompt: list[int]
    response: list[int]


class Chat:
    """A tokenizer's way of writing conversations. A tokenizer without a template writes plain text:
    contents one after the other, the response closed by the end-of-text token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer: Any = tokenizer  # its stubs return unions that its calls here never do
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no end-of-text token", None, "an eos_token", "set tokenizer.eos_token"
            )
        self.eos: int = self.tokenizer.eos_token_id

    def prompt(self, messages: Messages) -> list[int]:
        """The tokens after which the model answers."""
        if self.tokenizer.chat_template is None:
            return self._begin() + self.text("".join(m.content for m in messages))
        return self._fill(messages, generation=True)

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Documents to pre-train on, opened and closed by the tokenizer's own tokens."""
        if not texts:
            return []
        coded = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,  # texts longer than the context are cut into windows by who asked
        )
        begin = self._begin()
        return [[*begin, *ids, self.eos] for ids in coded["input_ids"]]

    def example(self, messages: Messages, response: str) -> Rendered:
        """A prompt with its response; the response includes the token that ends the turn."""
        prompt = self.prompt(messages)
        return Rendered(prompt, self.text(response) + self.turn_end)

    def text(self, text: str) -> list[int]:
        """The tokens of a text in which control tokens are text."""
        return self._encode(text, split_special_tokens=True)

    def decode(self, ids: list[int]) -> str:
        """The text of an answer, control tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    @property
    def turn_end(self) -> list[int]:
        """What closes an answer: the template's text up to its first special token, or the EOS."""
        if self.tokenizer.chat_template is None:
            return [self.eos]
        closed = (Message(Role.USER, "q"), Message(Role.ASSISTANT, "a"))
        rendered = self._render(closed, generation=False)
        tail = rendered[rendered.rindex("\ue001") + 1 :]
        ids = self._encode(tail)
        special = set(self.tokenizer.all_special_ids)
        for at, token in enumerate(ids):
            if token in special:
                return ids[: at + 1]
        return [*ids, self.eos]

    def _encode(self, text: str, add_special_tokens: bool = False, **kwargs: bool) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens, **kwargs)

    def _begin(self) -> list[int]:
        """What the tokenizer itself puts before a text: its BOS, or nothing."""
        if self.tokenizer.chat_template is not None and self.tokenizer.bos_token_id is not None:
            return [self.tokenizer.bos_token_id]
        ids = self._encode("", add_special_tokens=True)
        return [token for token in ids if token == self.tokenizer.bos_token_id][:1]

    def _render(self, messages: Messages, generation: bool) -> str:
        turns = [{"role": str(m.role), "content": f"\ue000{i}\ue001"} for i, m in enumerate(messages)]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)
        except Exception as error:  # jinja's errors share no useful base with a template's own raise
            raise ModelError("the chat template refuses these messages", str(error)) from error
        assert isinstance(text, str)
        return text

    def _fill(self, messages: Messages, generation: bool) -> list[int]:
        ids: list[int] = []
        text = self._render(messages, generation)
        shown = [int(found) for found in _MARK.findall(text)]
        if missing := sorted(set(range(len(messages))) - set(shown)):
            raise ModelError("the chat template leaves out messages", missing, "every message shown once")
        for at, part in enumerate(_MARK.split(text)):
            if at % 2:
                ids += self.text(messages[int(part)].content)
            elif part:
                ids += self._encode(part)
        return ids
