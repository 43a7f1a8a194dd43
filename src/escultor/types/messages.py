"""What is said to a model, how an answer is drawn and what it took."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn; temperature 0 is greedy decoding."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer took; `estimated` where the server that computed it did not say."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False
