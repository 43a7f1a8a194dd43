"""What a model does with the items of a suite: answers them, and says how likely it holds texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from escultor.batching.rows import NllRow, document_rows, to_ids
from escultor.batching.teacher import nll_by_row
from escultor.errors import DataError, StoreError
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.served_model import ServedModel
from escultor.evaluate.speed import Timing
from escultor.model.generate import generate
from escultor.model.loaded import NO_LIMIT, Loaded, context_length
from escultor.skills.suites import EvaluationSuite
from escultor.skills.table import Likelihood, ModelOutput, Need, get_metric, parse_schema
from escultor.store import Blobs
from escultor.types import Document, Messages, Origin, Sampling, Scores, SuiteItem

KEPT_AT_ONCE = 4  # batches: what a killed evaluation loses at most
ROWS_AT_ONCE = 256
ASKED_AT_ONCE = 64  # of a server: what a killed evaluation loses at most
NEEDS_WEIGHTS: frozenset[Need] = frozenset(("choices", "pressed", "likelihood", "document"))

NoteProgress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What is kept of an evaluation beside its scores: the answers of each item, one for each seed, and
    the requests that were timed."""

    answers: tuple[tuple[str, ...], ...]
    requests: tuple[Timing, ...] = ()

    def to_bytes(self) -> bytes:
        timings = [[t.ttft_ms, t.latency_ms, t.tokens] for t in self.requests]
        return json.dumps({"answers": self.answers, "requests": timings}).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Predictions:
        found = json.loads(data)
        return Predictions(
            tuple(tuple(each) for each in found["answers"]), tuple(Timing(*t) for t in found["requests"])
        )


def kept_of(blobs: Blobs, scores: Scores) -> Predictions | None:
    """What was kept of an evaluation; None where nothing was, or it lies in another store."""
    if scores.answers is None:
        return None
    try:
        return Predictions.from_bytes(blobs.get_bytes(scores.answers))
    except StoreError:
        return None


def needs_of(suite: EvaluationSuite, *names: str) -> frozenset[Need]:
    """All that these metrics of a suite need; without a name, all its metrics."""
    found = [get_metric(suite.record.skill, name) for name in names or suite.record.metrics]
    return frozenset(need for metric in found if metric is not None for need in metric.needs)


def observe(
    loaded: Loaded, suite: EvaluationSuite, batch_size: int, memo: EvaluationCache, progress: NoteProgress
) -> list[tuple[ModelOutput, ...]]:
    """What the model did with each item, once for each seed of the suite.

    Raises DataError, before anything slow, when an item does not fit the model's context.
    """
    needs, items = needs_of(suite), suite.items
    prompts = prompts_of(loaded, suite) if "answer" in needs else []
    seen = [ModelOutput(schema=parse_schema(suite.record.schema))] * len(items)
    for part, rows in _rows(loaded, items, needs).items():
        progress(f"reading {len(items)} items: {part}")
        found = _likelihoods(loaded, part, rows, memo)
        seen = [replace(s, **{part: _shaped(part, found[at])}) for at, s in enumerate(seen)]
    if not prompts:
        return [(s,) for s in seen]
    by_seed = [
        _answers(loaded, suite, prompts, seed, batch_size, memo, progress) for seed in suite.record.seeds
    ]
    return [
        tuple(replace(s, answer=text, tokens=n, cut=cut) for text, n, cut in said)
        for s, *said in zip(seen, *by_seed, strict=True)
    ]


def observe_served(
    served: ServedModel, suite: EvaluationSuite, memo: EvaluationCache, progress: NoteProgress
) -> list[tuple[ModelOutput, ...]]:
    """What a server answered to each item, once for each seed of the suite. Raises UpstreamFault."""
    schema, items = parse_schema(suite.record.schema), suite.items
    seen: list[list[ModelOutput]] = [[] for _ in items]
    for seed in suite.record.seeds:
        sampling = replace(suite.record.decoding, seed=seed)
        for group in _cut(range(len(items)), ASKED_AT_ONCE):

            def work(group: Sequence[int] = group, sampling: Sampling = sampling) -> list[list[object]]:
                progress(f"answering {group[-1] + 1} of {len(items)} items")
                found = served.answers([items[i].prompt for i in group], [sampling] * len(group))
                return [list(said) for said in found]

            for i, (text, tokens, cut) in zip(group, memo.get(f"{seed}/{group[0]}", work), strict=True):
                seen[i].append(ModelOutput(text, tokens, cut, schema=schema))
    return [tuple(said) for said in seen]


def prompts_of(loaded: Loaded, suite: EvaluationSuite) -> list[list[int]]:
    """The tokens that ask each item. A model without a chat template reads the contents as they are."""
    prompts = [loaded.chat.prompt(item.prompt) for item in suite.items]
    context = context_length(loaded.model) or NO_LIMIT
    if long := [i for i, p in zip(suite.items, prompts, strict=True) if not 0 < len(p) < context]:
        raise _too_long(len(long), long[0].id, context)
    return prompts


