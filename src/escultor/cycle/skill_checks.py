"""What is doubtful in a skill beyond the form of its declaration: references, leaks, too few items."""

from __future__ import annotations

from collections.abc import Iterator

from escultor.config import Config
from escultor.cycle import gate_service
from escultor.cycle.evaluation_service import policy_of
from escultor.datasets.held_out import HeldOutGuard
from escultor.skills.skill import Skill
from escultor.skills.suite_files import skill_examples, skill_suite
from escultor.skills.suites import EvaluationSuite
from escultor.skills.table import ModelOutput

ANSWERED = frozenset(("answer", "reference", "schema"))  # what a reference can be scored on, as an answer


def check_skill(skill: Skill, config: Config) -> list[str]:
    """One line for each doubt about a skill. Raises DataError where its suite or examples cannot be used."""
    suite, examples = skill_suite(skill, config.evaluation), skill_examples(skill)
    lines = [] if suite else ["it has no suite: nothing can be compared until it has held-out items"]
    if suite is not None:
        lines += _doubtful_references(skill, suite)
        shortfall = gate_service.check_policy(policy_of(suite.record, config), suite.record)
        lines += [shortfall] if shortfall else []
        reasons = HeldOutGuard.of(item.prompt for item in suite.items).reasons(examples)
        if leaked := sum(reason is not None for reason in reasons):
            lines.append(
                f"{leaked} of {len(examples)} examples ask what an item asks; they are not trained on"
            )
    return lines


def _doubtful_references(skill: Skill, suite: EvaluationSuite) -> Iterator[str]:
    """References that do not have the form of an answer, or that a primary metric does not take for right."""
    for item in suite.items:
        if wrong := [each for each in item.references if not skill.output.accepts(each)]:
            yield f"item {item.id}: its reference {wrong[0][:60]!r} is not what the skill's `output` says"
    for name in skill.primary:
        metric = suite.metric(name)
        if metric is None or not metric.needs <= ANSWERED or metric.scale.better == "neither":
            continue
        best = metric.scale.most if metric.scale.better == "higher" else metric.scale.least
        for item in suite.items:
            if item.references and best is not None:
                score = metric.score(ModelOutput(item.references[0], schema=skill.output.schema), item)
                if abs(score - best) > 1e-9:
                    yield f"item {item.id}: its own reference scores {score:g} in {name}, not {best:g}"
