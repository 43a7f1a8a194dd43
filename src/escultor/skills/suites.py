"""Evaluation suites: held-out items with what is measured on them, checked as a whole, kept in the store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter

from escultor.errors import DataError
from escultor.ids import hash_bytes, hash_value, plain
from escultor.skills import tool_metrics
from escultor.skills.answer_parts import AnswerParts
from escultor.skills.catalog import built_in, skill_named
from escultor.skills.own_metrics import build_metric, definitions_json
from escultor.skills.schema import check_schema
from escultor.skills.skill import Skill, schema_text
from escultor.skills.table import ITEM_NEEDS, METRICS, Metric
from escultor.skills.text_forms import folded
from escultor.store import Blobs, Store
from escultor.text.near_duplicates import shared_clusters
from escultor.types import (
    Feedback,
    Interaction,
    Message,
    Messages,
    Role,
    Sampling,
    Scale,
    Suite,
    SuiteItem,
)

FORMAT = "suite/1"  # part of every id: what the fields mean
SHARED = 0.1  # of the prompts of the smaller of two suites: beyond, they share one budget of interim analyses
WHOLE = AnswerParts()
MAX_PROBLEMS = 8  # shown in one error; the rest is counted

_items = TypeAdapter(SuiteItem)


@dataclass(frozen=True, slots=True)
class EvaluationSuite:
    """The stored record of a suite, with its items."""

    record: Suite
    items: tuple[SuiteItem, ...]
    own_metrics: Mapping[str, Metric] = field(default_factory=dict, compare=False)  # of its skill
    instruction: str = ""  # asked in the place of each item's system message: a part of what is measured

    @property
    def id(self) -> str:
        return self.record.id

    def metric(self, name: str) -> Metric | None:
        """The metric that the suite means by a name; None where this version knows none."""
        return self.own_metrics.get(name) or METRICS.get(name)

    def asked(self) -> tuple[SuiteItem, ...]:
        """The items as a model is asked them: under the instruction, where there is one."""
        if not self.instruction:
            return self.items
        return tuple(
            replace(i, prompt=self._instructed(i.prompt), pressed=self._instructed(i.pressed))
            for i in self.items
        )

    def _instructed(self, prompt: Messages) -> Messages:
        rest = tuple(message for message in prompt if message.role is not Role.SYSTEM)
        return (Message(Role.SYSTEM, self.instruction), *rest) if rest else prompt

    def subject(self, checkpoint: str) -> str:
        """What scores are of: a checkpoint, and the instruction, where there is one."""
        return under_instruction(checkpoint, self.instruction)

    def of_two_answers(self) -> tuple[str, ...]:
        """The metrics that compare two models' answers, which an evaluation of one model does not score."""
        known = {name: self.metric(name) for name in self.record.metrics}
        return tuple(name for name, metric in known.items() if metric and "opponent" in metric.needs)

    @property
    def parts(self) -> AnswerParts:
        """Which part of an answer is scored."""
        return AnswerParts(self.record.stop, self.record.extract)

    @property
    def code_modules(self) -> tuple[str, ...]:
        """The modules of the package that compute its skill's own metrics, which `skills.table` does not
        name."""
        skill = built_in(self.record.skill)
        named = (
            str(d.get("python", "")).partition(":")[0] for d in (skill.definitions if skill else {}).values()
        )
        return tuple(sorted({name for name in named if name.startswith("escultor.")}))

    @property
    def clusters(self) -> tuple[str, ...]:
        return tuple(item.cluster for item in self.items)


def under_instruction(checkpoint: str, instruction: str) -> str:
    """The name in scores of a checkpoint that is asked under an instruction."""
    return f"{checkpoint} with instruction {hash_value(instruction)}" if instruction else checkpoint


def make_suite(
    name: str,
    skill: str | Skill,
    items: Sequence[SuiteItem],
    metrics: Sequence[str],
    decoding: Sampling,
    seeds: Sequence[int] = (0,),
    schema: dict[str, Any] | None = None,
    parts: AnswerParts = WHOLE,
) -> EvaluationSuite:
    """A suite of these items for a skill, by its name for one of the package. Items that ask the same, or
    nearly so, share a cluster (see `text.near_duplicates.shared_clusters`). Raises DataError that names all
    that is wrong with it."""
    if isinstance(skill, str):
        skill = built_in(skill) or Skill(skill)
    known = {each: metric for each in metrics if (metric := skill.metric(each)) is not None}
    problems = [
        *_suite_problems(skill, metrics, known, decoding, seeds=seeds, schema=schema),
        *parts.problems(),
        *_item_problems(items, known),
    ]
    if problems:
        refuse(f"the suite `{name}` cannot be used", problems)
    scales = {each: metric.scale for each, metric in known.items()}
    clusters = shared_clusters(
        [_asked(item) for item in items],
        [(item.references, item.choices, item.right, item.refuse) for item in items],
        [item.cluster for item in items],
        # Of one answer alone, words that all share are no instruction but the question.
        framed=len({item.references for item in items}) != 1 or not items[0].references,
    )
    items = [replace(item, cluster=cluster) for item, cluster in zip(items, clusters, strict=True)]
    return seal_suite(name, skill, items, scales, decoding, seeds=seeds, schema=schema, parts=parts)


