"""Alpha spending: how often a suite has been analysed, and the alpha that a further analysis has. Pure.

A suite that is compared on again and again promotes something in the end. So analyses are counted, as a fold
of the verdicts in the log, by the suite's items, and the k-th one has a share of alpha that falls
with 1 / (k (k + 1)); all shares sum to alpha over `max_analyses`. A promotion passes its share on to the next
analysis (the fallback procedure: Wiens 2003; Tian & Ramdas 2021), so that a suite from which every turn of a
loop is promoted stays usable. The probability that any promotion from one suite is false stays below alpha:
up to the first false one, what was passed on came from true ones only, so no share is counted for two
candidates that are no better. Guards and the bounds of primaries have the full alpha each time: every
candidate must keep them by itself, so a later analysis gives a harmful candidate no further chance.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import takewhile
from typing import NamedTuple

from escultor.config import Gate
from escultor.ids import hash_value
from escultor.types import Comparison, Promote, Scores, Verdict


def answer_set(scores: Scores) -> str:
    """The id of one side's numbers on a suite, whatever the model is called."""
    return hash_value([scores.suite, scores.items, scores.metrics])


class Analysis(NamedTuple):
    """The place of a comparison among the analyses of a suite."""

    number: int  # from 1 on
    promotions: int  # how many directly before it ended in a promotion under its policy


def analysis_of(
    verdicts: Iterable[Verdict],
    champion: Scores,
    candidate: Scores,
    policy: str,
    same: Collection[str] = (),
) -> Analysis:
    """The place of this comparison among the analyses of the suite's items.

    `policy` is the hash of the policy. `same` are other suites that hold the suite's items: under another
    name, with other metrics or decoding, or extended by some items.

    All comparisons on the items are counted, of whichever models: a name, a folder or an address can be
    changed. What is compared is known by its numbers: the same two sides under the same policy are one
    analysis, however often and under whatever names they are compared. New answers of the same models are a
    new one, and so is another policy.
    """
    sides, suites = (answer_set(champion), answer_set(candidate)), {champion.suite, *same}
    promoted: dict[tuple[tuple[str, ...], str], bool] = {}  # by analysis; the first verdict on each counts
    for v in verdicts:
        if v.because.suite in suites:
            key = (_sides(v.because, champion, candidate, sides), v.because.policy)
            promoted.setdefault(key, isinstance(v, Promote))
    analyses = list(promoted)
    before = analyses[: analyses.index((sides, policy))] if (sides, policy) in promoted else analyses
    won = takewhile(lambda key: promoted[key] and key[1] == policy, reversed(before))
    return Analysis(len(before) + 1, sum(1 for _ in won))


def _sides(c: Comparison, champion: Scores, candidate: Scores, sides: tuple[str, ...]) -> tuple[str, ...]:
    """What an earlier comparison was made from. Verdicts of old stores name their scores alone."""
    if not c.answer_sets and (c.champion_scores, c.candidate_scores) == (champion.id, candidate.id):
        return sides
    return c.answer_sets or (c.champion_scores, c.candidate_scores)


def alpha_at(analysis: int, policy: Gate, promotions: int = 0) -> float:
    """The alpha at which the primaries of this analysis are tested, when so many analyses directly before it
    ended in a promotion."""
    if policy.alpha_spending == "full":
        return policy.alpha
    # The shares of the analyses from `first` to this one, 1 / (k (k + 1)) = 1 / k - 1 / (k + 1), telescope.
    first, most = analysis - promotions, max(policy.max_analyses, analysis)
    return policy.alpha * (1 / first - 1 / (analysis + 1)) * (1 + 1 / most)
