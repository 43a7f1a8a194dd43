"""A model in this process whose answers are in the log before they are returned."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from escultor.config import Serve
from escultor.errors import ConfigError
from escultor.model.generate import generate
from escultor.model.loaded import Loaded
from escultor.rng import derive_seed
from escultor.serve.in_flight import machine_cost_usd
from escultor.store.log import Log
from escultor.types import Interaction, Usage

SEEDS = 1 << 31  # other programs accept no larger seed


class LoggedModel:
    """Answers batches of requests with one model and records every answer before returning it."""

    def __init__(
        self, loaded: Loaded, version: str, log: Log, settings: Serve, clock: Callable[[], float] = time.time
    ):
        """Raises ConfigError as `require_kept_text` does."""
        require_kept_text(settings)
        self.loaded, self.version, self.log = loaded, version, log
        self.settings, self.clock = settings, clock

    def answer(self, drafts: Sequence[Interaction], seeds: Sequence[int] | None = None) -> list[Interaction]:
        """Answer drafted interactions (`draft_interaction`); all are in the log when this returns.

        Each is sampled with a seed of its own; the default is derived from its sampling's seed and its id, so
        that a repeated question gets a new answer. The seed is in the row, by which the answer can be
        reproduced. `latency_ms` is that of the whole batch, `cost_usd` that of the answer's own seconds of
        computation.
        """
        if seeds is None:
            seeds = [derive_seed(draft.sampling.seed, draft.id) % SEEDS for draft in drafts]
        samplings = [replace(draft.sampling, seed=seed) for draft, seed in zip(drafts, seeds, strict=True)]
        prompts = [self.loaded.chat.prompt(draft.messages) for draft in drafts]
        started = time.perf_counter()
        answers = generate(self.loaded, prompts, samplings, self.settings.batch_size)
        latency_ms = 1000 * (time.perf_counter() - started)
        interactions = [
            replace(
                draft,
                time=self.clock(),
                version=self.version,
                sampling=sampling,
                answer=answer.text,
                finish_reason=answer.finish_reason,
                usage=Usage(answer.prompt_tokens, len(answer.tokens)),
                latency_ms=latency_ms,
                cost_usd=machine_cost_usd(answer.compute_s, self.settings.hourly_price_usd),
            )
            for draft, sampling, answer in zip(drafts, samplings, answers, strict=True)
        ]
        self.log.append(*interactions)
        return interactions


def require_kept_text(settings: Serve) -> None:
    """Raises ConfigError where `serve.keep_text` is false: answers without text cannot be trained on."""
    if not settings.keep_text:
        raise ConfigError(
            "answers that are to be trained on need their text in the log",
            "serve.keep_text: false",
            "true",
            "set serve.keep_text to true here; `escultor serve` can serve without keeping text",
        )
