"""One cycle run that starts from feedback: collect, convert, train, evaluate, gate, deploy."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from escultor.cycle.checkpoints import require_champion
from escultor.cycle.resampling import Scorer, open_scorer, resample
from escultor.cycle.steps import (
    CycleRun,
    evaluate_model,
    gate,
    measure_other_skills,
    require_promotable,
    train_model,
)
from escultor.cycle.workflow import Result
from escultor.datasets.held_out import held_out_hashes
from escultor.errors import InputError
from escultor.feedback.card import Advice, advise, summarise
from escultor.feedback.conversion import Conversion, convert, read_items
from escultor.feedback.index import FeedbackIndex
from escultor.feedback.items import FeedbackItem, load_items
from escultor.feedback.raw_log import InMemorySource
from escultor.feedback.resampled_pairs import RULE
from escultor.feedback.selection import KINDS, SelectionQuery, select
from escultor.ids import hash_value
from escultor.skills.catalog import answer_schemas
from escultor.skills.suites import EvaluationSuite
from escultor.store import Store
from escultor.store.cycles import CONSUMED, consumed
from escultor.train.methods import METHODS
from escultor.types import Erasure, Feedback, Interaction, Scores, Step, UnpairedExample, Verdict


@dataclass(frozen=True, slots=True)
class TrainingMaterial:
    """The training data made of feedback: items by kind, counts of what made none by reason, the section of
    the dataset card, which methods to train, and the last log entry that was read (None: given by hand)."""

    items: dict[str, list[FeedbackItem]]
    counts: dict[str, int]
    card: dict[str, Any]
    advice: Advice
    cursor: int | None = None

    @property
    def pairs(self) -> list[FeedbackItem]:
        return self.items["pair"]


@dataclass(frozen=True, slots=True)
class CycleResult:
    """The outcome of a cycle run: the new checkpoint, both scores, the verdict, and figures of the
    training."""

    checkpoint: str
    champion: Scores
    candidate: Scores
    verdict: Verdict
    training: Result
    counts: dict[str, int]


def excluded_prompts(store: Store, suite: EvaluationSuite) -> frozenset[str]:
    """Hashes of the prompts that are never trained on: those of `suite`, and all that are held out."""
    return held_out_hashes(store) | {hash_value(item.prompt) for item in suite.items}


def material_of(
    cycle: CycleRun, interactions: Sequence[Interaction], feedback: Sequence[Feedback]
) -> TrainingMaterial:
    """The training data made of these interactions and this feedback alone."""
    settings = cycle.config.feedback
    bodies, counts = InMemorySource(interactions, feedback), Counter[str]()
    with FeedbackIndex(None, settings) as index:
        index.add(interactions, feedback)
        now = max((i.time for i in interactions), default=0.0)
        query = SelectionQuery(
            now,
            held_out=excluded_prompts(cycle.store, cycle.suite),
            skill=cycle.skill,
            schemas=answer_schemas(cycle.config.skills),
        )
        selected = select(index, settings, query)
    by_kind = {str(kind): list(load_items(selected.chosen[kind], bodies, counts)) for kind in KINDS}
    counts += selected.counts
    card = summarise(selected)
    return TrainingMaterial(by_kind, dict(counts), card, advise(card, settings))


def material_since(cycle: CycleRun, since: float | None, run: str) -> TrainingMaterial:
    """The training data made of the store's feedback since a moment. With None it is made of the feedback
    after what the promoted models have learnt from: an item is used again only when one of its events is
    newer.

    The collection is a step of `run`, so a run that goes on trains on what it began with. It is made again
    where rows of it were erased meanwhile.
    """
    store, name = cycle.store, "collect"

    def work(key: str) -> tuple[Result, list[Any]]:
        after = consumed(store, cycle.skill) if since is None else 0
        held_out, schemas = excluded_prompts(store, cycle.suite), answer_schemas(cycle.config.skills)
        query = SelectionQuery(time.time(), after, since, held_out, skill=cycle.skill, schemas=schemas)
        made = convert(store, cycle.config.feedback, query)
        # Notes of a card may quote what people wrote, which an erasure must find: they stay out of the log.
        card = {part: value for part, value in made.card.items() if part != "notes"}
        return {"blobs": made.blobs, "rows": made.rows, "card": card, "cursor": made.cursor}, []

    found = cycle.workflow.step(name, {"run": run}, work, code="1")
    if not all(store.blobs.has_bytes(str(blob)) for blob in found["blobs"].values()):
        inputs = {"run": run, "erasures": store.log.count(Erasure)}
        found = cycle.workflow.step(name, inputs, work, code="1")
    conversion = Conversion(found["blobs"], found["rows"], found["card"], found["cursor"], True)
    by_kind = {str(kind): read_items(store, conversion, kind) for kind in KINDS}
    advice = advise(conversion.card, cycle.config.feedback)
    return TrainingMaterial(by_kind, conversion.card["counts"], conversion.card, advice, conversion.cursor)


def with_new_answers(
    cycle: CycleRun, champion: str, material: TrainingMaterial, scorer: Scorer | None = None
) -> TrainingMaterial:
    """The material with pairs of the champion's new answers to disliked prompts added, where the
    configuration asks for them (`feedback.resampling`). `scorer` replaces the judge named there."""
    settings = cycle.config.feedback.resampling
    verdicts = cast("list[UnpairedExample]", material.items["unpaired"])
    if settings is None or all(verdict.desirable for verdict in verdicts):
        return material
    scorer = scorer or open_scorer(cycle, settings)
    excluded = excluded_prompts(cycle.store, cycle.suite)
    pairs, counts = resample(cycle, champion, verdicts, settings, held_out=excluded, scorer=scorer)
    known = material.card["kinds"]["pair"]
    rules = known["rules"] | ({RULE: len(pairs)} if pairs else {})
    pair = known | {"rows": known["rows"] + len(pairs), "rules": rules}
    card = material.card | {"kinds": material.card["kinds"] | {"pair": pair}}
    return replace(
        material,
        items=material.items | {"pair": [*material.pairs, *pairs]},
        counts=dict(Counter(material.counts) + counts),
        card=card,
        advice=advise(card, cycle.config.feedback),
    )


def evolve(
    cycle: CycleRun,
    name: str,
    material: TrainingMaterial,
    champion: str | None = None,
    *,
    deploy: bool = True,
) -> CycleResult:
    """Train the champion (default: that of the store) by the methods that the material is enough for, and let
    the gate decide; what it promotes is deployed at once, unless `deploy` is off.

    Raises InputError when there is no champion, or too little to learn from; DataError, before anything is
    trained, where the policy could promote nothing on the suites.
    """
    champion = champion or require_champion(cycle.store)
    require_promotable(cycle)
    material = with_new_answers(cycle, champion, material)
    methods, note = material.advice.stages, cycle.workflow.progress.note
    if not methods:
        least = cycle.config.feedback
        raise InputError(
            "there is too little feedback to learn from",
            "; ".join(material.advice.lines),
            f"{least.min_examples} written answers, "
            f"{least.min_pairs} pairs, or {least.min_unpaired} verdicts",
            "collect verdicts on several answers to the same prompts; `escultor feedback advise` says more",
        )
    for line in material.advice.lines:
        note(line)
    checkpoint, training = champion, Result()
    for method in methods:
        training = train_model(
            cycle,
            name if method == methods[-1] else f"{name} {method}",
            method,
            settings=getattr(cycle.config, method),
            items=material.items[METHODS[method].kind],
            parents=(checkpoint,),
            start=lambda checkpoint=checkpoint: cycle.load(checkpoint),
        )
        checkpoint = str(training["checkpoint"])
    before = evaluate_model(cycle, champion, "champion")
    after = evaluate_model(cycle, checkpoint, name)
    _record_consumption(cycle.store, checkpoint, material, cycle.skill)
    others = measure_other_skills(cycle, champion, checkpoint, name)
    verdict = gate(cycle, name, before, after, others, deploy=deploy)
    return CycleResult(checkpoint, before, after, verdict, training=training, counts=material.counts)


def _record_consumption(store: Store, checkpoint: str, material: TrainingMaterial, skill: str | None) -> None:
    """Record, once, up to where a model has learnt, whether or not it is promoted."""
    own = {"skill": skill} if skill else {}
    key = hash_value([CONSUMED, checkpoint, material.cursor, *own.values()])
    if material.cursor is not None and store.log.get(Step, key) is None:
        result: Result = {"until": material.cursor, "checkpoint": checkpoint, **own}
        store.log.append(Step(key, time.time(), CONSUMED, 0.0, result))
