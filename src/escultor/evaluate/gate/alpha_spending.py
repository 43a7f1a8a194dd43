"""The trial ledger: how often a suite has been looked at, and what a further look may cost. Pure.

A suite that is asked again and again says yes in the end. So looks are counted, as a fold of the verdicts
in the log, by items and lineage, and the k-th one is tested at level / (k (k + 1)): these sum to `level`
over all looks there will ever be, so the chance that any promotion from one suite is false stays below it
(alpha spending; Foster & Stine 2008). Guards are not cheaper to pass at a later look, since every candidate
must keep every guard by itself: they are tested at the full level each time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from escultor.config import Gate
from escultor.types import Scores, Verdict


def look_number(
    verdicts: Iterable[Verdict],
    champion: Scores,
    candidate: Scores,
    policy: str,
    parents: Mapping[str, tuple[str, ...]],
    same: Collection[str] = (),
) -> int:
    """The how manieth look at the suite this comparison is within its lineage, from 1 on.

    `same` are other suites that hold its items: one under another name, with other metrics or decoding, or
    grown by some items, is looked at for a further time, not for the first.

    A lineage is all checkpoints tied to the candidate by parentage (`parents`: by checkpoint id) or by a
    comparison on this suite. The same two checkpoints under the same policy (its hash) are the same look,
    however often they are asked for: the suite fixes items, decoding and seeds. Another policy is a new one.
    """
    suites = {champion.suite, *same}
    held = [v.because for v in verdicts if v.because.suite in suites]
    ties = [(c.champion, c.candidate) for c in held] + [(champion.checkpoint, candidate.checkpoint)]
    kin = _kin(candidate.checkpoint, [*ties, *((c, p) for c, ps in parents.items() for p in ps)])
    looks = [(c.champion, c.candidate, c.policy, c.suite) for c in held if {c.champion, c.candidate} & kin]
    this = (champion.checkpoint, candidate.checkpoint, policy, champion.suite)
    return list(dict.fromkeys([*looks, this])).index(this) + 1


def level_of(look: int, policy: Gate) -> float:
    """The level at which this look's primaries are tested; over all looks they sum to the policy's."""
    return policy.level if policy.looks == "free" else policy.level / (look * (look + 1))


def is_used_up(look: int, policy: Gate) -> bool:
    """Whether the suite has been looked at as often as the policy allows."""
    return look > policy.most_looks


def _kin(one: str, ties: Iterable[tuple[str, str]]) -> set[str]:
    """Everything that is tied to `one`, directly or through others."""
    neighbours: dict[str, set[str]] = {}
    for a, b in ties:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    found, open_ = {one}, [one]
    while open_:
        fresh = neighbours.get(open_.pop(), set()) - found
        found |= fresh
        open_ += fresh
    return found
