"""Pairs of new answers: to prompts whose answers displeased, the model answers again a few times, and a
judge scores the samples. Who draws and scores them is outside of this file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from escultor.errors import DataError
from escultor.ids import hash_value
from escultor.types import Messages, Origin, Pair

RULE = "resampled/1"


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """One new answer and the judge's score; more is better."""

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class ResampledPrompt:
    """The new answers to one prompt."""

    prompt: Messages
    prompt_hash: str
    parents: tuple[str, ...]  # the answers that displeased
    samples: tuple[ScoredSample, ...]
    judge: str  # name


def resampled_pairs(
    prompts: Iterable[ResampledPrompt],
    min_gap: float,
    flip_rate: float,
    counts: Counter[str],
    held_out: frozenset[str] = frozenset(),
) -> list[Pair]:
    """The best sample over the worst, where the judge sees a gap of at least `min_gap`; one pair a prompt.

    `flip_rate` is how often the judge is wrong about two answers. The verdicts on the old answers chose the
    prompt and are not the label of its pair, so other rules may use them. Raises DataError for a gap or a
    rate out of range.
    """
    if not min_gap >= 0 or not 0 <= flip_rate < 0.5:
        got = f"gap {min_gap}, flip rate {flip_rate}"
        raise DataError("samples cannot be paired", got, "a gap >= 0, 0 <= flip rate < 0.5")
    pairs: dict[str, Pair] = {}
    for resampled in prompts:
        if resampled.prompt_hash in held_out:
            counts["left out: held-out prompt"] += 1
            continue
        ranked = sorted(resampled.samples, key=lambda s: (s.score, s.text))
        if len(ranked) < 2 or ranked[0].text == ranked[-1].text:
            counts["no pair: all new answers are alike"] += 1
        elif ranked[-1].score - ranked[0].score < min_gap or ranked[-1].score == ranked[0].score:
            counts["no pair: the judge sees no difference"] += 1
        else:
            best, worst = ranked[-1].text, ranked[0].text
            origin = Origin(tuple(sorted(resampled.parents)), f"{RULE};{resampled.judge}")
            id = hash_value([resampled.prompt_hash, best, worst])
            pairs[id] = Pair(id, resampled.prompt, best, worst, origin, flip_rate=flip_rate)
    return [pairs[id] for id in sorted(pairs)]
