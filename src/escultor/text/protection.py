"""Which control tokens the contents of a conversation may write, and how the others stay text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from escultor.text.encoding import TextEncoder
from escultor.text.literals import Literals
from escultor.text.markup import may_be_written
from escultor.text.plain import special_ids
from escultor.text.rendering import Renderer, parse_tools
from escultor.types import Message, Messages, Role, ToolCall

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Protection:
    """Makes messages ready for a template, with the literals broken up that would become control tokens: all
    of them in messages of users, systems and tools; those that open roles or end turns in those of the
    assistant, who may write markup of reasoning and tool calls."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, renderer: Renderer, encoder: TextEncoder):
        self.renderer, self._encoder = renderer, encoder
        known: Any = tokenizer
        special = set(known.convert_ids_to_tokens(sorted(special_ids(tokenizer))))
        talk = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]
        text = renderer.render(talk, None, True)
        names = encoder.literals.texts
        around = {text[i:j] for i, j in encoder.literals.find(text) if not may_be_written(text[i:j], True)}
        self.writable = frozenset(name for name in names - around if may_be_written(name, name in special))
        self.structure = Literals(names - self.writable)

    def choose_mark(self, messages: Messages, tools: str) -> str:
        """The character to break up literals with; "" where nothing is to be broken up, as nearly always."""
        texts = [(text, self._literals(message)) for message in messages for text in _texts(message) if text]
        return self._encoder.choose_mark([*texts, (tools, self._encoder.literals)] if tools else texts)

    def message_dicts(self, messages: Messages, mark: str) -> list[dict[str, Any]]:
        if mark:
            messages = tuple(_protected(message, self._literals(message), mark) for message in messages)
        return [self.renderer.message_dict(message) for message in messages]

    def tool_definitions(self, tools: str, mark: str) -> Any:
        return parse_tools(self._encoder.literals.break_up(tools, mark) if mark else tools)

    def _literals(self, message: Message) -> Literals:
        return self.structure if message.role == Role.ASSISTANT else self._encoder.literals


def _texts(message: Message) -> tuple[str, ...]:
    """All texts of a message that somebody wrote."""
    calls = (text for call in message.tool_calls for text in (call.id, call.name, call.arguments))
    return (message.content, message.reasoning, message.tool_call_id, message.name, *calls)


def _protected(message: Message, literals: Literals, mark: str) -> Message:
    def protect(text: str) -> str:
        return literals.break_up(text, mark)

    calls = (ToolCall(*map(protect, (call.id, call.name, call.arguments))) for call in message.tool_calls)
    return replace(
        message,
        content=protect(message.content),
        reasoning=protect(message.reasoning),
        tool_calls=tuple(calls),
        tool_call_id=protect(message.tool_call_id),
        name=protect(message.name),
    )
