"""The model registry: a pure fold of the deployments in the log, of which the last one is in force."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from escultor.errors import InputError
from escultor.ids import hash_value, new_id
from escultor.types import Deployment

if TYPE_CHECKING:
    from escultor.store.log import Log

CHAMPION, CANDIDATE, PREVIOUS = "champion", "candidate", "previous"
ALIASES = (CHAMPION, CANDIDATE, PREVIOUS)


def read_deployments(log: Log) -> list[Deployment]:
    """All deployments in a log, oldest first."""
    return [deployment for _, deployment in log.read(Deployment)]


def current(deployments: Iterable[Deployment]) -> Deployment | None:
    """The deployment in force: the last one recorded; None before the first."""
    last = deque(deployments, maxlen=1)
    return last[0] if last else None


def aliases(deployments: Iterable[Deployment]) -> dict[str, str]:
    """The checkpoint id of each alias; empty before the first deployment."""
    last = current(deployments)
    return {} if last is None else dict(last.aliases)


def champion(deployments: Iterable[Deployment]) -> str | None:
    """The champion's checkpoint id; None before the first deployment."""
    return aliases(deployments).get(CHAMPION)


def previous(deployments: Iterable[Deployment]) -> str | None:
    """The checkpoint id a rollback would restore; None where there is none."""
    return aliases(deployments).get(PREVIOUS)


def validated(deployment: Deployment) -> Deployment:
    """The deployment itself. Raises InputError unless its shares are positive and sum to 1, its aliases are
    known, and its champion has a share."""
    shares, named = deployment.shares, deployment.aliases
    if not all(0 < share <= 1 for share in shares.values()):
        raise InputError("a share of traffic is out of range", shares, "more than 0, at most 1")
    if not math.isclose(total := math.fsum(shares.values()), 1.0, abs_tol=1e-9):
        raise InputError("the shares of traffic do not sum to 1", f"{shares}, sum {total!r}", 1)
    if unknown := sorted(set(named) - set(ALIASES)):
        raise InputError("an alias is not known", ", ".join(unknown), ", ".join(ALIASES))
    if named.get(CHAMPION) not in shares:
        remedy = "name a champion, and give it a share"
        raise InputError("the champion takes no traffic", named.get(CHAMPION), sorted(shares), remedy)
    return deployment


def deployment_for(
    because: str, candidate: str, current: Deployment | None, *, now: float | None = None
) -> Deployment:
    """The deployment that makes `candidate` the champion, with all traffic.

    `because` is the id of the verdict's comparison or a person's reason. The old champion becomes the
    previous one; deploying the champion again ends a candidate's trial and keeps the previous one. Raises
    InputError when `because` or `candidate` is empty.
    """
    if not because.strip() or not candidate.strip():
        got = f"because {because!r}, candidate {candidate!r}"
        raise InputError("a deployment needs a reason and a candidate", got, "text that is not empty")
    old = {} if current is None else current.aliases
    before = old.get(PREVIOUS) if old.get(CHAMPION) == candidate else old.get(CHAMPION)
    return _all_traffic(candidate, before, because, current, now)


def trial(
    because: str, candidate: str, share: float, current: Deployment | None, *, now: float | None = None
) -> Deployment:
    """The deployment that gives a candidate a share of the traffic next to the champion; 0: shadow traffic
    only. Raises InputError without a champion, for a share outside [0, 1), or for a second candidate."""
    named = {} if current is None else current.aliases
    holder, tried = named.get(CHAMPION), named.get(CANDIDATE)
    if holder is None:
        raise InputError("there is no champion to try a candidate against", remedy="promote a model first")
    if not 0 <= share < 1:
        raise InputError("the candidate's share of the traffic is out of range", share, "0 to below 1")
    if candidate == holder:
        raise InputError("the candidate is the champion already", candidate)
    if tried not in (None, candidate):
        remedy = "end its trial first: deploy the champion again, or the candidate"
        raise InputError("another candidate is being tried", tried, candidate, remedy)
    shares = {holder: 1.0 - share, candidate: share} if share else {holder: 1.0}
    when = time.time() if now is None else now
    return validated(Deployment(_id_after(current), when, shares, {**named, CANDIDATE: candidate}, because))


def rollback(history: Iterable[Deployment], because: str | None = None) -> Deployment:
    """The deployment that restores the previous champion. Its `previous` alias is the one in force when that
    champion last was, so repeated rollbacks go further back instead of alternating between two models. Raises
    InputError where none is left."""
    past = tuple(history)
    back = previous(past)
    if back is None:
        what = "there is no previous champion to roll back to"
        remedy = "deploy a checkpoint by its id instead"
        raise InputError(what, f"{len(past)} deployments, champion {champion(past)}", None, remedy)
    held = [entry for entry in past if entry.aliases.get(CHAMPION) == back]
    before = held[-1].aliases.get(PREVIOUS) if held else None
    return _all_traffic(back, before, because or f"rollback of {past[-1].id}", past[-1])


def _all_traffic(
    holder: str, before: str | None, because: str, current: Deployment | None, now: float | None = None
) -> Deployment:
    named = {CHAMPION: holder} if before is None else {CHAMPION: holder, PREVIOUS: before}
    when = time.time() if now is None else now
    return validated(Deployment(_id_after(current), when, {holder: 1.0}, named, because))


def _id_after(current: Deployment | None) -> str:
    """The id of the next deployment. What follows on a stage of a trial has one id, whatever decides it: the
    log takes the first, and no advance undoes a rollback that was decided at the same time."""
    if current is None or CANDIDATE not in current.aliases:
        return new_id("dep")
    return f"dep-{hash_value(['after', current.id])}"
