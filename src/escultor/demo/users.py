"""Simulated users: they ask for Trinities, ask again, and give thumbs.

Everything that shows their feedback says that they are simulated; the `source` of the feedback is
`simulated`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from escultor.demo.documentation import Gold
from escultor.demo.suite import NAME
from escultor.evaluate.raters.simulated import simulated_thumb
from escultor.ids import hash_value
from escultor.rng import derive_seed
from escultor.serve.in_flight import draft_interaction
from escultor.serve.logged_model import SEEDS, LoggedModel
from escultor.skills.trinity import prompt_for, score_trinity
from escultor.store.log import Log
from escultor.types import Feedback, Interaction, Lineage, Rating, Relation, Sampling, SourceKind

SUBJECTS = 40
THRESHOLD, NOISE = 0.65, 0.08  # a thumb is up with probability logistic((quality - 0.65) / 0.08)
BATCH = 64


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


def judge(log: Log, interactions: Sequence[Interaction], golds: Sequence[Gold], seed: int) -> list[Feedback]:
    """A thumb on every answer: its true quality, read through noise. Written to the log, once.

    The noise is drawn for the document and how often it was asked about, not for the answer's id, which
    differs between versions of the code.
    """
    gold_by_prompt = {prompt_for(g.document): g for g in golds}
    events: list[Feedback] = []
    times_asked: Counter[str] = Counter()
    for interaction in interactions:
        gold = gold_by_prompt[interaction.messages]
        quality = score_trinity(interaction.answer, gold.trinity)["quality"]
        item = f"{gold.id}:{times_asked[gold.id]}"
        times_asked[gold.id] += 1
        up = simulated_thumb(quality, interaction.subject, item, threshold=THRESHOLD, noise=NOISE, seed=seed)
        event = Rating(
            f"fb-{hash_value([interaction.id, 'thumb'])}",
            interaction.time + 1,
            interaction.id,
            interaction.subject,
            "thumb",
            value=up,
            source=SourceKind.SIMULATED,
        )
        events.append(event)
    log.append(*events)
    return events
