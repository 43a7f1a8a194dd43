"""Conversations as text, by the model's own chat template."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from escultor.errors import DataError, ModelError
from escultor.text.sandbox import BoundedTemplate
from escultor.types import Message, Messages, Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Used where a tokenizer has no template. A single message of a user is continued as text; in a conversation
# every turn has its role and ends with the end-of-text token, which no content can write.
DEFAULT_TEMPLATE = (
    "{{ begin }}"
    "{%- if not tools and messages[0]['role'] == 'user' and not messages[-1]['tool_calls']"
    " and messages | length == (1 if add_generation_prompt else 2) -%}"
    "{{ messages[0]['content'] }}"
    "{% if not add_generation_prompt %}{{ messages[1]['content'] + eos_token }}{% endif %}"
    "{%- else -%}"
    "{% if tools %}{{ 'Tools: ' + tools | tojson + eos_token + '\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{% for call in message['tool_calls'] %}{{ '\n' + call['function'] | tojson }}{% endfor %}"
    "{{ eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    "{%- endif -%}"
)


class Renderer:
    """Renders messages given as `message_dict` makes them. `date` is what the template takes for today's."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, date: datetime.date | None, begin: str):
        self._tokenizer: Any = tokenizer
        self._names = {**self._tokenizer.special_tokens_map, "begin": begin}
        self._date = date
        self._compiled: dict[bool, Any] = {}  # with tools, without
        self._complete: set[tuple[tuple[str, bool, bool], ...]] = set()  # shapes that are shown whole
        self.is_default = self._tokenizer.chat_template is None

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Any,
        generation: bool,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a conversation, with the header of the next answer where `generation`; `variables` are
        further ones of the template. Raises ModelError where the template refuses the messages."""
        date = {} if self._date is None else {"strftime_now": self._date.strftime}
        try:
            return self._template(bool(tools)).render(
                messages=messages,
                tools=tools or None,
                documents=None,
                add_generation_prompt=generation,
                **self._names,
                **date,
                **(variables or {}),
            )
        except ModelError:  # beyond the limits of a template
            raise
        except Exception as error:  # Jinja's errors and a template's own have no useful base class
            system = any(message["role"] == "system" for message in messages)
            raise ModelError(
                "the chat template refuses these messages",
                str(error),
                remedy="move the system message into the user's message" if system else None,
            ) from error

    def check_complete(self, messages: Messages) -> None:
        """Raise ModelError where the template drops a message or a call of a tool from such messages."""
        shape = tuple((message.role, bool(message.content), bool(message.tool_calls)) for message in messages)
        if shape in self._complete:
            return
        marks = [f"Zq{i}x" if message.content else "" for i, message in enumerate(messages)]
        shown = [self.message_dict(replace(m, content=mark)) for m, mark in zip(messages, marks, strict=True)]
        try:
            text = self.render(shown, None, True)
        except ModelError:  # a template that looks into contents
            text = "".join(marks) + "".join(call.name for message in messages for call in message.tool_calls)
        names = [[call.name for call in message.tool_calls] for message in messages]
        if missing := [
            i
            for i, mark in enumerate(marks)
            if mark not in text or any(name not in text for name in names[i])
        ]:
            raise ModelError("the chat template drops messages", missing, "every message shown once")
        self._complete.add(shape)

    @cached_property
    def shows_tools(self) -> bool:
        """Whether the template shows the definitions of tools."""
        tool = {"type": "function", "function": {"name": "Zqx", "description": "a", "parameters": {}}}
        tool["function"]["parameters"] = {"type": "object", "properties": {}}
        return "Zqx" in self.render([{"role": "user", "content": "a"}], [tool], True)

    def message_dict(self, message: Message) -> dict[str, Any]:
        """A message as templates expect it: keys without a value are absent."""
        role = str(message.role)
        made: dict[str, Any] = {"role": role, "content": message.content}
        if message.role == Role.DEVELOPER and not self._knows_developer:
            made["role"] = str(Role.SYSTEM)
        if message.reasoning:
            made |= {"reasoning_content": message.reasoning, "thinking": message.reasoning}
        if message.tool_calls:
            made["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": self._arguments(call.arguments)},
                }
                for call in message.tool_calls
            ]
        return made | {key: value for key in ("tool_call_id", "name") if (value := getattr(message, key))}

    def _arguments(self, text: str) -> Any:
        if self._arguments_as_text:
            return text
        try:
            return json.loads(text)
        except ValueError:
            return text

    @cached_property
    def _arguments_as_text(self) -> bool:
        """Whether the template takes the arguments of a call as JSON text alone."""
        call = {"id": "call00000", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
        asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        try:
            self.render(asked, None, False)
            return False
        except ModelError:
            call["function"] = {"name": "f", "arguments": '{"a": 1}'}
        try:
            self.render(asked, None, False)
            return True
        except ModelError:
            return False

    @cached_property
    def _knows_developer(self) -> bool:
        """Whether the template shows a developer's message."""
        said = [{"role": "developer", "content": "Zqx"}, {"role": "user", "content": "a"}]
        try:
            return "Zqx" in self.render(said, None, True)
        except ModelError:
            return False

    def _template(self, with_tools: bool) -> Any:
        if with_tools not in self._compiled:
            source = DEFAULT_TEMPLATE
            if not self.is_default:
                source = self._tokenizer.get_chat_template(None, [{}] if with_tools else None)
            try:
                self._compiled[with_tools] = BoundedTemplate(source)
            except ModelError:
                raise
            except Exception as error:  # a syntax error, for which Jinja has several classes
                raise ModelError("the chat template cannot be read", str(error)) from error
        return self._compiled[with_tools]


def parse_tools(tools: str) -> Any:
    """The definitions of tools from their JSON text; None for an empty one. Raises DataError."""
    if not tools:
        return None
    try:
        parsed = json.loads(tools)
    except ValueError as error:
        raise DataError("the definitions of tools", str(error), "a JSON list of tools") from error
    if not isinstance(parsed, list):
        raise DataError("the definitions of tools", type(parsed).__name__, "a JSON list of tools")
    return parsed or None
