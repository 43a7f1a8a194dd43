"""One turn that starts from feedback: collect, convert, train, validate, gate, deploy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from escultor.cycle.arrows import Turn, evaluate_model, gate, train_model
from escultor.cycle.workflow import Result
from escultor.data.pairs import feedback_pairs
from escultor.errors import InputError
from escultor.ids import hash_value
from escultor.skills.suites import registered_prompts
from escultor.store import registry
from escultor.types import Feedback, Interaction, Pair, Scores, Verdict

MIN_PAIRS = 20


@dataclass(frozen=True, slots=True)
class Evolved:
    """What a turn came to."""

    checkpoint: str
    champion: Scores
    candidate: Scores
    verdict: Verdict
    training: Result
    counts: dict[str, int]


def pairs_from_feedback(
    turn: Turn, interactions: Iterable[Interaction], feedback: Iterable[Feedback]
) -> tuple[list[Pair], Counter[str]]:
    """Pairs for training; the prompts of suites never enter, this turn's and all that are registered."""
    counts: Counter[str] = Counter()
    held_out = registered_prompts(turn.flow.store) | {hash_value(item.prompt) for item in turn.exam.items}
    return feedback_pairs(interactions, feedback, counts, held_out), counts


def evolve(
    turn: Turn, name: str, interactions: Iterable[Interaction], feedback: Iterable[Feedback]
) -> Evolved:
    """Train the champion on pairs made of the feedback and let the gate decide on the result.

    Raises InputError when there is no champion, or fewer than 20 pairs.
    """
    champion = registry.champion(turn.deployments())
    if champion is None:
        raise InputError(
            "there is no champion to start from", remedy="run `escultor promote` or `escultor demo`"
        )
    pairs, counts = pairs_from_feedback(turn, interactions, feedback)
    if len(pairs) < MIN_PAIRS:
        raise InputError(
            "there is too little feedback to learn from",
            f"{len(pairs)} pairs; {dict(counts)}",
            f"at least {MIN_PAIRS} pairs",
            f"collect verdicts on several answers to the same prompts: {MIN_PAIRS - len(pairs)} pairs more",
        )
    trained = train_model(
        turn, name, "dpo", turn.config.dpo, pairs, (champion,), start=lambda: turn.load(champion)
    )
    checkpoint = str(trained["checkpoint"])
    before = evaluate_model(turn, champion, "champion")
    after = evaluate_model(turn, checkpoint, name)
    return Evolved(checkpoint, before, after, gate(turn, name, before, after), trained, dict(counts))
