"""Reasoning apart from the answer: how a template is asked for it, and where it ends in a model's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from escultor.errors import DataError, ModelError
from escultor.text.markup import last_block
from escultor.text.turns import TurnWriter

THINK = {"<think>": "</think>"}  # what reasoning is written between where the template has no way of its own
_SWITCHES = "enable_thinking", "thinking"  # variables by which templates switch reasoning on and off
_LEVEL = "reasoning_effort"  # the variable of templates that know how much
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}
_LONGEST_BLANK = 64  # characters that are held back at a time, since a tag may follow


@dataclass(frozen=True, slots=True)
class ReasoningMode:
    """How prompts ask for reasoning: variables of the template, what is written after its prompt, and what
    closes the block of reasoning that the prompt leaves open ("" where it leaves none)."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    ending: str = ""
    closer: str = ""

    @property
    def is_default(self) -> bool:
        """Whether prompts are those of the template by itself."""
        return not (self.variables or self.ending)


DEFAULT = ReasoningMode()


class ReasoningModes:
    """The modes of one template, by effort: "" as the template does by itself, `none`, `auto` (where the
    template knows reasoning), `on`, or one of the levels of OpenAI's `reasoning_effort`."""

    def __init__(self, writer: TurnWriter):
        self._writer = writer
        self._known: dict[str, ReasoningMode] = {}
        self._read: dict[str, bool] = {}  # variables that the template reads

    def get(self, effort: str) -> ReasoningMode:
        """The mode of an effort. Raises DataError where the template does not know reasoning."""
        if effort not in self._known:
            self._known[effort] = self._mode(effort)
        return self._known[effort]

    def _mode(self, effort: str) -> ReasoningMode:
        variables: dict[str, Any] = {}
        if effort:
            variables = {name: effort != "none" for name in _SWITCHES if self._reads(name, (False, True))}
        if effort in _LEVELS and self._reads(_LEVEL, ("low", "high")):
            variables[_LEVEL] = _LEVELS[effort]
        block = last_block(self._writer.generation(variables))
        is_open = block is not None and block.is_open
        plain, before, after = self._writer.frames
        can_reason = is_open or (block is None and bool(before or after))
        if effort == "none":
            # Without a switch, the prompt ends with what the model writes before an answer without reasoning.
            return ReasoningMode(variables, plain if can_reason and not variables else "")
        if effort not in ("", "auto") and not can_reason:
            remedy = "ask without it, or serve a model whose template knows reasoning"
            raise DataError("this model's chat template knows no reasoning", effort, "none", remedy)
        if block is None and not before:  # what follows reasoning that no known tag of the prompt opens
            return ReasoningMode(variables, "", after.strip())
        return ReasoningMode(variables, "", block.closer if block is not None and is_open else "")

    def _reads(self, name: str, values: tuple[Any, Any]) -> bool:
        """Whether a variable of the template makes a difference."""
        if name not in self._read:
            try:
                one, other = (self._writer.generation({name: value}, whole=True) for value in values)
                self._read[name] = one != other
            except ModelError:
                self._read[name] = False
        return self._read[name]


class ReasoningParser:
    """Splits an answer that comes in pieces into its reasoning and what follows it, both without the blanks
    around the tags. An answer that neither begins with what opens a block, nor continues one that its prompt
    has left open, has no reasoning; one that does not close its block is reasoning to its end."""

    def __init__(self, blocks: Mapping[str, str], closer: str = ""):
        """`blocks`: what closes a block, by what opens it; `closer`: of the block that the prompt has left
        open."""
        self._blocks, self._closer = blocks, closer
        self._held = ""  # of the text, while it may still be blanks or part of a tag
        self._read = self._at_start

    def feed(self, text: str) -> tuple[str, str]:
        """The reasoning and the answer that this piece completes."""
        return self._read(text)

    def finish(self) -> tuple[str, str]:
        """What is held at the end of the text."""
        held, self._held = self._held, ""
        return (held.rstrip(), "") if self._closer else ("", held)

    def _at_start(self, text: str) -> tuple[str, str]:
        held = self._held + text
        begun = held.lstrip()
        opener = next((each for each in self._blocks if begun.startswith(each)), "")
        if not opener and len(held) <= _LONGEST_BLANK and any(o.startswith(begun) for o in self._blocks):
            self._held = held
            return "", ""
        self._held = ""
        if opener:
            self._closer, held = self._blocks[opener], begun[len(opener) :]
        if not self._closer:
            self._read = self._in_answer
            return "", held
        self._read = self._before_reasoning
        return self._read(held)

    def _before_reasoning(self, text: str) -> tuple[str, str]:
        if begun := text.lstrip():
            self._read = self._in_reasoning
            return self._read(begun)
        return "", ""

    def _in_reasoning(self, text: str) -> tuple[str, str]:
        text = self._held + text
        inner, closed, rest = text.partition(self._closer)
        if closed:
            self._held, self._closer = "", ""
            self._read = self._before_answer
            return inner.rstrip(), self._read(rest)[1]
        sizes = range(min(len(self._closer), len(text)), 0, -1)
        part = next((n for n in sizes if text.endswith(self._closer[:n])), 0)
        end = len(text) - part
        shown = len(text[:end].rstrip())
        shown = end if end - shown > _LONGEST_BLANK else shown
        self._held = text[shown:]
        return text[:shown], ""

    def _before_answer(self, text: str) -> tuple[str, str]:
        if begun := text.lstrip():
            self._read = self._in_answer
        return "", begun

    def _in_answer(self, text: str) -> tuple[str, str]:
        return "", text
