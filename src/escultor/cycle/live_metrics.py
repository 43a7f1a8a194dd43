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
    """A metric of 0 and 1 of a skill's answers, whether 1 is the failure, and by how much more failures than
    the champion's a candidate may have, or which share of failures at most."""

    skill: Skill
    metric: Metric
    is_failure: bool
    margin: float | None = None
    limit: float | None = None

    def failure(self, i: Interaction) -> float:
        """1 where the answer is not as the metric wants it. Raises FaultError where a function of one's own
        fails."""
        schema = self.skill.output.schema
        output = ModelOutput(i.answer, i.usage.completion_tokens, i.finish_reason == "length", schema=schema)
        value = self.metric.score(output, SuiteItem(i.id, i.messages, i.id))
        return value if self.is_failure else 1.0 - value


def live_metrics(configured: Iterable[str]) -> dict[str, LiveMetric]:
    """The primary metrics, guards and vetoes of the configured skills that need nothing but the answer, by
    `SKILL: not METRIC`, or `SKILL: METRIC` where 1 is the failure. A primary's margin is 0. A veto's limits
    are those of the candidate alone, whatever the champion does, and its `worse_by` is a margin."""
    found = {}
    for skill in load_skills(configured).values():
        worse_by = {name: v.worse_by for name, v in skill.vetoes.items() if v.worse_by is not None}
        margins = {**worse_by, **dict.fromkeys(skill.primary, 0.0), **skill.guards}
        for name in (*margins, *skill.vetoes):
            metric, veto = skill.metric(name), skill.vetoes.get(name)
            if metric is None or not _is_seen(metric):
                continue
            shown = {True: f"{skill.name}: {name}", False: f"{skill.name}: not {name}"}
            if name in margins and metric.scale.better != "neither":
                is_failure = metric.scale.better == "lower"
                found[shown[is_failure]] = LiveMetric(skill, metric, is_failure, margin=margins[name])
            if veto is not None and veto.at_most is not None:
                found[f"{shown[True]} (limit)"] = LiveMetric(skill, metric, True, limit=veto.at_most)
            if veto is not None and veto.at_least is not None:
                limit = 1.0 - veto.at_least
                found[f"{shown[False]} (limit)"] = LiveMetric(skill, metric, False, limit=limit)
    return found


def _is_seen(metric: Metric) -> bool:
    return metric.needs <= {"answer", "schema"} and metric.scale.kind == "binary"
