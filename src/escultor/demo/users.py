"""Simulated users: they ask for Trinities, ask again, and give thumbs. The program says so wherever
their words are shown; `source` of all their feedback is `simulated`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from escultor.data.sources.documentation import Gold
from escultor.evaluate.raters.simulated import simulated_thumb
from escultor.ids import hash_value
from escultor.serve.interactions import draft_interaction
from escultor.serve.logged_model import LoggedModel
from escultor.skills.trinity import prompt_for
from escultor.skills.trinity_scoring import score_trinity
from escultor.store.log import Log
from escultor.types import Feedback, Interaction, Lineage, Rating, Relation, Sampling, SourceKind

SUBJECTS = 40
THRESHOLD, NOISE = 0.65, 0.08  # a thumb is up with probability logistic((quality - 0.65) / 0.08)
BATCH = 64


def ask(
    engine: LoggedModel, golds: Sequence[Gold], key: str, answers: int, sampling: Sampling
) -> list[Interaction]:
    """Every document is asked about by one subject, who regenerates until there are `answers` answers.

    Ids derive from `key`: a batch that is in the log already is not asked again.
    """
    drafts = []
    for gold in golds:
        subject = hash_value(["simulated-subject", int(gold.id[:8], 16) % SUBJECTS])
        before: str | None = None
        for n in range(answers):
            name = f"chatcmpl-{hash_value([key, gold.id, n])}"
            lineage = Lineage(before, Relation.REGENERATE) if before else None
            drafts.append(
                draft_interaction(
                    prompt_for(gold.document),
                    id=name,
                    subject=subject,
                    version=engine.version,
                    sampling=sampling,
                    lineage=lineage,
                )
            )
            before = name
    done: list[Interaction] = []
    for at in range(0, len(drafts), BATCH):
        batch = drafts[at : at + BATCH]
        found = [engine.log.get(Interaction, draft.id) for draft in batch]
        known = [interaction for interaction in found if interaction is not None]
        done += known if len(known) == len(batch) else engine.answer(batch)
    return done


def judge(log: Log, interactions: Sequence[Interaction], golds: Sequence[Gold], seed: int) -> list[Feedback]:
    """A thumb on every answer: its true quality, read through noise. Written to the log, once.

    The noise is drawn for the document and how often it was asked about, not for the answer's id, which is
    another one for every version of the code.
    """
    gold_of = {prompt_for(g.document): g for g in golds}
    events: list[Feedback] = []
    asked: Counter[str] = Counter()
    for interaction in interactions:
        gold = gold_of[interaction.messages]
        quality = score_trinity(interaction.answer, gold.trinity)["quality"]
        item = f"{gold.id}:{asked[gold.id]}"
        asked[gold.id] += 1
        up = simulated_thumb(quality, interaction.subject, item, threshold=THRESHOLD, noise=NOISE, seed=seed)
        name = f"fb-{hash_value([interaction.id, 'thumb'])}"
        events.append(
            Rating(
                name,
                interaction.time + 1,
                interaction.id,
                interaction.subject,
                "thumb",
                up,
                source=SourceKind.SIMULATED,
            )
        )
    log.append(*events)
    return events
