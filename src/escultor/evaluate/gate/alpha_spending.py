"""Alpha spending: how often a suite has been analysed, and the alpha that a further analysis has. Pure.

A suite that is compared on again and again promotes something in the end. So analyses are counted, as a fold
of the verdicts in the log, by the suite's items, and the k-th one is tested at alpha / (k (k + 1)): these sum
to `alpha` over all analyses there will ever be, so the probability that any promotion from one suite is false
stays below it (Foster & Stine 2008). Guards are tested at the full alpha each time: every candidate must keep
every guard by itself, so a later analysis gives a harmful candidate no further chance.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from escultor.config import Gate
from escultor.ids import hash_value
from escultor.types import Comparison, Scores, Verdict


def answer_set(scores: Scores) -> str:
    """The id of one side's numbers on a suite, whatever the model is called."""
    return hash_value([scores.suite, scores.items, scores.metrics])


def analysis_number(
    verdicts: Iterable[Verdict],
    champion: Scores,
    candidate: Scores,
    policy: str,
    same: Collection[str] = (),
) -> int:
    """The number of this comparison among the analyses of the suite's items, from 1 on.

    `policy` is the hash of the policy. `same` are other suites that hold the suite's items: under another
    name, with other metrics or decoding, or extended by some items.

    All comparisons on the items are counted, of whichever models: a name, a folder or an address can be
    changed. What is compared is known by its numbers: the same two sides under the same policy are one
    analysis, however often and under whatever names they are compared. New answers of the same models are a
    new one, and so is another policy.
    """
    sides, suites = (answer_set(champion), answer_set(candidate)), {champion.suite, *same}
    earlier = [v.because for v in verdicts if v.because.suite in suites]
    analyses = [(_sides(c, champion, candidate, sides), c.policy) for c in earlier]
    return list(dict.fromkeys([*analyses, (sides, policy)])).index((sides, policy)) + 1


def _sides(c: Comparison, champion: Scores, candidate: Scores, sides: tuple[str, ...]) -> tuple[str, ...]:
    """What an earlier comparison was made from. Verdicts of old stores name their scores alone."""
    if not c.answer_sets and (c.champion_scores, c.candidate_scores) == (champion.id, candidate.id):
        return sides
    return c.answer_sets or (c.champion_scores, c.candidate_scores)


def alpha_at(analysis: int, policy: Gate) -> float:
    """The alpha at which the primaries of this analysis are tested."""
    return policy.alpha if policy.alpha_spending == "full" else policy.alpha / (analysis * (analysis + 1))
