"""Alpha spending: how often a suite has been analysed, and the alpha that a further analysis has. Pure.

A suite that is compared on again and again promotes something in the end. So analyses are counted, as a fold
of the verdicts in the log, by items and lineage, and the k-th one is tested at alpha / (k (k + 1)): these sum
to `alpha` over all analyses there will ever be, so the probability that any promotion from one suite is false
stays below it (Foster & Stine 2008). Guards are tested at the full alpha each time: every candidate must keep
every guard by itself, so a later analysis gives a harmful candidate no further chance.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from escultor.config import Gate
from escultor.types import Scores, Verdict


def analysis_number(
    verdicts: Iterable[Verdict],
    champion: Scores,
    candidate: Scores,
    policy: str,
    parents: Mapping[str, tuple[str, ...]],
    same: Collection[str] = (),
) -> int:
    """The number of this comparison among the analyses of the suite within its lineage, from 1 on.

    `policy` is the hash of the policy. `same` are other suites that hold the suite's items: under another
    name, with other metrics or decoding, or extended by some items.

    A lineage is all checkpoints connected to the candidate by parentage (`parents`: by checkpoint id) or by a
    comparison on this suite. The same two checkpoints under the same policy are one analysis, however often
    they are compared: the suite fixes items, decoding and seeds. Under another policy they are a new one.
    """
    suites = {champion.suite, *same}
    earlier = [v.because for v in verdicts if v.because.suite in suites]
    compared = [(c.champion, c.candidate) for c in earlier] + [(champion.checkpoint, candidate.checkpoint)]
    inherited = [(child, parent) for child, names in parents.items() for parent in names]
    lineage = _connected(candidate.checkpoint, [*compared, *inherited])
    analyses = [
        (c.champion, c.candidate, c.policy, c.suite)
        for c in earlier
        if not lineage.isdisjoint((c.champion, c.candidate))
    ]
    this = (champion.checkpoint, candidate.checkpoint, policy, champion.suite)
    return list(dict.fromkeys([*analyses, this])).index(this) + 1


def alpha_at(analysis: int, policy: Gate) -> float:
    """The alpha at which the primaries of this analysis are tested."""
    return policy.alpha if policy.alpha_spending == "full" else policy.alpha / (analysis * (analysis + 1))


def _connected(start: str, edges: Iterable[tuple[str, str]]) -> set[str]:
    """Everything that is connected to `start`, itself included."""
    neighbours: dict[str, set[str]] = {}
    for a, b in edges:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    reached, frontier = {start}, [start]
    while frontier:
        fresh = neighbours.get(frontier.pop(), set()) - reached
        reached |= fresh
        frontier += fresh
    return reached
