"""Simulated people: they ask for Trinities, ask again, give thumbs, mend a few answers and write remarks.

What they like is nothing that the training data of the first cycle teach: a summary of two to six words
(`skills.trinity_metrics.is_brief`; the authors' own summaries have a median of nine). Everything that shows
their feedback says that they are simulated; the `source` of the feedback is `simulated`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from escultor.demo.documentation import Gold
from escultor.demo.suite import NAME
from escultor.errors import DataError
from escultor.ids import hash_value
from escultor.rng import derive_seed, unit
from escultor.serve.in_flight import draft_interaction
from escultor.serve.logged_model import SEEDS, LoggedModel
from escultor.skills.trinity import parse_trinity, prompt_for
from escultor.skills.trinity_metrics import BRIEF_WORDS, is_brief
from escultor.store.log import Log
from escultor.types import (
    Correction,
    Feedback,
    Interaction,
    Lineage,
    Rating,
    Relation,
    Remark,
    Sampling,
    SourceKind,
)

TASTE = f"They like a summary of {BRIEF_WORDS[0]} to {BRIEF_WORDS[1]} words"
SUBJECTS = 40
BATCH = 64
REMARK = "Shorter, please: a few words are enough."


@dataclass(frozen=True, slots=True)
class Habits:
    """How people show what they like, as probabilities. Of an answer that they dislike they mend or remark
    upon a few; `careless` is the share of people who give their thumbs without reading."""

    rates: float = 0.8
    sees_it: float = 0.9  # a thumb agrees with their taste
    careless: float = 0.1
    mends: float = 0.05
    remarks: float = 0.05


HABITS = Habits()


def ask(
    engine: LoggedModel, golds: Sequence[Gold], key: str, answers: int, sampling: Sampling
) -> list[Interaction]:
    """One subject asks about each document and regenerates until there are `answers` answers.

    Ids derive from `key`: a batch that is in the log already is not asked again. Seeds do not: the answers
    are the same for every version of the code that samples alike.
    """
    drafts, seeds = [], []
    for gold in golds:
        subject = hash_value(["simulated-subject", int(gold.id[:8], 16) % SUBJECTS])
        previous: str | None = None
        for n in range(answers):
            id = f"chatcmpl-{hash_value([key, gold.id, n])}"
            lineage = Lineage(previous, Relation.REGENERATE) if previous else None
            draft = draft_interaction(
                prompt_for(gold.document),
                id=id,
                subject=subject,
                version=engine.version,
                sampling=sampling,
                skill=NAME,
                lineage=lineage,
            )
            drafts.append(draft)
            seeds.append(derive_seed(sampling.seed, "simulated-request", gold.id, n) % SEEDS)
            previous = id
    interactions: list[Interaction] = []
    for start in range(0, len(drafts), BATCH):
        batch, own = drafts[start : start + BATCH], seeds[start : start + BATCH]
        logged = [engine.log.get(Interaction, draft.id) for draft in batch]
        known = [interaction for interaction in logged if interaction is not None]
        interactions += known if len(known) == len(batch) else engine.answer(batch, own)
    return interactions


def judge(log: Log, interactions: Sequence[Interaction], seed: int) -> list[Feedback]:
    """What the people say of their answers, written to the log, once.

    Draws are named by prompt and how often it was asked about, not by the answer's id, which differs between
    versions of the code.
    """
    events: list[Feedback] = []
    times_asked: dict[str, int] = {}
    for interaction in interactions:
        turn = times_asked[interaction.prompt_hash] = times_asked.get(interaction.prompt_hash, -1) + 1
        events += _said(interaction, f"{interaction.prompt_hash}:{turn}", seed)
    log.append(*events)
    return events


def shuffled(feedback: Sequence[Feedback], seed: int) -> list[Feedback]:
    """The control: the same thumbs, dealt at random to the same answers, and nothing else that was said."""
    thumbs = [event for event in feedback if isinstance(event, Rating)]
    values = [event.value for event in thumbs]
    random.Random(derive_seed(seed, "shuffled thumbs")).shuffle(values)
    return [
        replace(event, id=f"fb-{hash_value([event.id, 'shuffled'])}", value=value)
        for event, value in zip(thumbs, values, strict=True)
    ]


def _said(interaction: Interaction, item: str, seed: int) -> list[Feedback]:
    def draw(*name: str) -> float:
        return unit(seed, "simulated-person", *name, item)

    likes, habits, subject = is_brief(interaction.answer), HABITS, interaction.subject
    is_careless = unit(seed, "careless", subject) < habits.careless
    about = (interaction.time + 1, interaction.id, subject)
    said: list[Feedback] = []
    if draw("rates") < habits.rates:
        up = draw("coin") < 0.5 if is_careless else (draw("sees") < habits.sees_it) == likes
        id = f"fb-{hash_value([interaction.id, 'thumb'])}"
        said.append(Rating(id, *about, "thumb", value=up, source=SourceKind.SIMULATED))
    if not likes and not is_careless:
        mended = _mended(interaction.answer) if draw("mends") < habits.mends else None
        if mended is not None:
            id = f"fb-{hash_value([interaction.id, 'mended'])}"
            said.append(Correction(id, *about, mended, source=SourceKind.SIMULATED))
        elif draw("remarks") < habits.remarks:
            id = f"fb-{hash_value([interaction.id, 'remark'])}"
            said.append(Remark(id, *about, REMARK, source=SourceKind.SIMULATED))
    return said


def _mended(answer: str) -> str | None:
    """The smallest change with which they like an answer: the first words of its summary. None where more
    than that is wrong."""
    try:
        trinity = parse_trinity(answer)
    except DataError:
        return None
    words = trinity.summary.rstrip(".").split()
    if len(words) <= BRIEF_WORDS[1]:
        return None
    short = " ".join(words[: BRIEF_WORDS[1]])
    return json.dumps(json.loads(answer) | {"summary": f"{short}."}, ensure_ascii=False)
