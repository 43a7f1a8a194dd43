"""New answers of the champion to prompts whose answers displeased, ranked by a judge: pairs of its words."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Protocol

from escultor.config.feedback import Resampling
from escultor.cycle.steps import CycleRun
from escultor.cycle.workflow import Result
from escultor.data.jsonl_rows import build, decode, row_of
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.raters.judge import EndpointJudge, Judge, LocalJudge, ask, pair_prompt, verdict_in
from escultor.feedback.resampled_pairs import ResampledPrompt, ScoredSample, resampled_pairs
from escultor.ids import hash_value
from escultor.model.folders import resolve
from escultor.model.generate import generate
from escultor.model.load import load
from escultor.model.loaded import Loaded
from escultor.rng import derive_seed, unit
from escultor.types import Messages, Pair, Sampling, UnpairedExample

TEMPERATURE = 1.0  # the model's own distribution
WHOLE = ("stop",)  # how an answer ended that is ranked: one cut off is no answer


class Scorer(Protocol):
    """Whoever ranks answers; `name` stands for all that decides a score, and is in the origin of pairs."""

    @property
    def name(self) -> str: ...
    def score(self, prompt: Messages, answers: Sequence[str]) -> list[float]:
        """More is better; one number for each answer."""
        ...


@dataclass(frozen=True)
class JudgeScorer:
    """A judge of pairs: an answer's score is its mean verdict against the others, from -1 to 1, each two
    compared in both orders. A reply without a verdict counts as a tie."""

    judge: Judge
    memo: EvaluationCache
    progress: Callable[[str], None]

    @property
    def name(self) -> str:
        return self.judge.name

    def score(self, prompt: Messages, answers: Sequence[str]) -> list[float]:
        orders = list(permutations(range(len(answers)), 2))
        prompts = [pair_prompt(prompt, answers[a], answers[b]) for a, b in orders]
        totals = [0.0] * len(answers)
        replies = ask(self.judge, prompts, self.memo, self.progress)
        for (a, b), reply in zip(orders, replies, strict=True):
            worth = {"A": 1.0, "B": -1.0}.get(verdict_in(reply) or "", 0.0)
            totals[a] += worth
            totals[b] -= worth
        compared = 2 * max(1, len(answers) - 1)
        return [total / compared for total in totals]


def scorer_of(turn: CycleRun, settings: Resampling) -> Scorer:
    """The judge that the configuration names. Raises DataError for a folder that is no model."""
    memo = EvaluationCache(turn.flow.store.root / "cache" / "judge.jsonl")
    judge: Judge
    if settings.url is not None:
        judge = EndpointJudge(settings.url, settings.judge, os.environ.get(settings.key_env))
    else:
        from escultor.cycle.api import checkpoint_id

        folder = resolve(settings.judge)
        judge = LocalJudge(load(str(folder)), checkpoint_id(folder), turn.config.evaluation.batch_size)
    return JudgeScorer(judge, memo, turn.flow.progress.note)


def resample(
    turn: CycleRun,
    champion: str,
    displeased: Sequence[UnpairedExample],
    settings: Resampling,
    held_out: frozenset[str],
    scorer: Scorer,
) -> tuple[list[Pair], Counter[str]]:
    """Pairs of new answers to the prompts of these verdicts, and why others made none. Verdicts that pleased
    are passed over. What was drawn and ranked once is found again.
    """
    prompts = _prompts(displeased)
    chosen = sorted(prompts, key=lambda hash: (unit(0, "resample", hash), hash))[: settings.prompts]

    def work(key: str) -> tuple[Result, list[Any]]:
        counts: Counter[str] = Counter()
        if more := len(prompts) - len(chosen):
            counts["left out: more prompts to answer anew than the cap"] += more
        asked = [replace(prompts[hash], judge=scorer.name) for hash in chosen if hash not in held_out]
        counts["left out: held-out prompt"] += len(chosen) - len(asked)
        drawn = _drawn(turn, turn.load(champion), asked, settings.samples, counts)
        ranked = [
            replace(each, samples=tuple(map(ScoredSample, texts, scorer.score(each.prompt, texts))))
            for each, texts in drawn
        ]
        pairs = resampled_pairs(ranked, settings.least_gap, settings.flip_rate, counts, held_out)
        text = "".join(json.dumps(row_of(pair), ensure_ascii=False) + "\n" for pair in pairs)
        blob = turn.blobs.put_bytes(text.encode("utf-8", "surrogatepass"))
        return {"pairs": blob, "counts": dict(counts)}, []

    inputs = {
        "champion": champion,
        "prompts": chosen,
        "held_out": hash_value(sorted(held_out)),
        "scorer": scorer.name,
        "settings": settings.model_dump(),
        "max_new_tokens": turn.config.serve.max_new_tokens,
    }
    result = turn.flow.step("resample", inputs, work)
    lines = turn.blobs.get_bytes(result["pairs"]).splitlines()
    pairs = [build("pair", decode(line), Counter(), "resampled") for line in lines]
    return pairs, Counter(result["counts"])  # type: ignore[return-value]


def _prompts(verdicts: Sequence[UnpairedExample]) -> dict[str, ResampledPrompt]:
    """The prompts that displeased, by their hash, with what the verdicts on them rest on."""
    found: dict[str, ResampledPrompt] = {}
    for verdict in verdicts:
        if not verdict.desirable:
            hash = hash_value(verdict.prompt)
            known = found.get(hash, ResampledPrompt(verdict.prompt, hash, (), (), ""))
            found[hash] = replace(known, parents=(*known.parents, *verdict.origin.parents))
    return found


def _drawn(
    turn: CycleRun, loaded: Loaded, asked: Sequence[ResampledPrompt], samples: int, counts: Counter[str]
) -> list[tuple[ResampledPrompt, list[str]]]:
    """Each prompt with its different new answers, in the order drawn."""
    context = int(getattr(loaded.model.config, "max_position_embeddings", None) or 1 << 30)
    written = [(each, loaded.chat.prompt(each.prompt)) for each in asked]
    fitting = [(each, tokens) for each, tokens in written if len(tokens) < context]
    counts["left out: prompt longer than the model's context"] += len(written) - len(fitting)
    rows = [(at, tokens, n) for at, (_, tokens) in enumerate(fitting) for n in range(samples)]
    most = turn.config.serve.max_new_tokens
    drawing = [
        Sampling(TEMPERATURE, 1.0, most, derive_seed(0, "resample", fitting[at][0].prompt_hash, n))
        for at, _, n in rows
    ]
    answers = generate(loaded, [tokens for _, tokens, _ in rows], drawing, turn.config.serve.batch_size)
    texts: list[dict[str, None]] = [{} for _ in fitting]
    for (at, _, _), answer in zip(rows, answers, strict=True):
        if answer.finish_reason in WHOLE and answer.text.strip():
            texts[at][answer.text] = None
        else:
            counts["new answers that are empty or cut off"] += 1
    return [(each, list(own)) for (each, _), own in zip(fitting, texts, strict=True)]
