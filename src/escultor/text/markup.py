"""Markup of reasoning and of tool calls: control tokens that answers may write, and blocks of thinking."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Special tokens that models write within answers; added tokens that give the word to another or end a turn.
_WRITTEN = re.compile(r"think|thought|reason|tool.{0,3}call|function.?call|python.?tag", re.I)
_STRUCTURE = re.compile(
    r"user|system|human|assistant|developer|observation|(tool|function).?(response|result|output)"
    r"|turn|header|im.(start|end|sep|middle)|eo[stm]|bo[st]|(start|begin|end).of|inst\W|</?s>|pad",
    re.I,
)
_NAME = r"[\w:.-]*(?:think|thought|reason)[\w:.-]*"
# What opens a block of thinking, with its name, and what closes the block of that name.
_FORMS = (
    (rf"<({_NAME})>", "</{}>"),
    (rf"\[({_NAME})\]", "[/{}]"),
    (rf"<\|START_({_NAME})\|>", "<|END_{}|>"),
    (rf"<\|begin_of_({_NAME})\|>", "<|end_of_{}|>"),
    (r"<\|channel>(thought)", "<channel|>"),
)
_OPENERS = re.compile("|".join(opener for opener, _ in _FORMS), re.I)
_CLOSERS = re.compile("|".join(re.escape(closer).replace(r"\{\}", _NAME) for _, closer in _FORMS), re.I)
_CLOSING = re.compile(r"[<[]/|\|>")  # in every closing tag, and fast to look for
_BLANKS = re.compile(r"\s*")


def may_be_written(token: str, special: bool) -> bool:
    """Whether an answer may contain a control token of this text: markup of reasoning and of tool calls, and
    added tokens that are not special, but none that opens a role or ends a turn."""
    return bool(_WRITTEN.search(token)) or not (special or _STRUCTURE.search(token))


@dataclass(frozen=True, slots=True)
class Block:
    """A block of thinking in a generation prompt: where it begins, what opens and closes it, the blanks after
    what opens it, and whether it is still open. `opener` is empty where the prompt only closes one."""

    start: int
    opener: str
    closer: str
    blanks: str
    is_open: bool


def last_block(text: str) -> Block | None:
    """The last block of thinking in a text, or None."""
    opened, closed = [*_OPENERS.finditer(text)], [*_CLOSERS.finditer(text)]
    if not opened:
        return Block(closed[-1].start(), "", closed[-1][0], "", False) if closed else None
    last = opened[-1]
    form = last.lastindex or 1
    closer = _FORMS[form - 1][1].format(last[form])
    is_open = not closed or closed[-1].start() < last.start()
    return Block(last.start(), last[0], closer, _blanks(text, last.end()), is_open)


def _blanks(text: str, at: int) -> str:
    found = _BLANKS.match(text, at)
    return found[0] if found else ""


@dataclass(frozen=True, slots=True)
class Inline:
    """An answer that contains its reasoning: the text between the tags, and the text after them."""

    inner: str
    rest: str


def split_inline(content: str) -> Inline | None:
    """The reasoning at the beginning of an answer, up to the first closing tag (what opens it may stand in
    the prompt); None where there is none."""
    if not _CLOSING.search(content) or (closed := _CLOSERS.search(content)) is None:
        return None
    inner = (
        content[: closed.start()].lstrip() if _OPENERS.match(content.lstrip()) else content[: closed.start()]
    )
    opened = _OPENERS.match(inner)
    return Inline(inner[opened.end() :] if opened else inner, content[closed.end() :])


def ends_block(text: str) -> bool:
    """Whether a text ends with what closes a block of thinking, blanks aside."""
    block = last_block(text)
    return block is not None and not block.is_open and text.rstrip().endswith(block.closer)


def without_block(text: str, block: Block) -> str:
    """The text without the block of thinking, empty or not, that it begins with, and the blanks after it; or
    without what closes the block, where it begins with that."""
    if not text.startswith((block.opener or block.closer, block.closer)) or block.closer not in text:
        return text
    rest = text[text.index(block.closer) + len(block.closer) :]
    return rest if text.startswith(block.closer) else rest.lstrip()
