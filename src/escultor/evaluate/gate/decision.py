"""The gate: paired statistics and three verdicts. Pure: scores in, verdict out.

Promote   one primary metric shown better, none shown worse, every guard shown within its margin, no veto.
Reject    a guard shown broken, a veto broken, or a primary shown worse while none is shown better.
Hold      the rest, with the items that would be enough; also when the comparison cannot show anything (too
          few items, one cluster, equal checkpoints or scores, void items, a suite that is used up), and when
          a figure or signature that a veto needs is missing.

Clusters count equally, whatever their sizes; each effect says up to which size of clusters what it shows
holds for the mean over items too. A primary is tested by a permutation test that flips whole
clusters (0/1 scores: exact McNemar), one-sided, Holm across primaries, at the alpha that alpha spending
leaves to this analysis; and the distribution-free bound of its mean must be above 0 (0/1 scores need none: a
loss is never larger than a win). A guard is tested by such bounds alone, because harm is rare and neither a
permutation nor a bootstrap sees what is not in the sample; all guards must hold, so none is corrected for
(Berger 1982). All are monotone: an item that gets worse never helps a candidate (from 1,000 clusters on up
to the noise of the draws). Intervals that are shown are 95 % intervals of a studentised cluster bootstrap.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from escultor.config import Gate
from escultor.evaluate.gate import text
from escultor.evaluate.gate.alpha_spending import alpha_at, answer_set
from escultor.evaluate.gate.checks import cannot_tell, check, vetoes
from escultor.evaluate.gate.effects import MeasuredEffect, items_needed, measure, slices
from escultor.evaluate.gate.other_skills import OtherSkill, other_skill_effects
from escultor.evaluate.gate.requirements import (
    clusters_needed,
    default_policy,
    requirements,
    scales_of,
    shortfall,
)
from escultor.ids import hash_value
from escultor.types import Comparison, Effect, GateContext, Hold, Promote, Reject, Scores, Verdict

FIRST_ANALYSIS = GateContext()
# Hashes of policies seed the draws of verdicts and name policies in the log, so they are taken of the keys
# and values as they were first called.
_HASHED_KEYS = {
    "alpha": "level",
    "alpha_spending": "looks",
    "max_analyses": "most_looks",
    "acceptance_targets": "hopes",
}
_LATER = {key: Gate.model_fields[key].default for key in ("other_skills", "largest_cluster")}
_HASHED_SPENDING = {"shared": "spend", "full": "free"}


def policy_json(policy: Gate) -> dict[str, Any]:
    """A policy as JSON values; a key that policies did not have at first is left out at its default."""
    data = policy.model_dump(mode="json")
    return {k: v for k, v in data.items() if k not in _LATER or getattr(policy, k) != _LATER[k]}


def policy_hash(policy: Gate) -> str:
    """The id of a policy: the hash of its content, whatever file it came from."""
    data = policy_json(policy)
    data["alpha_spending"] = _HASHED_SPENDING[policy.alpha_spending]
    return hash_value({_HASHED_KEYS.get(key, key): value for key, value in data.items()})


def decide(
    champion: Scores,
    candidate: Scores,
    policy: Gate,
    seed: int,
    context: GateContext = FIRST_ANALYSIS,
    others: tuple[OtherSkill, ...] = (),
) -> Verdict:
    """Compare two checkpoints on one suite and decide; the same arguments give the same verdict.

    Metrics that both have and the policy does not name are measured as `info` and decide nothing. A primary's
    p-value is Holm-adjusted: it is shown better exactly when that is at most its effect's level. A policy
    without a primary takes the first metric of the scores. `others` are guards: the other skills that the
    model serves. Raises DataError with all problems at once when the scores cannot be compared.
    """
    policy = default_policy(policy, scales_of(champion))
    check(champion, candidate, policy, context)
    n, clusters = len(champion.items), len(set(champion.clusters))
    alpha = alpha_at(context.look, policy, context.promotions)
    measured: tuple[MeasuredEffect, ...] = ()
    if n:
        measured = measure(champion, candidate, policy, alpha, seed)
    needs = requirements(policy, champion.scales, alpha)
    minimum = max(n + 1, policy.min_items, math.ceil(clusters_needed(needs) * n / max(clusters, 1)))
    elsewhere = other_skill_effects(others, champion, candidate, policy, seed)
    effects = (*(m.effect for m in measured), *elsewhere)
    comparison = _evidence(champion, candidate, policy, seed, context=context, effects=effects)
    needed = items_needed(measured, policy, minimum)
    why = cannot_tell(champion, candidate, policy, context)
    if why is None:
        too_small = shortfall(needs, policy, items=n, clusters=clusters)
        kind, reason, needed = _outcome(comparison, needed, too_small)
        if context.look == 1 and not context.is_remembered and policy.alpha_spending == "shared":
            reason = f"{reason} {text.FIRST_BY_ASSUMPTION}"
    else:
        kind, reason = Hold, f"{why}."
        if champion.checkpoint == candidate.checkpoint or any(i in context.void for i in champion.items):
            needed = None
    comparison = replace(comparison, reason=f"{kind.__name__}: {reason}")
    comparison = replace(comparison, id=hash_value((comparison, seed)))
    return Hold(comparison, needed) if issubclass(kind, Hold) else kind(comparison)


def _evidence(
    champion: Scores,
    candidate: Scores,
    policy: Gate,
    seed: int,
    *,
    context: GateContext,
    effects: tuple[Effect, ...],
) -> Comparison:
    """The evidence of a verdict, without its id and reason."""
    n = len(champion.items)
    return Comparison(
        id="",
        champion=champion.checkpoint,
        candidate=candidate.checkpoint,
        champion_scores=champion.id,
        candidate_scores=candidate.id,
        suite=champion.suite,
        policy=policy_hash(policy),
        effects=effects,
        reason="",
        n=n,
        look=context.look,
        vetoes=vetoes(champion, candidate, policy, context),
        slices=slices(champion, candidate, policy, seed) if n else (),
        answer_sets=(answer_set(champion), answer_set(candidate)),
        asked=context.asked,
    )


def _outcome(
    comparison: Comparison, needed: int | None, too_small: str | None
) -> tuple[type[Verdict], str, int | None]:
    """The kind of verdict on two sides that can be compared, its reason, and the items that a hold names."""
    effects, limits = comparison.effects, comparison.vetoes
    states = {e.state for e in effects}
    figures = text.figures(effects, comparison.look)
    if broken := [v for v in limits if v.state == "broken"]:
        return Reject, f"veto: {text.limits(broken)}; {figures}.", None
    if "broken" in states or ("worse" in states and "better" not in states):
        return Reject, f"{figures}.", None
    if "worse" in states:
        return Hold, f"the primary metrics disagree: {figures}.", None
    is_safe = all(e.state == "kept" for e in effects if e.role == "guard")
    if "better" in states and is_safe and too_small is None:
        if missing := [v for v in limits if v.state == "missing"]:
            return Hold, f"waits for {text.limits(missing)}; {figures}.", None
        return Promote, f"{figures}.", None
    enough = "no number of items would be enough at this effect"
    if needed is not None:
        enough = f"about {needed} items needed"
    if too_small is not None:
        enough = f"{too_small}; {enough}"
    return Hold, f"not enough evidence, {enough}: {figures}.", needed
