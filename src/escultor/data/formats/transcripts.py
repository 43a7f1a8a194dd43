"""Conversations written as one text, in the spellings of models and data sets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from escultor.data.formats.chat import ROLES
from escultor.strict_json import JsonObject


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How a text begins that is a conversation, what stands before each turn with the name of its role, what
    ends a turn, and which roles go by names of their own."""

    begins: re.Pattern[str]
    turn: re.Pattern[str]
    ends: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()


def _spelling(begins: str, turn: str, *ends: str, **names: str) -> _Spelling:
    start = re.compile(rf"(?:<s>|<bos>|<\|begin_of_text\|>)?[ \n]?(?:{begins})")
    return _Spelling(start, re.compile(turn), ends, tuple(names.items()))


_HH = _spelling(r"Human:", r"(?:^|\n\n) ?(Human|Assistant):")
_ALPACA = r"(?:^|\n)### (Instruction|Input|Response):\n?"
_SPELLINGS = (
    _HH,
    _spelling(r"<\|im_start\|>", r"<\|im_start\|>(\w+)\n", "<|im_end|>"),
    _spelling(r"### Human:", r"### (Human|Assistant):"),
    _spelling(
        r"(?:Below is an instruction[^#]{0,300})?### Instruction:", _ALPACA, "</s>", "<|endoftext|>",
        instruction="user", input="user", response="assistant",
    ),
    _spelling(r"<\|start_header_id\|>", r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n*", "<|eot_id|>"),
    _spelling(r"<start_of_turn>", r"<start_of_turn>(\w+)\n", "<end_of_turn>"),
    _spelling(r"<\|(?:system|user)\|>", r"<\|(system|user|assistant)\|>\n?", "<|end|>", "</s>"),
    _spelling(r"\[INST\]", r"(\[/?INST\])", "</s>", "<s>", **{"[inst]": "user", "[/inst]": "assistant"}),
)  # fmt: skip
_SYSTEM = re.compile(r"<<SYS>>\n?((?:[^<]|<(?!</SYS>>))*)<</SYS>>")


def is_hh(value: object) -> bool:
    """Whether a value is a transcript of Anthropic's form: `\\n\\nHuman: …\\n\\nAssistant: …`."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def hh_messages(text: str) -> list[JsonObject]:
    """The messages of a transcript of Anthropic's form; a blank around each is not part of it."""
    return _messages(text.lstrip(), _HH)


def transcript_messages(text: object) -> list[JsonObject]:
    """The messages of a text that is a whole conversation, blanks around each left out; none for another
    text: it begins with a question, or a system message, and has an answer."""
    if not isinstance(text, str):
        return []
    text = text.lstrip()
    for spelling in _SPELLINGS:
        if spelling.begins.match(text):
            messages = _messages(text, spelling)
            if "assistant" in [message["role"] for message in messages]:
                return messages
    return []


def _messages(text: str, spelling: _Spelling) -> list[JsonObject]:
    pieces, names = spelling.turn.split(text), dict(spelling.names)
    messages: list[JsonObject] = []
    for name, said in zip(pieces[1::2], pieces[2::2], strict=True):
        role = names.get(name.lower()) or ROLES.get(name.lower())
        for end in spelling.ends:
            said = said.partition(end)[0]
        said = said.strip()
        if role is None:
            return []
        if role == "user" and (system := _SYSTEM.match(said)):
            messages.append({"role": "system", "content": system[1].strip()})
            said = said[system.end() :]
        if messages and messages[-1]["role"] == role == "user" and names:  # an instruction and its input
            messages[-1]["content"] += f"\n\n{said}" if said else ""
        else:
            messages.append({"role": role, "content": said.strip()})
    return messages
