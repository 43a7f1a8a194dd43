"""A model in this process whose answers are durable in the log before they are delivered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from escultor.config import Serve
from escultor.model.generate import generate
from escultor.model.load import Loaded
from escultor.serve.recording import Outcome, Placement, Request, interaction, machine_cost_usd
from escultor.store.log import Log
from escultor.types import Feedback, Interaction, Sampling, Usage


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
        self.loaded, self.placement, self.log = loaded, placement, log
        self.settings, self.clock = settings, clock

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Interaction]:
        """Answer all requests; every interaction is in the log when this returns.

        The latency of a request is that of the batch it was answered in; its cost is its share of
        the batch's seconds at the machine's hourly price.
        """
        prompts = [self.loaded.chat.prompt(r.messages) for r in requests]
        began = time.perf_counter()
        answers = generate(self.loaded, prompts, sampling, self.settings.batch_size)
        seconds = time.perf_counter() - began
        tokens = sum(len(a.tokens) + a.prompt_tokens for a in answers) or 1
        made = []
        for request, answer in zip(requests, answers, strict=True):
            share = seconds * (len(answer.tokens) + answer.prompt_tokens) / tokens
            outcome = Outcome(
                answer.text,
                answer.finish_reason,
                Usage(answer.prompt_tokens, len(answer.tokens)),
                latency_ms=1000 * seconds,
                ttft_ms=None,
                cost_usd=machine_cost_usd(share, self.settings.hourly_price_usd),
            )
            made.append(interaction(request, self.placement, sampling, outcome, self.clock()))
        self.log.append(*made)
        return made


def record_feedback(log: Log, *events: Feedback) -> None:
    """Take in what people made of answers; durable when this returns, and idempotent on id."""
    log.append(*events)
