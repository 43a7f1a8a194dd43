"""New answers of the champion to prompts whose answers were disliked, ranked by a judge and paired."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Protocol, cast

from escultor.code_closure import code_version
from escultor.config.feedback import Resampling
from escultor.cycle.steps import CycleRun
from escultor.cycle.workflow import Result
from escultor.data.jsonl_rows import build, decode, row_of
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.raters.judge import Judge, ask_judge, open_judge, pair_prompt, parse_verdict
from escultor.feedback.resampled_pairs import ResampledPrompt, ScoredSample, resampled_pairs
from escultor.ids import hash_value
from escultor.model.generate import generate
from escultor.model.loaded import Loaded, max_context_tokens
from escultor.rng import derive_seed, unit
from escultor.types import Messages, Pair, Sampling, UnpairedExample

TEMPERATURE = 1.0  # the model's own distribution
WHOLE = ("stop",)  # finish reasons of answers that are ranked: one that was cut off is not


class Scorer(Protocol):
    """Scores answers to a prompt. `name` identifies all that decides a score; it is in the origin of
    pairs."""

    @property
    def name(self) -> str: ...
    def score(self, prompt: Messages, answers: Sequence[str]) -> list[float]:
        """One number for each answer; more is better."""
        ...


@dataclass(frozen=True)
class JudgeScorer:
    """Scores by a judge of pairs: an answer's score is its mean verdict against the others, from -1 to 1,
    each two compared in both orders. A reply without a verdict counts as a tie."""

    judge: Judge
    cache: EvaluationCache
    progress: Callable[[str], None]

    @property
    def name(self) -> str:
        return self.judge.name

    def score(self, prompt: Messages, answers: Sequence[str]) -> list[float]:
        orders = list(permutations(range(len(answers)), 2))
        prompts = [pair_prompt(prompt, answers[a], answers[b]) for a, b in orders]
        totals = [0.0] * len(answers)
        replies = ask_judge(self.judge, prompts, self.cache, self.progress)
        for (a, b), reply in zip(orders, replies, strict=True):
            value = {"A": 1.0, "B": -1.0}.get(parse_verdict(reply) or "", 0.0)
            totals[a] += value
            totals[b] -= value
        comparisons = 2 * max(1, len(answers) - 1)
        return [total / comparisons for total in totals]


def open_scorer(cycle: CycleRun, settings: Resampling) -> Scorer:
    """The judge that the configuration names. Raises DataError for a folder that is no model."""
    batch_size = cycle.config.evaluation.batch_size
    judge = open_judge(settings.judge, settings.url, settings.key_env, batch_size)
    cache = EvaluationCache(cycle.store.root / "cache" / "judge.jsonl")
    return JudgeScorer(judge, cache, cycle.workflow.progress.note)


def resample(
    cycle: CycleRun,
    champion: str,
    verdicts: Sequence[UnpairedExample],
    settings: Resampling,
    held_out: frozenset[str],
    scorer: Scorer,
) -> tuple[list[Pair], Counter[str]]:
    """Pairs of the champion's new answers to the prompts of undesirable verdicts, and counts of the prompts
    that made none, by reason. Desirable verdicts are passed over. The step is computed once."""
    prompts = _disliked_prompts(verdicts)
    chosen = sorted(prompts, key=lambda hash: (unit(0, "resample", hash), hash))[: settings.prompts]

    def work(key: str) -> tuple[Result, list[Any]]:
        counts: Counter[str] = Counter()
        if more := len(prompts) - len(chosen):
            counts["left out: more prompts to answer anew than the cap"] += more
        allowed = [replace(prompts[hash], judge=scorer.name) for hash in chosen if hash not in held_out]
        counts["left out: held-out prompt"] += len(chosen) - len(allowed)
        answered = _draw(cycle, cycle.load(champion), allowed, settings.samples, counts)
        ranked = [
            replace(each, samples=tuple(map(ScoredSample, texts, scorer.score(each.prompt, texts))))
            for each, texts in answered
        ]
        pairs = resampled_pairs(ranked, settings.least_gap, settings.flip_rate, counts, held_out)
        text = "".join(json.dumps(row_of(pair), ensure_ascii=False) + "\n" for pair in pairs)
        blob = cycle.store.blobs.put_bytes(text.encode("utf-8", "surrogatepass"))
        return {"pairs": blob, "counts": dict(counts)}, []

    inputs = {
        "champion": champion,
        "prompts": chosen,
        "held_out": hash_value(sorted(held_out)),
        "scorer": scorer.name,
        "settings": settings.model_dump(),
        "max_new_tokens": cycle.config.serve.max_new_tokens,
    }
    code = code_version("escultor.cycle.resampling", without=("escultor.cycle.steps",))
    result = cycle.workflow.step("resample", inputs, work, code=code)
    lines = cycle.store.blobs.get_bytes(result["pairs"]).splitlines()
    pairs = [cast(Pair, build("pair", decode(line), Counter(), "resampled")) for line in lines]
    return pairs, Counter(result["counts"])


def _disliked_prompts(verdicts: Sequence[UnpairedExample]) -> dict[str, ResampledPrompt]:
    """The prompts of undesirable verdicts by their hash, with the ids that the verdicts were made from."""
    prompts: dict[str, ResampledPrompt] = {}
    for verdict in verdicts:
        if not verdict.desirable:
            hash = hash_value(verdict.prompt)
            known = prompts.get(hash, ResampledPrompt(verdict.prompt, hash, (), (), ""))
            prompts[hash] = replace(known, parents=(*known.parents, *verdict.origin.parents))
    return prompts


def _draw(
    cycle: CycleRun, loaded: Loaded, prompts: Sequence[ResampledPrompt], samples: int, counts: Counter[str]
) -> list[tuple[ResampledPrompt, list[str]]]:
    """Each prompt with its different new answers, in the order drawn."""
    context = max_context_tokens(loaded.model)
    tokenized = [(each, loaded.chat.prompt(each.prompt)) for each in prompts]
    fitting = [(each, tokens) for each, tokens in tokenized if len(tokens) < context]
    counts["left out: prompt longer than the model's context"] += len(tokenized) - len(fitting)
    rows = [(index, tokens, n) for index, (_, tokens) in enumerate(fitting) for n in range(samples)]
    limit = cycle.config.serve.max_new_tokens
    sampling = [
        Sampling(TEMPERATURE, 1.0, limit, derive_seed(0, "resample", fitting[index][0].prompt_hash, n))
        for index, _, n in rows
    ]
    answers = generate(loaded, [tokens for _, tokens, _ in rows], sampling, cycle.config.serve.batch_size)
    texts: list[dict[str, None]] = [{} for _ in fitting]
    for (index, _, _), answer in zip(rows, answers, strict=True):
        if answer.finish_reason in WHOLE and answer.text.strip():
            texts[index][answer.text] = None
        else:
            counts["new answers that are empty or cut off"] += 1
    return [(each, list(own)) for (each, _), own in zip(fitting, texts, strict=True)]
