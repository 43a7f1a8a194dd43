"""Erasure: the one way out of the log, and the hashes that keep what left from coming back.

Entries leave when a person (a subject) requests it, or when the retention of an interaction is over.

Of a person (a subject) go: every interaction of theirs, everything they said about anybody's answers,
and whatever anybody said about the interactions that go, since a correction quotes them and a verdict
on nothing says nothing; a choice goes with any of its answers. What others asked stays, also where it
continues from an answer that goes. Of an interaction whose retention is over go its row and whatever anybody
said about it.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from escultor.ids import hash_bytes, new_id
from escultor.store.tables import erased, log, mention
from escultor.types import Erasure

INTERACTION, PENDING, FEEDBACK = "interaction", "pending", "feedback"
CHUNK = 500  # values in one statement
RETENTION = "retention"  # who asked for an erasure that no person asked for
_RETAIN_UNTIL = '"retain_until":'  # in a body; JSON escapes quotes, so that no text of a user contains it
_NUMBER = re.compile(r"[-+0-9.eE]+")

T = TypeVar("T")
_many = bindparam("many", expanding=True)
_OWN = select(log.c.seq, log.c.kind, log.c.id)  # of whatever kind: people stand in `subject` alone
_ABOUT = select(log.c.seq, log.c.kind, log.c.id).where(
    log.c.kind == FEEDBACK,
    log.c.seq.in_(
        select(log.c.seq)
        .where(log.c.target.in_(_many))
        .union_all(select(mention.c.seq).where(mention.c.about.in_(_many)))
    ),
)
_KNOWN = select(erased.c.digest).where(erased.c.digest.in_(_many))
_LEAVE = (delete(mention).where(mention.c.seq.in_(_many)), delete(log).where(log.c.seq.in_(_many)))


def digest(kind: str, id: str) -> str:
    """What is kept of the id of an erased entry: ids of the gateway are long and random, so that the
    hash does not give them away."""
    return hash_bytes(f"{kind}\0{id}".encode())


def digests(row: Mapping[str, Any], mentions: Iterable[str]) -> Iterator[str]:
    """What a new entry must not be, or be about."""
    if row["subject"] is not None:
        yield digest(row["kind"], row["id"])
    if row["kind"] == PENDING:
        yield digest(INTERACTION, row["id"])
    if row["kind"] == FEEDBACK:
        yield digest(INTERACTION, row["target"])
        for answer in mentions:
            yield digest(INTERACTION, answer)


def known(connection: Connection, found: Sequence[str]) -> set[str]:
    """Those of the digests that belong to erased entries."""
    gone: set[str] = set()
    for some in _chunks(found):
        gone.update(connection.execute(_KNOWN, {"many": some}).scalars())
    return gone


def digests_of(connection: Connection, erasures: Iterable[str]) -> list[str]:
    """The digests of what these erasures removed."""
    query = select(erased.c.digest).where(erased.c.erasure.in_(_many))
    return [d for some in _chunks(erasures) for d in connection.execute(query, {"many": some}).scalars()]


def erase(connection: Connection, subject: str, by: str) -> Erasure:
    """Delete the entries of a subject and the feedback on its answers, inside the caller's transaction. The
    Erasure is returned and still has to be appended."""
    own = connection.execute(_OWN.where(log.c.subject == subject)).all()
    erasure = Erasure(new_id("erasure"), time.time(), subject, by, {})
    return _remove(connection, own, erasure, "feedback of others")


def expired(connection: Connection, now: float, after: int) -> tuple[list[int], int]:
    """The entries behind number `after` that hold an interaction whose `retain_until` is at most `now`, and
    the number up to which no entry has a `retain_until` that is still to come."""
    find = func.strpos if connection.dialect.name == "postgresql" else func.instr
    start = find(log.c.body, _RETAIN_UNTIL)
    end = connection.execute(select(func.max(log.c.seq))).scalar() or 0
    query = select(log.c.seq, func.substr(log.c.body, start + len(_RETAIN_UNTIL), 32).label("until")).where(
        log.c.kind.in_((INTERACTION, PENDING)),
        log.c.seq > after,
        log.c.seq <= end,
        log.c.body.not_like(f"%{_RETAIN_UNTIL}null%"),  # several times faster than `find`, so it comes first
        start > 0,
    )
    over, first_to_come = [], end + 1
    for row in connection.execute(query):
        number = _NUMBER.match(row.until)
        if number and float(number[0]) <= now:
            over.append(row.seq)
        else:
            first_to_come = min(first_to_come, row.seq)
    return sorted(over), first_to_come - 1


def purge(connection: Connection, seqs: Sequence[int], now: float) -> Erasure | None:
    """Delete expired entries and the feedback on them, inside the caller's transaction; None where another
    process did. The Erasure, whose time is `now`, is returned and still has to be appended."""
    own = connection.execute(_OWN.where(log.c.seq.in_(_many)), {"many": seqs}).all()
    erasure = Erasure(new_id("erasure"), now, "", RETENTION, {})
    return _remove(connection, own, erasure, FEEDBACK) if own else None


def _remove(connection: Connection, own: Sequence[Any], erasure: Erasure, others: str) -> Erasure:
    """Delete entries and the feedback on their answers, which is counted under `others`; the erasure with its
    counts."""
    gone = {row.seq: (row.kind, row.id) for row in own}
    counts = Counter({INTERACTION: 0, FEEDBACK: 0} | Counter(row.kind for row in own))
    # An answer that was begun and has no row yet is one too.
    answers = {row.id for row in own if row.kind != FEEDBACK}
    for some in _chunks(answers):
        gone |= {row.seq: (row.kind, row.id) for row in connection.execute(_ABOUT, {"many": some})}
    counts[others] += len(gone) - len(own)
    left = {digest(kind, id) for kind, id in gone.values()} | {digest(INTERACTION, id) for id in answers}
    left -= known(connection, list(left))  # a pending record may have left before its row
    for some in _chunks(left):
        connection.execute(insert(erased), [{"digest": d, "erasure": erasure.id} for d in some])
    for some in _chunks(gone):
        for statement in _LEAVE:
            connection.execute(statement, {"many": some})
    return replace(erasure, counts=dict(counts))


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    values = iter(values)
    while some := list(islice(values, CHUNK)):
        yield some
