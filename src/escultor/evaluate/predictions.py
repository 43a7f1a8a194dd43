"""What a model does with the items of a suite: its answers, and the likelihoods that it gives to texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from escultor.batching.rows import NllRow, document_rows, to_ids
from escultor.batching.teacher import nll_by_row
from escultor.errors import DataError, StoreError
from escultor.evaluate.cache import EvaluationCache, groups_of
from escultor.evaluate.served_model import ServedModel
from escultor.evaluate.speed import Timing
from escultor.model.generate import generate
from escultor.model.loaded import Loaded, max_context_tokens
from escultor.skills.answer_parts import before_stop
from escultor.skills.suites import EvaluationSuite
from escultor.skills.table import Likelihood, ModelOutput, Need, parse_schema
from escultor.store import Blobs
from escultor.types import Document, Messages, Origin, Scores, SuiteItem

# How much is cached at a time, which is what a killed evaluation loses at most.
BATCHES_PER_GROUP = 4
ROWS_PER_GROUP = 256
REQUESTS_PER_GROUP = 64  # to a server
NEEDS_WEIGHTS: frozenset[Need] = frozenset(("choices", "pressed", "likelihood", "document"))

NoteProgress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Predictions:
    """The whole answers to each item of a suite, one for each seed, and the timed requests. `extracted`: of
    each answer the part that was scored, where the suite extracts one."""

    answers: tuple[tuple[str, ...], ...]
    requests: tuple[Timing, ...] = ()
    extracted: tuple[tuple[str, ...], ...] = ()

    def to_bytes(self) -> bytes:
        timings = [[t.ttft_ms, t.latency_ms, t.tokens] for t in self.requests]
        fields = {"answers": self.answers, "requests": timings}
        return json.dumps(fields | ({"extracted": self.extracted} if self.extracted else {})).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Predictions:
        fields = json.loads(data)
        requests = tuple(Timing(*timing) for timing in fields["requests"])
        answers, extracted = (tuple(map(tuple, fields.get(key, ()))) for key in ("answers", "extracted"))
        return Predictions(answers, requests, extracted)


def load_predictions(blobs: Blobs, scores: Scores) -> Predictions | None:
    """The predictions behind scores; None where none were stored, or in another store."""
    if scores.answers is None:
        return None
    try:
        return Predictions.from_bytes(blobs.get_bytes(scores.answers))
    except StoreError:
        return None


def metric_needs(suite: EvaluationSuite, *names: str) -> frozenset[Need]:
    """All that these metrics of a suite need; without a name, all its metrics."""
    metrics = [suite.metric(name) for name in names or suite.record.metrics]
    return frozenset(need for metric in metrics if metric is not None for need in metric.needs)


def model_outputs(
    loaded: Loaded, suite: EvaluationSuite, batch_size: int, cache: EvaluationCache, progress: NoteProgress
) -> list[tuple[ModelOutput, ...]]:
    """The outputs of a model for each item, one for each seed of the suite.

    Raises DataError, before anything slow, when an item does not fit the model's context.
    """
    needs, items = metric_needs(suite), suite.asked()
    prompts = tokenized_prompts(loaded, suite) if "answer" in needs else []
    outputs = [ModelOutput(schema=parse_schema(suite.record.schema))] * len(items)
    for part, rows in _likelihood_rows(loaded, items, needs).items():
        progress(f"reading {len(items)} items: {part}")
        values = _likelihoods(loaded, part, rows, cache)
        outputs = [replace(o, **{part: value}) for o, value in zip(outputs, values, strict=True)]
    if not prompts:
        return [(output,) for output in outputs]
    by_seed = [
        _answers(loaded, suite, prompts, seed, batch_size=batch_size, cache=cache, progress=progress)
        for seed in suite.record.seeds
    ]
    return [
        tuple(_scored_part(suite, replace(output, tokens=n, cut=cut), text) for text, n, cut in answers)
        for output, *answers in zip(outputs, *by_seed, strict=True)
    ]


def _scored_part(suite: EvaluationSuite, output: ModelOutput, text: str) -> ModelOutput:
    """The output with its answer: the part that the suite scores, and where that is not all, the whole."""
    whole = before_stop(text, suite.record.stop)
    cut = output.cut and whole == text
    if not suite.record.extract:
        return replace(output, answer=whole, cut=cut)
    found = suite.parts.extracted(whole)
    return replace(output, answer=found or "", raw=whole, cut=cut, is_extracted=found is not None)


def served_outputs(
    served: ServedModel, suite: EvaluationSuite, cache: EvaluationCache, progress: NoteProgress
) -> list[tuple[ModelOutput, ...]]:
    """The answers of a server to each item, one for each seed of the suite. Raises UpstreamFault."""
    schema, items = parse_schema(suite.record.schema), suite.asked()
    by_seed: list[list[ModelOutput]] = []
    for seed in suite.record.seeds:
        sampling = replace(suite.record.decoding, seed=seed)
        outputs: list[ModelOutput] = []
        for group in groups_of(items, REQUESTS_PER_GROUP):
            progress(f"answering {len(outputs) + len(group)} of {len(items)} items")
            prompts, tools = [item.prompt for item in group], [item.tools for item in group]
            ask = partial(served.answers, prompts, [sampling] * len(group), tools, stop=suite.record.stop)
            outputs += [
                _scored_part(
                    suite,
                    ModelOutput(tokens=tokens, cut=cut, schema=schema, is_null=text is None),
                    text or "",
                )
                for text, tokens, cut in cache.get(f"{seed}/{len(outputs)}", ask)
            ]
        by_seed.append(outputs)
    return list(zip(*by_seed, strict=True))


def tokenized_prompts(loaded: Loaded, suite: EvaluationSuite) -> list[list[int]]:
    """The prompt of each item as tokens; without a chat template these are those of its contents. Raises
    DataError when one does not fit the model's context."""
    items = suite.asked()
    if any(item.tools for item in items) and not loaded.chat.shows_tools:
        remedy = "measure a model whose template shows them"
        raise DataError(
            "the model's chat template does not show tools to it", suite.record.name, remedy=remedy
        )
    prompts = [loaded.chat.prompt(item.prompt, item.tools) for item in items]
    context = max_context_tokens(loaded.model)
    _refuse_long([i for i, p in zip(items, prompts, strict=True) if not 0 < len(p) < context], context)
    return prompts


