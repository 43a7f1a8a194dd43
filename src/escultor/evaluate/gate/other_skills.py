"""What a candidate that is trained for one skill does to the other skills that its model serves. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from escultor.config import Gate
from escultor.errors import DataError
from escultor.evaluate.gate.effects import measure
from escultor.types import Effect, Scores


@dataclass(frozen=True, slots=True)
class OtherSkill:
    """Both sides' scores on the suite of another skill, and the margin of each metric that guards it."""

    skill: str
    champion: Scores
    candidate: Scores
    margins: dict[str, float]


def other_skill_effects(
    others: tuple[OtherSkill, ...], champion: Scores, candidate: Scores, policy: Gate, seed: int
) -> Iterator[Effect]:
    """A guard for each metric of the other skills, named `skill: metric`.

    Raises DataError where the scores are of other checkpoints than those that are compared, or of different
    suites.
    """
    for other in others:
        sides = (other.champion, other.candidate)
        same = [s.checkpoint for s in sides] == [champion.checkpoint, candidate.checkpoint]
        if not same or len({(s.suite, s.items) for s in sides}) > 1:
            got = ", ".join(f"{s.checkpoint} on {s.suite}" for s in sides)
            allowed = f"{champion.checkpoint} and {candidate.checkpoint} on one suite"
            raise DataError(f"the scores on the skill `{other.skill}` do not belong here", got, allowed)
        guards = policy.model_copy(update={"primary": (), "guards": other.margins})
        for measured in measure(other.champion, other.candidate, guards, policy.alpha, seed):
            if measured.effect.role == "guard":
                yield replace(measured.effect, metric=f"{other.skill}: {measured.effect.metric}")