def _asked(item: SuiteItem) -> list[tuple[str, str]]:
    """All that an item asks, as texts by role, the last message last."""
    given = [("document", item.document or ""), *(("choice", choice) for choice in item.choices)]
    return [*given, *((str(message.role), message.content) for message in item.prompt)]


def seal_suite(
    name: str,
    skill: str | Skill,
    items: Sequence[SuiteItem],
    scales: dict[str, Scale],
    decoding: Sampling,
    *,
    seeds: Sequence[int] = (0,),
    schema: dict[str, Any] | None = None,
    parts: AnswerParts = WHOLE,
) -> EvaluationSuite:
    """A suite without any check, under the hash of all that decides a score."""
    skill = skill if isinstance(skill, Skill) else built_in(skill) or Skill(skill)
    blob, schema_json = hash_bytes(_jsonl(items)), schema_text(schema)
    # What a skill of the package means by a name is code of the package, as the other metrics are.
    own = {} if skill is built_in(skill.name) else {n: d for n, d in skill.definitions.items() if n in scales}
    definitions = definitions_json(own)
    decides = [FORMAT, name, skill.name, scales, decoding, list(seeds), schema_json, blob]
    read = [parts] if parts != WHOLE else []
    record = Suite(
        id=hash_value([*decides, definitions, *read] if definitions or read else decides),
        name=name,
        skill=skill.name,
        metrics=scales,
        decoding=decoding,
        seeds=tuple(seeds),
        schema=schema_json,
        items=len(items),
        clusters=len({item.cluster for item in items}),
        blob=blob,
        definitions=definitions,
        stop=parts.stop,
        extract=parts.extract,
    )
    return EvaluationSuite(record, tuple(items), skill.own_metrics)


# --- in the store -----------------------------------------------------------------------------


def register(store: Store, suite: EvaluationSuite) -> None:
    """Record a suite for good: its items as a blob, then the suite. Repeating it changes nothing. Raises
    DataError where an item was drawn from entries of the log that were erased."""
    if store.log.get(Suite, suite.id) is None:
        _refuse_erased(store, suite)
        store.blobs.put_bytes(_jsonl(suite.items))
        store.log.append(suite.record)


def _refuse_erased(store: Store, suite: EvaluationSuite) -> None:
    parents = {parent for item in suite.items for parent in item.parents}
    if gone := store.log.erased(Interaction, parents) | store.log.erased(Feedback, parents):
        ids = [item.id for item in suite.items if not gone.isdisjoint(item.parents)]
        what = f"the suite `{suite.record.name}` has items of a person whose records were erased"
        got = f"{len(ids)} items: {', '.join(ids[:MAX_PROBLEMS])}"
        raise DataError(what, got, remedy="remove these rows from the suite's file")


def registered_suite(
    store: Store, name: str, skills: Mapping[str, Skill] | None = None
) -> EvaluationSuite | None:
    """The suite recorded last under a name, or the one with this id; None where there is none.

    skills: the configured ones, of which the functions are taken that the suite is measured by. Raises
    DataError where the suite needs one that none of them declares.
    """
    records = [record for _, record in store.log.read(Suite, target=name)]
    record = records[-1] if records else store.log.get(Suite, name)
    if record is None:
        return None
    return EvaluationSuite(record, load_items(store.blobs, record), _own_metrics(record, skills or {}))


def _own_metrics(record: Suite, skills: Mapping[str, Skill]) -> Mapping[str, Metric]:
    """The metrics that a suite's skill defines. Code is never taken from a store: a function must be what
    the configured skill declares now."""
    skill = skill_named(record.skill, skills)
    if not record.definitions:
        own = built_in(record.skill)
        return own.own_metrics if own else {}
    metrics = {}
    for name, definition in json.loads(record.definitions).items():
        declared = skill.definitions.get(name) if skill else None
        if skill is not None and declared == definition:
            metrics[name] = skill.own_metrics[name]
        elif not {"python", "reward_model"} & definition.keys():
            metrics[name] = build_metric(definition, Path())
        else:
            got = "it is declared otherwise" if declared else f"no configured skill `{record.skill}`"
            remedy = "add its declaration to `skills:` in the configuration, or make the suite anew"
            raise DataError(
                f"the metric `{name}` of the suite `{record.name}` is in a file that is not declared",
                got,
                remedy=remedy,
            )
    return metrics


def load_items(blobs: Blobs, suite: Suite) -> tuple[SuiteItem, ...]:
    """The items of a registered suite. Raises StoreError when the blob is absent or damaged."""
    lines = blobs.get_bytes(suite.blob).decode().splitlines()
    return tuple(_items.validate_json(line) for line in lines)


