"""What a model has to write after a prompt so that its answer is rendered as the chat template renders it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from escultor.errors import ModelError
from escultor.text.markup import ends_block, last_block, split_inline, without_block
from escultor.text.protection import Protection
from escultor.types import Message, Messages, Role

SENTINELS = "Zqxj", "Wkvo"  # answers that no template contains, without a letter in common
ASKED = (Message(Role.USER, "a"),)
DEFAULTED = "conversations in the default chat template: the tokenizer has none"
_TAIL = 256  # last characters of a prompt that may end a block of thinking
_REASONING_KEYS = "reasoning_content", "thinking"  # of a message, for templates
_NOT_LEARNT = "reasoning not learnt: the prompt ends it, or the template does not show it"
_LEFT_OUT = "text of an answer not learnt: the chat template leaves it out"
_NO_TOOLS = "tool definitions not shown: the chat template has no place for them"


@dataclass(frozen=True, slots=True)
class Turn:
    """The text of a prompt, and of what the model writes after it. `mark`: see `MarkedText`."""

    prompt: str
    answer: str
    mark: str
    notes: tuple[str, ...]


class Mismatch(Exception):
    """An answer is rendered otherwise than after its prompt; the two texts, and their mark."""

    def __init__(self, prompt: str, whole: str, mark: str):
        super().__init__(prompt, whole, mark)
        self.prompt, self.whole, self.mark = prompt, whole, mark


class TurnWriter:
    """Makes turns of conversations, and remembers how the template treats answers. `eos`: the end of text."""

    def __init__(self, protection: Protection, eos: str):
        self._protection, self._renderer, self._eos = protection, protection.renderer, eos

    def prompt(
        self, messages: Messages, tools: str, variables: Mapping[str, Any] | None = None
    ) -> tuple[str, str]:
        """The text of a prompt, and its mark; `variables` are further ones of the template."""
        mark = self._protection.choose_mark(messages, tools)
        dicts, definitions = self._dicts(messages, mark), self._protection.tool_definitions(tools, mark)
        text = self._renderer.render(dicts, definitions, True, variables)
        self._renderer.check_complete(messages)
        return text, mark

    def generation(self, variables: Mapping[str, Any], whole: bool = False) -> str:
        """What the template writes for the next answer after a short question, or the `whole` prompt."""
        asked = self._dicts(ASKED, "")
        prompt = self._renderer.render(asked, None, True, variables)
        if whole:
            return prompt
        return prompt[shared_length(prompt, self._renderer.render(asked, None, False, variables)) :]

    def turn(self, messages: Messages, answer: Message, tools: str) -> Turn:
        """A prompt and what the model writes after it. Raises Mismatch where that is unknown."""
        mark = self._protection.choose_mark((*messages, answer), tools)
        before, definitions = self._dicts(messages, mark), self._protection.tool_definitions(tools, mark)
        prompt = self._renderer.render(before, definitions, True)
        self._renderer.check_complete(messages)
        forms = self._dicts(self._forms(answer), mark)
        tried = [(form, self._written(before, form, definitions, prompt)) for form in forms]
        found = [(_visible(form["content"]) in text, text) for form, text in tried if text is not None]
        if not found:
            raise Mismatch(prompt, self._renderer.render([*before, forms[-1]], definitions, False), mark)
        is_whole, written = next((each for each in found if each[0]), found[-1])
        reasoning = self._reasoning(answer, mark)
        is_closed = bool(reasoning) and ends_block(prompt[-_TAIL:])
        if reasoning and (is_closed or reasoning not in written):
            written = self._without_field(before, forms[-1], definitions, prompt, is_closed) or written
        if missing := [call.name for call in answer.tool_calls if call.name not in written]:
            raise ModelError("the chat template drops tool calls", missing, "a template that knows tools")
        notes = {
            DEFAULTED: self._renderer.is_default and (len(messages) > 1 or bool(tools)),
            _LEFT_OUT: not is_whole,
            _NOT_LEARNT: reasoning not in written,
            _NO_TOOLS: bool(tools) and not self._renderer.shows_tools,
        }
        held = tuple(note for note, holds in notes.items() if holds)
        return Turn(prompt, self._cut(written), mark, held)

    def _without_field(
        self, before: Sequence[dict[str, Any]], form: dict[str, Any], tools: Any, prompt: str, is_closed: bool
    ) -> str | None:
        """What follows the prompt for an answer whose reasoning the template does not show: the answer alone
        where the prompt has ended the reasoning; else with the block before it, which the model writes and
        such templates strip from earlier turns."""
        inline = split_inline(form["content"])
        content = form["content"] if inline is None else inline.rest.lstrip()
        bare = {key: value for key, value in form.items() if key not in _REASONING_KEYS}
        written = self._written(before, bare | {"content": content}, tools, prompt)
        if written is None or inline is None or is_closed:
            return written
        block = form["content"][: len(form["content"]) - len(content)]
        shown = written.lstrip()
        return written[: len(written) - len(shown)] + block + shown

    def _reasoning(self, answer: Message, mark: str) -> str:
        """The reasoning of an answer, given apart or within its content, as the template gets to see it."""
        inline = None if answer.reasoning else split_inline(answer.content)
        reasoning = (inline.inner if inline else answer.reasoning).strip()
        return self._protection.structure.break_up(reasoning, mark) if mark else reasoning

    def _forms(self, answer: Message) -> Messages:
        """The ways to give an answer to the template, the preferred first: its reasoning in a field where the
        template has one, within the content where not."""
        inline = None if answer.reasoning else split_inline(answer.content)
        if inline and inline.inner.strip() and self._has_reasoning_field and not self._reads_inline:
            return replace(answer, content=inline.rest.lstrip(), reasoning=inline.inner.strip()), answer
        if answer.reasoning and not self._has_reasoning_field:
            block = f"<think>\n{answer.reasoning}\n</think>"
            content = f"{block}\n\n{answer.content}" if answer.content else block
            return (replace(answer, content=content, reasoning=""),)
        return (answer,)

    def _written(
        self, before: Sequence[dict[str, Any]], answer: dict[str, Any], tools: Any, prompt: str
    ) -> str | None:
        """What has to follow the prompt so that the answer is rendered right; None where that is unknown."""
        whole = self._renderer.render([*before, answer], tools, False)
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        generation = prompt[shared_length(prompt, self._renderer.render(before, tools, False)) :]
        block = last_block(generation)
        header = prompt[: len(prompt) - len(generation) + block.start] if block else prompt.rstrip()
        if not whole.startswith(header):
            return self._written_after_question(before, answer, tools, whole)
        rest = whole[len(header) :]
        if block is None:
            return rest.lstrip()
        if not block.is_open:
            return without_block(rest, block)
        if rest.startswith(block.opener):
            rest = rest.removeprefix(block.opener)
            return rest[len(block.blanks) :] if rest.startswith(block.blanks) else rest.lstrip()
        is_closed = rest.startswith(block.closer)
        rest = rest.removeprefix(block.closer)
        if inline := split_inline(answer["content"]):
            blanks = "" if is_closed else inline.rest[: len(inline.rest) - len(inline.rest.lstrip())]
            rest = rest.removeprefix(blanks)
            inner = inline.inner.removeprefix(block.blanks) if block.blanks else inline.inner.lstrip()
            return inner + block.closer + blanks + rest
        line = "\n" if "\n" in block.blanks and not is_closed else ""
        return f"{answer.get('reasoning_content', '')}{line}{block.closer}{line * 2}{rest}"

    def _written_after_question(
        self, before: Sequence[dict[str, Any]], answer: dict[str, Any], tools: Any, whole: str
    ) -> str | None:
        """As `_written`, where the answer changes how the template writes earlier turns: what it writes after
        the last question alone."""
        asked = [message for message in before if message["role"] == Role.USER][-1:]
        if len(before) == len(asked):
            return None
        written = self._written(asked, answer, tools, self._renderer.render(asked, tools, True))
        return written if written and whole.endswith(written) else None

    def _cut(self, written: str) -> str:
        """What is written up to the token that ends the turn, and the end of text where there is none."""
        closing, end = self._closing
        if written.endswith(closing):
            return written[: len(written) - len(closing)] + end
        last = max((end for _, end in self._protection.structure.find(written)), default=0)
        return written[:last] if last and not written[last:].strip() else written + self._eos

    @cached_property
    def _closing(self) -> tuple[str, str]:
        """What the template writes after a last answer, and the part of it that the model has to write: all
        up to the first tokens that end something (to the end of text where they are tags with a name between
        them), and the end of text where there are none."""
        _, found, closing = self._probe(Message(Role.ASSISTANT, SENTINELS[0])).rpartition(SENTINELS[0])
        if not found:
            raise ModelError("the chat template drops answers", None, "every message shown once")
        end = 0
        for start, stop in self._protection.structure.find(closing):
            between = closing[end:start].strip()
            if end and (closing[:end].endswith(self._eos) or (start > end and not between)):
                break
            if end and between and self._eos not in closing[start:]:
                break
            end = stop
        return closing, closing[:end] if end else closing + self._eos

    @cached_property
    def frames(self) -> tuple[str, str, str]:
        """What the model writes before an answer, and, with reasoning, before and after the reasoning; the
        last two are empty where the template does not show reasoning that is given apart."""
        content, reasoning = SENTINELS
        plain = self.turn(ASKED, Message(Role.ASSISTANT, content), "").answer.partition(content)[0]
        thought = self.turn(ASKED, Message(Role.ASSISTANT, content, reasoning=reasoning), "").answer
        before, found, after = thought.partition(content)[0].partition(reasoning)
        return (plain, before, after) if found and self._has_reasoning_field else (plain, "", "")

    @cached_property
    def _has_reasoning_field(self) -> bool:
        """Whether the template shows an answer's reasoning that is given apart from it."""
        content, reasoning = SENTINELS
        return reasoning in self._probe(Message(Role.ASSISTANT, content, reasoning=reasoning))

    @cached_property
    def _reads_inline(self) -> bool:
        """Whether the template reads reasoning within the content as it reads the field."""
        content, reasoning = SENTINELS
        inline = Message(Role.ASSISTANT, f"<think>\n{reasoning}\n</think>\n\n{content}")
        return self._probe(inline) == self._probe(Message(Role.ASSISTANT, content, reasoning=reasoning))

    def _probe(self, answer: Message) -> str:
        return self._renderer.render(self._dicts((*ASKED, answer), ""), None, False)

    def _dicts(self, messages: Messages, mark: str) -> list[dict[str, Any]]:
        return self._protection.message_dicts(messages, mark)


def shared_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The length of what two sequences begin with alike."""
    shorter = min(len(one), len(other))
    return next((i for i in range(shorter) if one[i] != other[i]), shorter)


def _visible(content: str) -> str:
    """The part of an answer that every template shows: without its reasoning and outer blanks."""
    inline = split_inline(content)
    return (inline.rest if inline else content).strip()
