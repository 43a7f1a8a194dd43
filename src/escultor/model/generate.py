"""Answers from a model, many prompts at a time, in a given order whatever the batching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from escultor.errors import DataError
from escultor.model.load import Loaded
from escultor.rng import derive_seed
from escultor.types import Sampling


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    tokens: tuple[int, ...]  # the end-of-turn token included
    prompt_tokens: int
    finish_reason: Literal["stop", "length"]


def generate(
    loaded: Loaded, prompts: Sequence[Sequence[int]], sampling: Sampling, batch_size: int = 64
) -> list[Answer]:
    """Answer every prompt (token ids). Prompts of like length share a batch, padded on the left.

    Greedy at temperature 0. Otherwise drawn with a seed made of `sampling.seed` and the batch's own
    prompts, so that the same call gives the same answers. Raises DataError for a prompt that leaves
    no room in the model's context.
    """
    model, chat = loaded.model, loaded.chat
    context = int(getattr(model.config, "max_position_embeddings", 1 << 30))
    for at, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise DataError(
                f"prompt {at} does not fit the model's context",
                f"{len(prompt)} tokens",
                f"1 to {context - 1} tokens",
                "shorten the prompt",
            )
    stop = chat.turn_end[-1]
    answers: dict[int, Answer] = {}
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    model.eval()
    for start in range(0, len(by_length), batch_size):
        batch = by_length[start : start + batch_size]
        rows = _decode(model, [prompts[i] for i in batch], sampling, stop, context)
        for i, tokens in zip(batch, rows, strict=True):
            done = bool(tokens) and tokens[-1] == stop
            text = chat.decode(tokens)
            answers[i] = Answer(text, tuple(tokens), len(prompts[i]), "stop" if done else "length")
    return [answers[i] for i in range(len(prompts))]


@torch.inference_mode()
def _decode(
    model: Any, prompts: list[Sequence[int]], sampling: Sampling, stop: int, context: int
) -> list[list[int]]:
    width = max(len(p) for p in prompts)
    pad = model.config.pad_token_id if isinstance(model.config.pad_token_id, int) else stop
    ids = torch.full((len(prompts), width), pad)  # (B, T)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, width - len(prompt) :] = 1
    sampled = sampling.temperature > 0
    kwargs: dict[str, Any] = {"do_sample": sampled}
    if sampled:
        kwargs |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(sampling.seed, "decode", *(tuple(p) for p in prompts)))
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=min(sampling.max_new_tokens, context - width),
            eos_token_id=stop,
            pad_token_id=pad,
            use_cache=True,
            **kwargs,
        )
    rows = []
    for row in out[:, width:].tolist():
        end = row.index(stop) + 1 if stop in row else len(row)
        rows.append(row[:end])
    return rows