def _answers(
    loaded: Loaded,
    suite: EvaluationSuite,
    prompts: Sequence[Sequence[int]],
    seed: int,
    *,
    batch_size: int,
    cache: EvaluationCache,
    progress: NoteProgress,
) -> list[tuple[str, int, bool]]:
    """Text, number of tokens, and whether it was cut, of the answer to each item.

    Items are batched with others of similar length, in groups that depend on suite and batch size alone, so
    that a repeated run gives the same answers.
    """
    sampling = replace(suite.record.decoding, seed=seed)
    answers: dict[int, Any] = {}

    def compute(group: Sequence[int]) -> list[list[object]]:
        progress(f"answering {len(answers) + len(group)} of {len(prompts)} items")
        generated = generate(loaded, [prompts[i] for i in group], sampling, batch_size)
        return [[a.text, len(a.tokens), a.finish_reason == "length"] for a in generated]

    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for number, group in enumerate(groups_of(order, batch_size * BATCHES_PER_GROUP)):
        values = cache.get(f"answers/{seed}/{number}", partial(compute, group))
        answers.update(zip(group, values, strict=True))
    return [answers[i] for i in range(len(prompts))]


# --- likelihoods ------------------------------------------------------------------------------

LikelihoodRows = list[list[tuple[NllRow, int]]]  # for each item, its rows and the bytes of their labels


def _likelihood_rows(
    loaded: Loaded, items: Sequence[SuiteItem], needs: frozenset[Need]
) -> dict[str, LikelihoodRows]:
    """The rows whose likelihood is needed of every item, by the field of `ModelOutput` that they fill."""
    rows: dict[str, LikelihoodRows] = {}
    if "likelihood" in needs:
        rows["reference"] = [[_reference_row(loaded, item)] for item in items]
    if "document" in needs:
        rows["document"] = [_document_windows(loaded, item) for item in items]
    for part, prompt in (("choices", "prompt"), ("pressed", "pressed")):
        if part in needs:
            rows[part] = [
                [_choice_row(loaded, getattr(i, prompt), each) for each in i.choices] for i in items
            ]
    context = max_context_tokens(loaded.model)
    for part, part_rows in rows.items():
        if part != "document":
            pairs = zip(items, part_rows, strict=True)
            _refuse_long(
                [item for item, own in pairs if any(row.length > context for row, _ in own)], context
            )
    return rows


def _reference_row(loaded: Loaded, item: SuiteItem) -> tuple[NllRow, int]:
    """The first reference as a whole answer, with the tokens that end it."""
    example = loaded.chat.example(item.prompt, item.references[0], item.tools)
    row = NllRow(item.id, to_ids(example.prompt + example.response), max(1, len(example.prompt)))
    return row, max(1, len(item.references[0].encode()))


def _choice_row(loaded: Loaded, prompt: Messages, choice: str) -> tuple[NllRow, int]:
    """A choice as the beginning of an answer, without the tokens that end a turn."""
    chat = loaded.chat
    row = chat.example(prompt, choice)
    ids = (row.prompt + row.response)[: -len(chat.turn_end)]
    return NllRow("", to_ids(ids), max(1, len(row.prompt))), len(choice.encode())


def _document_windows(loaded: Loaded, item: SuiteItem) -> list[tuple[NllRow, int]]:
    """A document in windows of the model's context; its bytes are counted with the first."""
    text = item.document or ""
    document = Document(item.id, text, Origin((item.id,), "suite"))
    rows = document_rows([document], loaded.chat, max_context_tokens(loaded.model), Counter())
    return [(row, 0 if number else len(text.encode())) for number, row in enumerate(rows)]


def _likelihoods(
    loaded: Loaded, part: str, rows: LikelihoodRows, cache: EvaluationCache
) -> Sequence[Likelihood | tuple[Likelihood, ...]]:
    """Each item's likelihoods: one for each choice, or one for all windows of a text together."""
    flat = [row for item_rows in rows for row, _ in item_rows]
    nats: list[float] = []
    for number, group in enumerate(groups_of(flat, ROWS_PER_GROUP)):
        compute = partial(nll_by_row, loaded.model, group, "auto")
        nats += cache.get(f"{part}/{number}", lambda compute=compute: compute().tolist())
    values = iter(nats)
    likelihoods = [
        tuple(Likelihood(next(values), row.label_count, size) for row, size in item_rows)
        for item_rows in rows
    ]
    return likelihoods if part in ("choices", "pressed") else list(map(_total, likelihoods))


def _total(windows: tuple[Likelihood, ...]) -> Likelihood:
    size = max(1, sum(window.bytes for window in windows))
    return Likelihood(sum(window.nats for window in windows), sum(window.tokens for window in windows), size)


def _refuse_long(items: Sequence[SuiteItem], context: int) -> None:
    if items:
        raise DataError(
            "a held-out item is longer than the model's context",
            f"{len(items)} items over {context} tokens, such as {items[0].id!r}",
            remedy="evaluate a model with a longer context, or leave them out of the suite",
        )
