"""A skill's answers about documents: guided by a schema, of long documents by sections that are merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

from escultor.errors import InputError
from escultor.evaluate.served_model import ServedModel
from escultor.model.generate import generate
from escultor.model.loaded import Loaded, max_context_tokens
from escultor.serve.engines.guided import Guides
from escultor.skills.sections import sections
from escultor.skills.skill import Skill

T = TypeVar("T")
BATCH = 64  # prompts that are answered together
TOGETHER = 4 * BATCH  # documents given to a model at a time: a finished answer makes room for the next
SERVED_CONTEXT = 4096  # tokens of a server's model, where nobody says more
SERVED_BYTES = 3  # of a token, where its tokenizer is not known
MARGIN = 8  # tokens by which the sum of two texts' tokens may differ from those of both together
SHRINK = 2  # a digest of the sections' answers has to be this much shorter than the document


class Answerer(Protocol):
    """A model that answers documents in a skill's prompt."""

    name: str  # of its version
    limit: int  # how much of a document fits one prompt, by `count`

    def count(self, text: str) -> int:
        """Tokens of a part of a document."""
        ...

    def answers(self, documents: Sequence[str]) -> list[str]:
        """One answer to each."""
        ...


class LocalAnswerer:
    """The own weights, held to a schema token by token. Raises InputError where the context has no room."""

    def __init__(self, loaded: Loaded, name: str, skill: Skill, schema: Mapping[str, Any], context: int = 0):
        self.name, self._loaded, self._skill, self._schema = name, loaded, skill, schema
        own = max_context_tokens(loaded.model)
        overhead = len(loaded.chat.prompt(skill.prompt(""))) + skill.decoding.max_new_tokens + MARGIN
        self.limit = _room(min(own, context or own), overhead)
        head: Any = loaded.model.get_output_embeddings()
        self._guides = Guides(loaded.tokenizer, loaded.stops, int(head.weight.shape[0]))
        self.count = lru_cache(maxsize=64)(self._count)

    def _count(self, text: str) -> int:
        return len(self._loaded.tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def answers(self, documents: Sequence[str]) -> list[str]:
        prompts = [self._loaded.chat.prompt(self._skill.prompt(each)) for each in documents]
        guides = [self._guides.guide(self._schema) for _ in prompts]
        found = generate(self._loaded, prompts, self._skill.decoding, BATCH, guides)
        return [each.text for each in found]


class ServedAnswerer:
    """A model behind a server, asked for answers that follow a schema (`response_format`)."""

    def __init__(self, served: ServedModel, skill: Skill, schema: Mapping[str, Any], context: int = 0):
        self.name, self._served, self._skill, self._schema = served.version, served, skill, schema
        overhead = self.count(skill.prompt("")[-1].content + skill.instruction)
        self.limit = _room(context or SERVED_CONTEXT, overhead + skill.decoding.max_new_tokens)

    def count(self, text: str) -> int:
        return -(-len(text.encode("utf-8", "replace")) // SERVED_BYTES)

    def answers(self, documents: Sequence[str]) -> list[str]:
        prompts = [self._skill.prompt(each) for each in documents]
        found = self._served.answers(prompts, [self._skill.decoding] * len(prompts), schema=self._schema)
        return [each.text or "" for each in found]


def _room(context: int, overhead: int) -> int:
    if context - overhead < MARGIN:
        what = "the model's context has no room for a document beside the prompt and its answer"
        raise InputError(
            what, f"{context} tokens", f"at least {overhead + MARGIN} tokens", "give a smaller max_new_tokens"
        )
    return context - overhead


@dataclass(frozen=True)
class AnswerReading(Generic[T]):
    """How a skill's answers are read. `read` (answer, document); `digest`: what of an answer stands for its
    section when the whole is asked for; `merge` (the sections' answers, that to their digests or None)."""

    read: Callable[[str, str], T]
    digest: Callable[[T], str]
    merge: Callable[[Sequence[T], T | None], T]


def answer_documents(
    answerer: Answerer, reading: AnswerReading[T], documents: Sequence[str]
) -> list[tuple[T, int]]:
    """The answer to each document, and how many sections it was read in. Documents are asked together; the
    digests of long ones' sections are documents in turn, while they become shorter."""
    parts = [list(sections(each, answerer.limit, answerer.count)) for each in documents]
    flat = [part for each in parts for part in each]
    read = [reading.read(answer, part) for answer, part in zip(answerer.answers(flat), flat, strict=True)]
    found: list[list[T]] = []
    for each in parts:
        found.append(read[: len(each)])
        read = read[len(each) :]
    digests = {
        at: digest
        for at, answers in enumerate(found)
        if len(answers) > 1
        and len(digest := "\n\n".join(map(reading.digest, answers))) * SHRINK <= len(documents[at])
    }
    wholes: dict[int, T] = {}
    if digests:
        again = answer_documents(answerer, reading, list(digests.values()))
        wholes = {at: whole for at, (whole, _) in zip(digests, again, strict=True)}
    return [
        (answers[0] if len(answers) == 1 else reading.merge(answers, wholes.get(at)), len(answers))
        for at, answers in enumerate(found)
    ]
