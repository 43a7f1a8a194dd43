"""Erasure: the one way out of the log, and the hashes that keep what left from coming back.

Of a person (a subject) go: every interaction of theirs, everything they said about anybody's answers,
and whatever anybody said about the interactions that go, since a correction quotes them and a verdict
on nothing says nothing; a choice goes with any of its answers. What others asked stays, also where it
continues from an answer that goes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, delete, insert, select

from escultor.ids import hash_bytes, new_id
from escultor.store.tables import erased, log, mention
from escultor.types import Erasure

INTERACTION, PENDING, FEEDBACK = "interaction", "pending", "feedback"
CHUNK = 500  # values in one statement

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
    """Delete the entries, inside the caller's transaction; the Erasure that speaks of them is returned
    and still has to be appended."""
    own = connection.execute(_OWN.where(log.c.subject == subject)).all()
    gone = {seq: (kind, id) for seq, kind, id in own}
    counts = {INTERACTION: 0, FEEDBACK: 0} | Counter(kind for _, kind, _ in own)
    # An answer that was begun and has no row yet is one too.
    answers = {id for _, kind, id in own if kind != FEEDBACK}
    for some in _chunks(answers):
        gone |= {seq: (kind, id) for seq, kind, id in connection.execute(_ABOUT, {"many": some})}
    counts["feedback of others"] = len(gone) - len(own)
    erasure = Erasure(new_id("erasure"), time.time(), subject, by, counts)
    left = {digest(kind, id) for kind, id in gone.values()} | {digest(INTERACTION, id) for id in answers}
    for some in _chunks(left):
        connection.execute(insert(erased), [{"digest": d, "erasure": erasure.id} for d in some])
    for some in _chunks(gone):
        for statement in _LEAVE:
            connection.execute(statement, {"many": some})
    return erasure


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    values = iter(values)
    while some := list(islice(values, CHUNK)):
        yield some
