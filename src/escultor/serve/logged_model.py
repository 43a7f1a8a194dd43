"""A model in this process whose answers are durable in the log before they are delivered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from escultor.config import Serve
from escultor.errors import ConfigError
from escultor.ids import new_id
from escultor.model.generate import generate
from escultor.model.loaded import Loaded
from escultor.rng import derive_seed
from escultor.serve.interactions import Outcome, Placement, Request, interaction, machine_cost_usd
from escultor.store.log import Log
from escultor.types import Feedback, Interaction, Sampling, Usage

SEEDS = 1 << 31  # other programs take no larger ones


class LoggedModel:
    """One model behind one alias. Batches what it is given; writes first, answers second."""

    def __init__(
        self,
        loaded: Loaded,
        placement: Placement,
        log: Log,
        settings: Serve,
        clock: Callable[[], float] = time.time,
    ):
        """Raises ConfigError as `refuse_without_text`."""
        refuse_without_text(settings)
        self.loaded, self.placement, self.log = loaded, placement, log
        self.settings, self.clock = settings, clock

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Interaction]:
        """Answer all requests; every interaction is in the log when this returns.

        Each request is drawn with a seed of its own, made of the sampling's and its id, so that one who asks
        again is answered anew; the seed is in its row, by which the answer can be repeated. The latency
        of a request is that of the batch it was answered in; its cost are its seconds of the machine.
        """
        named = [replace(r, id=r.id or new_id("chatcmpl")) for r in requests]
        drawn = [replace(sampling, seed=derive_seed(sampling.seed, r.id) % SEEDS) for r in named]
        prompts = [self.loaded.chat.prompt(r.messages) for r in named]
        began = time.perf_counter()
        answers = generate(self.loaded, prompts, drawn, self.settings.batch_size)
        seconds = time.perf_counter() - began
        made = []
        for request, own, answer in zip(named, drawn, answers, strict=True):
            outcome = Outcome(
                answer.text,
                answer.finish_reason,
                Usage(answer.prompt_tokens, len(answer.tokens)),
                latency_ms=1000 * seconds,
                ttft_ms=None,
                cost_usd=machine_cost_usd(answer.compute_s, self.settings.hourly_price_usd),
            )
            made.append(interaction(request, self.placement, own, outcome, self.clock()))
        self.log.append(*made)
        return made


def refuse_without_text(settings: Serve) -> None:
    """Raises ConfigError where no text may be kept: these answers are there to be learnt from."""
    if not settings.keep_text:
        raise ConfigError(
            "answers that are to be learnt from are kept with their text",
            "serve.keep_text: false",
            "true",
            "leave it at true here; `escultor serve` serves without keeping any",
        )


def record_feedback(log: Log, *events: Feedback) -> None:
    """Take in what people made of answers; durable when this returns, and idempotent on id."""
    log.append(*events)