# --- answers ----------------------------------------------------------------------------------


def _answers(
    loaded: Loaded,
    suite: EvaluationSuite,
    prompts: Sequence[Sequence[int]],
    seed: int,
    batch_size: int,
    memo: EvaluationCache,
    progress: NoteProgress,
) -> list[tuple[str, int, bool]]:
    """Text, tokens, and whether it was cut, for each item. Items of like length are asked together, in
    groups that follow from the suite and the batch size alone, so that one asked again says the same."""
    sampling = replace(suite.record.decoding, seed=seed)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    said: dict[int, tuple[str, int, bool]] = {}
    for at, group in enumerate(_cut(order, batch_size * KEPT_AT_ONCE)):

        def work(group: Sequence[int] = group) -> list[list[object]]:
            progress(f"answering {len(said) + len(group)} of {len(prompts)} items")
            found = generate(loaded, [prompts[i] for i in group], sampling, batch_size)
            return [[a.text, len(a.tokens), a.finish_reason == "length"] for a in found]

        for i, (text, tokens, cut) in zip(group, memo.get(f"answers/{seed}/{at}", work), strict=True):
            said[i] = (text, tokens, cut)
    return [said[i] for i in range(len(prompts))]


# --- likelihoods ------------------------------------------------------------------------------

LikelihoodRows = list[list[tuple[NllRow, int]]]  # for each item, its rows and the bytes of what they label


def _rows(loaded: Loaded, items: Sequence[SuiteItem], needs: frozenset[Need]) -> dict[str, LikelihoodRows]:
    """What is to be read of every item, by the part of `ModelOutput` that it fills."""
    found: dict[str, LikelihoodRows] = {}
    if "likelihood" in needs:
        found["reference"] = [[_whole(loaded, item)] for item in items]
    if "document" in needs:
        found["document"] = [_windows(loaded, item) for item in items]
    for part, prompt in (("choices", "prompt"), ("pressed", "pressed")):
        if part in needs:
            found[part] = [
                [_choice(loaded, getattr(item, prompt), each) for each in item.choices] for item in items
            ]
    context = context_length(loaded.model) or NO_LIMIT
    for part, rows in found.items():
        long = [i.id for i, r in zip(items, rows, strict=True) if any(n.length > context for n, _ in r)]
        if long and part != "document":
            raise _too_long(len(long), long[0], context)
    return found


def _whole(loaded: Loaded, item: SuiteItem) -> tuple[NllRow, int]:
    """The first reference as a whole answer, with the tokens that end it."""
    said = loaded.chat.example(item.prompt, item.references[0])
    row = NllRow(item.id, to_ids(said.prompt + said.response), max(1, len(said.prompt)))
    return row, max(1, len(item.references[0].encode()))


def _choice(loaded: Loaded, prompt: Messages, choice: str) -> tuple[NllRow, int]:
    """A choice as the beginning of an answer: what ends a turn is no part of what is compared."""
    chat = loaded.chat
    before, said = chat.prompt(prompt), chat.response(choice)[: -len(chat.turn_end)]
    return NllRow("", to_ids(before + said), max(1, len(before))), len(choice.encode())


def _windows(loaded: Loaded, item: SuiteItem) -> list[tuple[NllRow, int]]:
    """A document in windows of the model's context; its bytes are counted with the first."""
    text = item.document or ""
    document = Document(item.id, text, Origin((item.id,), "suite"))
    rows = document_rows([document], loaded.chat, context_length(loaded.model) or NO_LIMIT, Counter())
    return [(row, 0 if at else len(text.encode())) for at, row in enumerate(rows)]


def _likelihoods(
    loaded: Loaded, part: str, rows: LikelihoodRows, memo: EvaluationCache
) -> list[list[Likelihood]]:
    flat = [row for of_item in rows for row, _ in of_item]
    nats: list[float] = []
    for at, group in enumerate(_cut(range(len(flat)), ROWS_AT_ONCE)):

        def work(group: Sequence[int] = group) -> list[float]:
            return nll_by_row(loaded.model, [flat[i] for i in group], "auto").tolist()

        nats += memo.get(f"{part}/{at}", work)
    values = iter(nats)
    return [
        [Likelihood(next(values), row.length - row.start, size) for row, size in of_item] for of_item in rows
    ]


def _shaped(part: str, found: list[Likelihood]) -> Likelihood | tuple[Likelihood, ...]:
    """Choices stand apart; the windows of a text add up."""
    if part in ("choices", "pressed"):
        return tuple(found)
    return Likelihood(
        sum(f.nats for f in found), sum(f.tokens for f in found), max(1, sum(f.bytes for f in found))
    )


def _cut(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (order[at : at + size] for at in range(0, len(order), size))


def _too_long(count: int, first: str, context: int) -> DataError:
    return DataError(
        "a held-out item is longer than the model's context",
        f"{count} items over {context} tokens, such as {first!r}",
        remedy="evaluate a model with a longer context, or leave them out of the suite",
    )
