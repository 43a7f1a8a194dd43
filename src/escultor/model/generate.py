"""Answers to many prompts by a model in this process, independent of how they are batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from escultor.model.decoding import Decoding, DecodingRow, Guide, answer_budget
from escultor.model.loaded import Loaded
from escultor.types import Sampling

REFILL = 4  # prompts join when 1/REFILL of the batch is free: computed together they cost less


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """An answer with its tokens, why it ended and what it cost."""

    text: str
    tokens: tuple[int, ...]  # the end-of-turn token included
    prompt_tokens: int
    finish_reason: Literal["stop", "length"]
    compute_s: float = field(default=0.0, compare=False)  # this answer's share of the time of its batches


def generate(
    loaded: Loaded,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | Sequence[Sampling],
    batch_size: int = 64,
    guides: Sequence[Guide] | None = None,
) -> list[GeneratedAnswer]:
    """Answer every prompt (token ids), in their order; `sampling` is one for all prompts, or one for each.
    `guides` say which tokens each answer may have; None: any.

    At most `batch_size` are decoded at a time; a finished answer makes room for the next prompt. Greedy at
    temperature 0; otherwise drawn with random numbers that depend on the sampling's seed and the prompt
    alone, so the rest of the batch changes no answer (up to rounding, see `escultor.model.decoding`). Raises
    TooLong for a prompt that leaves no room in the context.
    """
    model, stops = loaded.model, loaded.stops
    drawn = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
    rows = [
        DecodingRow(
            prompt, own, stops, answer_budget(model, prompt, own.max_new_tokens, f"prompt {at}"), guide
        )
        for at, (prompt, own, guide) in enumerate(
            zip(prompts, drawn, guides or [None] * len(prompts), strict=True)
        )
    ]
    model.eval()
    tokens = _decode(Decoding(model), rows, batch_size)
    return [_answer(loaded, row, tokens[row]) for row in rows]


def _decode(decoding: Decoding, rows: Sequence[DecodingRow], batch_size: int) -> dict[DecodingRow, list[int]]:
    """The tokens of all rows. Prompts of similar length join together."""
    waiting = sorted(rows, key=lambda row: -len(row.prompt))
    tokens: dict[DecodingRow, list[int]] = {row: [] for row in rows}
    while waiting or decoding.rows:
        free = batch_size - len(decoding.rows)
        if waiting and free * REFILL >= min(batch_size, len(waiting)):
            joining = [waiting.pop() for _ in range(min(free, len(waiting)))]
            drawn = decoding.join(joining)
        else:
            drawn = decoding.step()
        for row, token in drawn:
            tokens[row].append(token.id)
    return tokens


def _answer(loaded: Loaded, row: DecodingRow, tokens: list[int]) -> GeneratedAnswer:
    assert row.finish is not None
    text = loaded.chat.decode(tokens[:-1] if tokens and tokens[-1] in row.stops else tokens)
    return GeneratedAnswer(text, tuple(tokens), len(row.prompt), row.finish, row.compute_s)
