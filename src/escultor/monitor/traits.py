"""Traits of sampled answers: categories whose shares drift when people, prompts or answers change.

Of every version up to `PER_HOUR` answers an hour are sampled, by hashes of their ids, so that the cost does
not grow with traffic and two monitors draw the same ones. Failed calls and answers in shadow are left out.
A trait whose name begins with `prompt_` is of what people ask, one with `answer_` of what they got:

prompt_length, answer_length   tokens, in steps of √2
prompt_language, answer_language
prompt_skill
prompt_topic                   which of 16 clusters of words and word pairs (SimHash, Charikar 2002)
answer_end                     the finish reason
answer_refusal                 whether the answer begins with a refusal
answer_calls                   where tools are called: whether each is defined and its arguments follow
answer_form                    where the skill's answers are JSON: whether this one follows its schema
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from heapq import nsmallest
from itertools import pairwise
from zlib import crc32

from escultor.errors import EscultorError
from escultor.monitor.buckets import part_of
from escultor.skills.catalog import skill_named
from escultor.skills.refusals import begins_with_refusal
from escultor.skills.schema import check_schema, follows, parsed
from escultor.skills.skill import Skill
from escultor.strict_json import JsonObject
from escultor.text.languages import text_language
from escultor.text.normalization import words_of
from escultor.types import FAILED, AnswerTraits, Interaction, Role, ToolCall

PER_HOUR = 50
HOUR_S = 3600.0
EXCERPT = 1000  # characters that language and topic are told from
MAX_ARGUMENTS = 20_000  # characters of a call that are judged
TOPIC_BITS = 4
VALID, INVALID = "valid", "invalid"
Sample = Mapping[tuple[str, int], Sequence[AnswerTraits]]  # by version and the number of the hour
ReadTools = Callable[[str], str]  # the definitions of tools, as JSON, by their id; "" where there are none


def draw_sample(
    interactions: Iterable[Interaction],
    skills: Mapping[str, Skill],
    read_tools: ReadTools,
    unnamed: frozenset[str] = frozenset(),
    names: Container[str] = (),
) -> dict[tuple[str, int], list[AnswerTraits]]:
    """The sample of some interactions. Each answer of a subject in `unnamed`, which stands for people that
    its application does not tell apart, counts as a person's. `names` are the skills that are told apart."""
    by_hour: dict[tuple[str, int], list[tuple[int, str, Interaction]]] = {}
    for i in interactions:
        if i.finish_reason not in FAILED and i.finish_reason != "cancelled" and i.arm != "shadow":
            key = i.version, int(i.time // HOUR_S)
            by_hour.setdefault(key, []).append((crc32(i.id.encode()), i.id, i))
    return {
        key: [
            AnswerTraits(
                i.time,
                i.version,
                draw,
                crc32((id if i.subject in unnamed else i.subject).encode()),
                traits_of(i, skills, read_tools),
                skill=part_of(i, names).skill,
                arm=i.arm,
            )
            for draw, id, i in nsmallest(PER_HOUR, rows)
        ]
        for key, rows in by_hour.items()
    }


def merge_samples(a: Sample, b: Sample) -> dict[tuple[str, int], Sequence[AnswerTraits]]:
    """The sample of two logs that share no interaction."""

    def order(row: AnswerTraits) -> tuple[int, float, int]:
        return row.draw, row.time, row.person

    return {
        key: a[key] if key not in b else nsmallest(PER_HOUR, [*a.get(key, ()), *b[key]], key=order)
        for key in a.keys() | b.keys()
    }


def traits_of(i: Interaction, skills: Mapping[str, Skill], read_tools: ReadTools) -> dict[str, str]:
    """The traits of one answer."""
    asked = next((m.content for m in reversed(i.messages) if m.role is Role.USER), "")[:EXCERPT]
    traits = {
        "prompt_length": _size(i.usage.prompt_tokens),
        "prompt_language": text_language(asked),
        # A client names its skill: a name may be any text, and is kept as a number.
        "prompt_skill": str(crc32(i.skill.encode()) % 1000),
        "prompt_topic": _topic(asked),
        "answer_length": _size(i.usage.completion_tokens),
        "answer_language": text_language(i.answer[:EXCERPT]),
        "answer_end": i.finish_reason,
        "answer_refusal": "yes" if begins_with_refusal(i.answer[:EXCERPT]) else "no",
    }
    if i.tool_calls:
        traits["answer_calls"] = _validity(_are_valid(i.tool_calls, read_tools(i.tools)))
    skill = skill_named(i.skill, skills)
    if skill is not None and skill.output.kind != "text" and i.answer and not i.tool_calls:
        traits["answer_form"] = _validity(skill.output.accepts(i.answer))
    return traits


def _validity(is_valid: bool) -> str:
    return VALID if is_valid else INVALID


def _size(tokens: int) -> str:
    return f"~{2 ** (round(2 * math.log2(tokens)) / 2):.0f}" if tokens > 0 else "0"


def _topic(text: str) -> str:
    words = words_of(text)
    if not words:
        return "none"
    hashes = [crc32(part.encode()) for part in {*words, *map(" ".join, pairwise(words))}]
    # CRC is linear: a multiplication mixes its bits, of which the upper ones are taken.
    mixed = [(h * 0x9E3779B1 & 0xFFFFFFFF) ** 2 >> 32 for h in hashes]
    bits = [2 * sum(h >> (20 + bit) & 1 for h in mixed) > len(mixed) for bit in range(TOPIC_BITS)]
    return str(sum(is_set << bit for bit, is_set in enumerate(bits)))


def _are_valid(calls: Sequence[ToolCall], tools: str) -> bool:
    """Whether every call is of a defined tool, with arguments by its schema."""
    try:
        listed = parsed(tools) if tools else []
        functions = [t.get("function", t) for t in listed if isinstance(t, dict)]
        schemas = {f.get("name"): f.get("parameters") or {} for f in functions if isinstance(f, dict)}
        return all(c.name in schemas and _follow(c.arguments, schemas[c.name]) for c in calls)
    except (EscultorError, RecursionError):
        return False


def _follow(arguments: str, schema: JsonObject) -> bool:
    if len(arguments) > MAX_ARGUMENTS:
        return True
    check_schema(schema)
    given = parsed(arguments or "{}")
    return isinstance(given, dict) and follows(given, schema)