def suites_sharing_items(
    store: Store, suite: str, others: Iterable[str], asked: Mapping[str, Sequence[str]] | None = None
) -> frozenset[str]:
    """The suites of `others` (ids) that share more than a tenth of the smaller one's questions with `suite`,
    whatever they are called and measure. Questions are the same that differ in some words, but in no number
    (see `text.near_duplicates.shared_clusters`). `asked` has those of suites that are not in the store; what
    is in neither shares nothing."""

    def questions(id: str) -> list[str]:
        if asked and asked.get(id):
            return list(map(folded, asked[id]))
        record = store.log.get(Suite, id)
        items = () if record is None else load_items(store.blobs, record)
        # Case, white space and a system message make no other question of it.
        told = ([m.content for m in item.prompt if m.role is not Role.SYSTEM] for item in items)
        return [
            folded("\n".join([*texts, item.document or ""])) for item, texts in zip(items, told, strict=True)
        ]

    own = questions(suite)
    theirs = {other: questions(other) for other in set(others) - {suite}} if own else {}
    texts = list(dict.fromkeys(chain(own, *theirs.values())))
    clusters = shared_clusters([[("user", text)] for text in texts], [None] * len(texts), texts)
    of = dict(zip(texts, clusters, strict=True))
    mine, each_of = {of[q] for q in own}, {other: {of[q] for q in each} for other, each in theirs.items()}
    return frozenset(
        other for other, each in each_of.items() if len(mine & each) > SHARED * min(len(mine), len(each))
    )


def _jsonl(items: Iterable[SuiteItem]) -> bytes:
    # JSON escapes line ends inside a text, and ASCII the other separators that `splitlines` knows.
    return "".join(json.dumps(_item_fields(item), sort_keys=True) + "\n" for item in items).encode()


def _item_fields(item: SuiteItem) -> dict[str, Any]:
    """An item as JSON, without the type names that `plain` adds."""
    fields = plain(item) | {
        key: [{k: v for k, v in plain(m).items() if k != "_"} for m in getattr(item, key)]
        for key in ("prompt", "pressed")
    }
    return {key: value for key, value in fields.items() if key != "_"}


# --- checks -----------------------------------------------------------------------------------


def _suite_problems(
    skill: Skill,
    names: Sequence[str],
    metrics: Mapping[str, Metric],
    decoding: Sampling,
    seeds: Sequence[int],
    schema: dict[str, Any] | None,
) -> Iterator[str]:
    for name in names:
        if name not in metrics:
            yield f"no metric `{name}`; known: {', '.join(sorted({*METRICS, *skill.own_metrics}))}"
    if not names:
        yield "it names no metric"
    if len(set(seeds)) != len(seeds) or not seeds:
        yield f"its seeds are {list(seeds)}; each once, at least one"
    if len(seeds) > 1 and decoding.temperature == 0:
        yield f"{len(seeds)} seeds at temperature 0 would give the same answer {len(seeds)} times"
    if schema is None and any("schema" in metric.needs for metric in metrics.values()):
        yield "schema_valid needs a `schema`"
    if schema is not None:
        try:
            check_schema(schema)
        except DataError as error:
            yield str(error)


def _item_problems(items: Sequence[SuiteItem], metrics: Mapping[str, Metric]) -> Iterator[str]:
    if not items:
        yield "it has no items"
    if duplicates := [id for id, count in Counter(item.id for item in items).items() if count > 1]:
        yield f"{len(duplicates)} ids are given twice, such as {duplicates[0]!r}"
    for item in items:
        if not any(message.content.strip() for message in item.prompt):
            yield f"item {item.id!r} asks nothing"
        if _shows_its_own_question(item):
            yield f"item {item.id!r} asks what one of its own examples answers"
        if item.right is not None and item.right >= len(item.choices):
            yield f"item {item.id!r}: the right choice is number {item.right} of {len(item.choices)}"
        if len(set(item.choices)) < len(item.choices):
            yield f"item {item.id!r} has the same choice twice"
        if item.tools:
            yield from tool_metrics.item_problems(item)
    for name, metric in metrics.items():
        for need in sorted(metric.needs & ITEM_NEEDS.keys()):
            if lacking := [item.id for item in items if not ITEM_NEEDS[need](item)]:
                field = "reference" if need == "likelihood" else need
                yield f"{name} needs `{field}`, which {len(lacking)} items lack, such as {lacking[0]!r}"
    if len({tuple(sorted(item.labels)) for item in items}) > 1:
        yield "items carry different labels; each needs the same names, so that slices are whole"


def _shows_its_own_question(item: SuiteItem) -> bool:
    """Whether an example before the question, answered by the assistant, is the question itself."""
    asked = [
        folded(message.content)
        for message, after in zip(item.prompt, (*item.prompt[1:], None), strict=True)
        if message.role is Role.USER and (after is None or after.role is Role.ASSISTANT)
    ]
    return len(asked) > 1 and asked[-1] in asked[:-1]


def refuse(what: str, problems: Sequence[str]) -> NoReturn:
    """Raise DataError that names the first problems, and counts the others."""
    more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    raise DataError("\n  ".join([f"{what}:", *problems[:MAX_PROBLEMS], *more]))
