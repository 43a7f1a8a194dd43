"""One turn that starts from feedback: collect, convert, train, validate, gate, deploy."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from escultor.cycle.resampling import Scorer, resample, scorer_of
from escultor.cycle.steps import CycleRun, evaluate_model, gate, train_model
from escultor.cycle.workflow import Result
from escultor.errors import InputError
from escultor.feedback.card import Advice, advise, summarise
from escultor.feedback.conversion import advice_of, convert, read_items
from escultor.feedback.index import FeedbackIndex
from escultor.feedback.items import FeedbackItem, load_items
from escultor.feedback.resampled_pairs import RULE
from escultor.feedback.selection import KINDS, InMemorySource, SelectionQuery, select
from escultor.ids import hash_value
from escultor.skills.suites import EvaluationSuite, registered_prompts
from escultor.store import Store, registry
from escultor.types import Feedback, Interaction, Scores, Step, UnpairedExample, Verdict

CONSUMED = "feedback consumed"  # the step that says up to which entry a promoted model has learnt
_KIND = {"sft": "example", "dpo": "pair", "kto": "unpaired"}


@dataclass(frozen=True, slots=True)
class TrainingMaterial:
    """What feedback came to: items by kind, why the rest made none, the card's section, what to train on it,
    and the entry of the log up to which it was read (None: it was given by hand)."""

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
    """What a turn came to."""

    checkpoint: str
    champion: Scores
    candidate: Scores
    verdict: Verdict
    training: Result
    counts: dict[str, int]


def held_out(store: Store, exam: EvaluationSuite) -> frozenset[str]:
    """The prompts that never enter: those of this turn's suite, and of all that are registered."""
    return frozenset(registered_prompts(store) | {hash_value(item.prompt) for item in exam.items})


def material_of(
    turn: CycleRun, interactions: Sequence[Interaction], feedback: Sequence[Feedback]
) -> TrainingMaterial:
    """What these interactions and this feedback alone come to."""
    settings = turn.config.feedback
    bodies, counts = InMemorySource(interactions, feedback), Counter[str]()
    with FeedbackIndex(None, settings) as index:
        index.add(interactions, feedback)
        now = max((i.time for i in interactions), default=0.0)
        found = select(
            index, bodies, settings, SelectionQuery(now, held_out=held_out(turn.flow.store, turn.exam))
        )
    made = {str(kind): list(load_items(found.chosen[kind], bodies, counts)) for kind in KINDS}
    counts += found.counts
    card = summarise(found)
    return TrainingMaterial(made, dict(counts), card, advise(card, settings))


def material_since(turn: CycleRun, since: float | None) -> TrainingMaterial:
    """What the store's feedback comes to. With no `since` it is what was said after what the promoted
    models have learnt from: an item is used again only when one of its words is newer."""
    after = consumed(turn.flow.store) if since is None else 0
    asked = SelectionQuery(time.time(), after, since, held_out(turn.flow.store, turn.exam))
    found = convert(turn.flow.store, turn.config.feedback, asked)
    made = {str(kind): read_items(turn.flow.store, found, kind) for kind in KINDS}
    advice = advice_of(found, turn.config.feedback)
    return TrainingMaterial(made, found.card["counts"], found.card, advice, found.cursor)


def with_new_answers(
    turn: CycleRun, champion: str, material: TrainingMaterial, scorer: Scorer | None = None
) -> TrainingMaterial:
    """And with pairs of the champion's new answers to prompts that displeased, where the configuration asks
    for them; `scorer` ranks in the place of the judge that it names."""
    settings, displeased = (
        turn.config.feedback.resampling,
        cast("list[UnpairedExample]", material.items["unpaired"]),
    )
    if settings is None or all(verdict.desirable for verdict in displeased):
        return material
    scorer = scorer or scorer_of(turn, settings)
    excluded = held_out(turn.flow.store, turn.exam)
    pairs, counts = resample(turn, champion, displeased, settings, excluded, scorer)
    known = material.card["kinds"]["pair"]
    rules = known["rules"] | ({RULE: len(pairs)} if pairs else {})
    pair = known | {"rows": known["rows"] + len(pairs), "rules": rules}
    card = material.card | {"kinds": material.card["kinds"] | {"pair": pair}}
    return replace(
        material,
        items=material.items | {"pair": [*material.pairs, *pairs]},
        counts=dict(Counter(material.counts) + counts),
        card=card,
        advice=advise(card, turn.config.feedback),
    )


def consumed(store: Store) -> int:
    """The entry of the log up to which feedback has been learnt by a model that was promoted. A turn that
    was held or rejected consumes nothing; a rollback gives nothing back, since what was learnt then did not
    hold: `since` takes it up again."""
    steps = [int(str(step.result["until"])) for _, step in store.log.read(Step, target=CONSUMED)]
    return max(steps, default=0)


def evolve(turn: CycleRun, name: str, material: TrainingMaterial) -> CycleResult:
    """Train the champion on what feedback came to, as the advice says, and let the gate decide.

    Raises InputError when there is no champion, or too little to learn from.
    """
    champion = registry.champion(turn.deployments())
    if champion is None:
        raise InputError(
            "there is no champion to start from", remedy="run `escultor promote` or `escultor demo`"
        )
    material = with_new_answers(turn, champion, material)
    stages = material.advice.stages
    if not stages:
        least = turn.config.feedback
        raise InputError(
            "there is too little feedback to learn from",
            "; ".join(material.advice.lines),
            f"{least.min_examples} written answers, "
            f"{least.min_pairs} pairs, or {least.min_unpaired} verdicts",
            "collect verdicts on several answers to the same prompts; `escultor feedback advise` says more",
        )
    for line in material.advice.lines:
        turn.flow.progress.note(line)
    checkpoint, trained = champion, Result()
    for stage in stages:
        trained = _train(
            turn, name if stage == stages[-1] else f"{name} {stage}", stage, material, checkpoint
        )
        checkpoint = str(trained["checkpoint"])
    before = evaluate_model(turn, champion, "champion")
    after = evaluate_model(turn, checkpoint, name)
    verdict = gate(turn, name, before, after, _consumption(checkpoint, material))
    return CycleResult(checkpoint, before, after, verdict, trained, material.counts)


def _train(turn: CycleRun, name: str, stage: str, material: TrainingMaterial, start: str) -> Result:
    settings: Any = getattr(turn.config, stage)
    found = material.items[_KIND[stage]]
    return train_model(turn, name, stage, settings, found, (start,), start=lambda: turn.load(start))


def _consumption(checkpoint: str, material: TrainingMaterial) -> list[Step]:
    """What is recorded with a promotion."""
    if material.cursor is None:
        return []
    key = hash_value([CONSUMED, checkpoint, material.cursor])
    return [Step(key, time.time(), CONSUMED, 0.0, {"until": material.cursor, "checkpoint": checkpoint})]
