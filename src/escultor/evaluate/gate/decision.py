"""The gate: paired statistics, three verdicts, nothing promoted on a hunch. Pure: scores in, verdict out.

Promote   one primary metric shown better, none shown worse, every guard shown within its margin, no veto.
Reject    a guard shown broken, a veto broken, or a primary shown worse while none is shown better.
Hold      the rest, with the items that would be enough; also when the comparison cannot tell (too few
          items, one cluster, equal checkpoints or scores, void items, a suite that is used up), and when
          what a veto asks for is missing.

A primary is judged by a permutation test that flips whole clusters (0/1 scores with one item per cluster:
exact McNemar), one-sided, Holm across primaries, at the level that the trial ledger leaves to this look. A
guard is judged by distribution-free bounds, because harm is rare and a bootstrap is blind to what it never
saw; all guards must hold, so none is corrected for (Berger 1982). Both are monotone: an item that gets
worse never helps a candidate (from 1,000 clusters on up to the noise of the draws). Intervals that are
shown are 95 % ones of a studentised cluster bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from escultor.config import Gate
from escultor.evaluate.gate import text as words
from escultor.evaluate.gate.alpha_spending import level_of
from escultor.evaluate.gate.checks import cannot_tell, check, vetoes
from escultor.evaluate.gate.effects import Measured, enough, measure, slices
from escultor.ids import hash_value
from escultor.types import Comparison, GateContext, Hold, Promote, Reject, Scores, Verdict, Veto

NOTHING = GateContext()


def policy_hash(policy: Gate) -> str:
    """The id of a policy: what it says, whatever file it came from."""
    return hash_value(policy.model_dump(mode="json"))


def decide(
    champion: Scores, candidate: Scores, policy: Gate, seed: int, around: GateContext = NOTHING
) -> Verdict:
    """Compare two checkpoints on one suite and decide; the same arguments give the same verdict.

    Metrics that both hold and the policy does not name are measured as `info` and decide nothing. A
    primary's p-value is Holm-adjusted: it is shown better exactly when that is at most its effect's level.
    Raises DataError, all problems at once, when the scores cannot be compared.
    """
    check(champion, candidate, policy, around)
    level = level_of(around.look, policy)
    measured = measure(champion, candidate, policy, level, seed) if champion.items else ()
    parts = slices(champion, candidate, policy, seed) if champion.items else ()
    judged = _Judged(measured)
    limits = vetoes(champion, candidate, policy, around)
    figures = words.figures([m.effect for m in measured], around.look, policy)
    rests_on = Comparison(
        id="",
        champion=champion.checkpoint,
        candidate=candidate.checkpoint,
        champion_scores=champion.id,
        candidate_scores=candidate.id,
        suite=champion.suite,
        policy=policy_hash(policy),
        effects=tuple(m.effect for m in measured),
        reason="",
        n=len(champion.items),
        look=around.look,
        vetoes=limits,
        slices=parts,
    )

    def because(reason: str) -> Comparison:
        told = replace(rests_on, reason=reason)
        return replace(told, id=hash_value((told, seed)))

    needed = enough(measured, policy, len(champion.items))
    if why := cannot_tell(champion, candidate, policy, around):
        unknown = champion.checkpoint == candidate.checkpoint or any(i in around.void for i in champion.items)
        return Hold(because(f"Hold: {why}."), None if unknown else needed)
    return _fallen(judged, limits, figures, needed, because)


def _fallen(
    judged: _Judged,
    limits: Sequence[Veto],
    figures: str,
    needed: int | None,
    because: Callable[[str], Comparison],
) -> Verdict:
    """The verdict on two that can be compared, with its reason."""
    broken = [v for v in limits if v.state == "broken"]
    if broken:
        return Reject(because(f"Reject: veto: {words.limits(broken)}; {figures}."))
    if judged.any("broken") or (judged.any("worse") and not judged.any("better")):
        return Reject(because(f"Reject: {figures}."))
    if judged.any("better") and judged.any("worse"):
        return Hold(because(f"Hold: the primary metrics disagree: {figures}."), None)
    if judged.any("better") and judged.safe:
        if missing := [v for v in limits if v.state == "missing"]:
            return Hold(because(f"Hold: waits for {words.limits(missing)}; {figures}."), None)
        return Promote(because(f"Promote: {figures}."))
    told = (
        "no number of items would be enough at this effect"
        if needed is None
        else f"about {needed} items needed"
    )
    return Hold(because(f"Hold: not enough evidence, {told}: {figures}."), needed)


class _Judged:
    """The states of the primaries and guards."""

    def __init__(self, measured: tuple[Measured, ...]):
        self.states = {m.effect.state for m in measured}
        self.safe = all(m.effect.state == "kept" for m in measured if m.effect.role == "guard")

    def any(self, state: str) -> bool:
        return state in self.states
