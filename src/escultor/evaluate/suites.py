"""Suites: held-out items with a hash, and what a model scores on them, one number per item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from escultor.config import Evaluation
from escultor.data.rows import document_rows, example_rows
from escultor.data.signals import nll_by_row
from escultor.data.sources.documentation import Gold
from escultor.errors import DataError
from escultor.evaluate.speed import measure_speed
from escultor.ids import hash_value
from escultor.model.generate import Answer, generate
from escultor.model.load import Loaded
from escultor.rng import unit
from escultor.skills.metrics import bits_per_byte, rouge_l
from escultor.skills.scoring import METRICS, lead_sentence, score_trinity
from escultor.skills.trinity import prompt_for
from escultor.types import Document, Origin, Sampling, Scores


@dataclass(frozen=True)
class TrinitySuite:
    """Documents of packages never trained on, with their authors' Trinities."""

    items: tuple[Gold, ...]
    max_new_tokens: int

    @cached_property
    def hash(self) -> str:
        return hash_value(["trinity-suite/1", self.max_new_tokens, self.items])

    @cached_property
    def clusters(self) -> tuple[str, ...]:
        """The module an item comes from: its documents share an author and a style."""
        return tuple(".".join(g.trinity.entity.split(".")[:3]) for g in self.items)

    def lead_baseline(self) -> float:
        """Mean ROUGE-L of the lead sentence taken as the summary."""
        scores = [rouge_l(lead_sentence(g.document), g.trinity.summary) for g in self.items]
        return sum(scores) / len(scores)


def trinity_suite(golds: Sequence[Gold], settings: Evaluation) -> TrinitySuite:
    """At most `settings.items` of the golds, no package with more than an eighth of them, in an order
    that depends on the seed and the items alone. Raises DataError when none is left."""
    drawn = sorted(golds, key=lambda g: unit(settings.seed, "suite", g.id))
    most = max(1, settings.items // 8)
    taken: list[Gold] = []
    per_package: Counter[str] = Counter()
    for gold in drawn:
        if len(taken) < settings.items and per_package[gold.package] < most:
            per_package[gold.package] += 1
            taken.append(gold)
    if not taken:
        raise DataError("the suite is empty", "no held-out document", "at least one")
    return TrinitySuite(tuple(taken), settings.max_new_tokens)


@dataclass(frozen=True, slots=True)
class Evaluated:
    scores: Scores
    answers: tuple[str, ...]


def evaluate_trinity(
    loaded: Loaded,
    checkpoint: str,
    suite: TrinitySuite,
    settings: Evaluation,
    hourly_price_usd: float,
    progress: Callable[[str], None] = lambda text: None,
) -> Evaluated:
    """Answer every item greedily and score it. Beside that: bits per byte of the author's answer given
    the prompt (bits_per_byte), and of the document alone (document_bits_per_byte).

    Figures that belong to the model and machine, not to items, stand in `Scores.summary`:
    parameters, latency_p50_ms, latency_p99_ms, tokens_per_s, cost_usd_per_1k_tokens.
    """
    prompts = [loaded.chat.prompt(prompt_for(g.document)) for g in suite.items]
    sampling = Sampling(max_new_tokens=suite.max_new_tokens)
    progress(f"answering {len(prompts)} held-out items")
    answers = generate(loaded, prompts, sampling, settings.batch_size)
    texts = tuple(a.text for a in answers)
    per_item = [score_trinity(text, g.trinity) for text, g in zip(texts, suite.items, strict=True)]
    metrics = {name: tuple(s[name] for s in per_item) for name in METRICS}
    progress("measuring bits per byte and speed")
    metrics["bits_per_byte"] = _answer_bits(loaded, suite.items)
    metrics["document_bits_per_byte"] = _document_bits(loaded, suite.items)
    metrics["answer_tokens"] = tuple(float(len(a.tokens)) for a in answers)
    summary = measure_speed(loaded, prompts, sampling, settings, hourly_price_usd)
    scores = Scores(
        hash_value([checkpoint, suite.hash]),
        checkpoint,
        suite.hash,
        tuple(g.id for g in suite.items),
        suite.clusters,
        metrics,
        summary | _shares(answers),
    )
    return Evaluated(scores, texts)


def _answer_bits(loaded: Loaded, items: Sequence[Gold]) -> tuple[float, ...]:
    """Bits per byte of each author's own answer, given the prompt."""
    context = int(loaded.model.config.max_position_embeddings)
    rows = example_rows([g.example() for g in items], loaded.chat, context, Counter())
    if len(rows) != len(items):
        raise DataError(
            "a held-out item is longer than the model's context",
            f"{len(items) - len(rows)} items over {context} tokens",
            remedy="evaluate a model with a longer context",
        )
    nats = nll_by_row(loaded.model, rows, "auto")
    sizes = [len(g.trinity.to_json().encode()) for g in items]
    return tuple(bits_per_byte(float(n), size) for n, size in zip(nats, sizes, strict=True))


def _document_bits(loaded: Loaded, items: Sequence[Gold]) -> tuple[float, ...]:
    """Bits per byte of each raw document with its author's summary put back."""
    texts = [f"{g.document}\n\n{g.trinity.summary}" for g in items]
    documents = [Document(g.id, t, Origin((g.id,), "suite")) for g, t in zip(items, texts, strict=True)]
    context = int(loaded.model.config.max_position_embeddings)
    rows = document_rows(documents, loaded.chat, context, Counter())
    nats: dict[str, float] = dict.fromkeys((g.id for g in items), 0.0)
    for row, value in zip(rows, nll_by_row(loaded.model, rows, "auto"), strict=True):
        nats[row.id.rsplit(":", 1)[0]] += float(value)
    return tuple(bits_per_byte(nats[g.id], len(t.encode())) for g, t in zip(items, texts, strict=True))


def _shares(answers: Sequence[Answer]) -> dict[str, float]:
    cut = np.mean([a.finish_reason == "length" for a in answers])
    return {"cut_share": float(cut)}
