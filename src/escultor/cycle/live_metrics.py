"""What of a skill's policy can be seen of live answers: metrics that an answer alone decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from escultor.skills.catalog import load_skills
from escultor.skills.skill import Skill
from escultor.skills.table import Metric, ModelOutput
from escultor.types import Interaction, SuiteItem


@dataclass(frozen=True, slots=True)
class LiveMetric:
    """A metric of 0 and 1 of a skill's answers, and by how much a candidate may be worse in it."""

    skill: Skill
    metric: Metric
    margin: float

    def failure(self, i: Interaction) -> float:
        """1 where the answer is not as the metric wants it. Raises FaultError where a function of one's own
        fails."""
        schema = self.skill.output.schema
        output = ModelOutput(i.answer, i.usage.completion_tokens, i.finish_reason == "length", schema=schema)
        value = self.metric.score(output, SuiteItem(i.id, i.messages, i.id))
        return value if self.metric.scale.better == "lower" else 1.0 - value


def live_metrics(configured: Iterable[str]) -> dict[str, LiveMetric]:
    """The primary metrics, guards and vetoes of the configured skills that need nothing but the answer, by
    `SKILL: not METRIC`, or `SKILL: METRIC` where lower is better. A primary's margin is 0, a veto's what its
    `worse_by` allows."""
    found = {}
    for skill in load_skills(configured).values():
        margins = {name: limit.worse_by or 0.0 for name, limit in skill.vetoes.items()}
        for name, margin in {**margins, **dict.fromkeys(skill.primary, 0.0), **skill.guards}.items():
            metric = skill.metric(name)
            if metric is not None and _is_seen(metric):
                shown = name if metric.scale.better == "lower" else f"not {name}"
                found[f"{skill.name}: {shown}"] = LiveMetric(skill, metric, margin)
    return found


def _is_seen(metric: Metric) -> bool:
    scale = metric.scale
    return metric.needs <= {"answer", "schema"} and scale.kind == "binary" and scale.better != "neither"
