"""The in-process engine: answers that are durable in the log before they are delivered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from escultor.config import Serve
from escultor.ids import hash_value, new_id
from escultor.model.generate import generate
from escultor.model.load import Loaded
from escultor.store.log import Log
from escultor.types import Feedback, Interaction, Lineage, Messages, Sampling, Usage


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, by whom. `subject` is a salted hash, never a name."""

    messages: Messages
    subject: str
    lineage: Lineage | None = None
    id: str | None = None  # given by a caller that may ask again; drawn otherwise


class Engine:
    """One model behind one alias. Batches what it is given; writes first, answers second."""

    def __init__(
        self,
        loaded: Loaded,
        version: str,
        log: Log,
        settings: Serve,
        skill: str = "trinity",
        arm: str = "champion",
        clock: Callable[[], float] = time.time,
    ):
        self.loaded, self.version, self.log, self.settings = loaded, version, log, settings
        self.skill, self.arm, self.clock = skill, arm, clock

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
        price = seconds * self.settings.hourly_price_usd / 3600
        made = [
            Interaction(
                id=request.id or new_id("chatcmpl"),
                time=self.clock(),
                skill=self.skill,
                subject=request.subject,
                version=self.version,
                arm=self.arm,
                propensity=1.0,
                messages=request.messages,
                answer=answer.text,
                finish_reason=answer.finish_reason,
                sampling=sampling,
                usage=Usage(answer.prompt_tokens, len(answer.tokens)),
                latency_ms=1000 * seconds,
                ttft_ms=None,
                cost_usd=price * (len(answer.tokens) + answer.prompt_tokens) / tokens,
                prompt_hash=hash_value(request.messages),
                lineage=request.lineage,
            )
            for request, answer in zip(requests, answers, strict=True)
        ]
        self.log.append(*made)
        return made


def record_feedback(log: Log, *events: Feedback) -> None:
    """Take in what people made of answers; durable when this returns, and idempotent on id."""
    log.append(*events)
