"""Erasure, the only way out of the log, and the hashes that keep erased records from being recorded again.

Records leave when a person (a subject) requests it, or when the retention of an interaction is over. Erasing
a subject removes their interactions, their feedback on anybody's answers, and all feedback on the removed
interactions: a correction quotes them, and a rating of nothing means nothing. A choice is removed with any of
its answers. Interactions of others stay, even those that continue from a removed answer. An interaction whose
retention is over is removed with all feedback on it. Definitions of tools and media, which rows of many
people may share, are removed with the last row that names them.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from escultor.ids import hash_bytes, new_id
from escultor.store.kinds import SHARED, shared_mention
from escultor.store.tables import erased, log, mention
from escultor.types import Erasure

INTERACTION, PENDING, FEEDBACK = "interaction", "pending", "feedback"
_ANSWERS = (INTERACTION, PENDING)
BATCH = 500  # values in one statement
RETENTION = "retention"  # who asked for an erasure that no person asked for
_RETAIN_UNTIL = '"retain_until":'  # in a body; JSON escapes quotes, so that no text of a user contains it
_NUMBER = re.compile(r"[-+0-9.eE]+")

T = TypeVar("T")
_many = bindparam("many", expanding=True)
_COLUMNS = select(log.c.seq, log.c.kind, log.c.id)
_FEEDBACK_ABOUT = _COLUMNS.where(
    log.c.kind == FEEDBACK,
    log.c.seq.in_(
        select(log.c.seq)
        .where(log.c.target.in_(_many))
        .union_all(select(mention.c.seq).where(mention.c.about.in_(_many)))
    ),
)
_ERASED = select(erased.c.digest).where(erased.c.digest.in_(_many))
_MENTIONED = select(mention.c.about).distinct().where(mention.c.about.in_(_many))
_SHARED = select(mention.c.about).distinct().where(mention.c.seq.in_(_many), mention.c.about.like("#%"))
_DELETE_SHARED = delete(log).where(log.c.kind == bindparam("kind"), log.c.id.in_(_many))
_DELETE = (delete(mention).where(mention.c.seq.in_(_many)), delete(log).where(log.c.seq.in_(_many)))


def digest(kind: str, id: str) -> str:
    """The hash kept of an erased record's id. Ids are long and random, so it does not reveal them."""
    return hash_bytes(f"{kind}\0{id}".encode())


def digests(row: Mapping[str, Any], mentions: Iterable[str]) -> Iterator[str]:
    """The digests of the records that a new row is, or is about; none of them may have been erased."""
    if row["subject"] is not None:
        yield digest(row["kind"], row["id"])
    if row["kind"] == PENDING:
        yield digest(INTERACTION, row["id"])
    if row["kind"] == FEEDBACK:
        yield digest(INTERACTION, row["target"])
        for answer in mentions:
            yield digest(INTERACTION, answer)


def erased_among(connection: Connection, candidates: Iterable[str]) -> set[str]:
    """Those of the digests that belong to erased records."""
    batches = (connection.execute(_ERASED, {"many": batch}).scalars() for batch in _batches(candidates))
    return {digest for batch in batches for digest in batch}


def digests_of(connection: Connection, erasures: Iterable[str]) -> list[str]:
    """The digests of what these erasures removed."""
    query = select(erased.c.digest).where(erased.c.erasure.in_(_many))
    batches = (connection.execute(query, {"many": batch}).scalars() for batch in _batches(erasures))
    return [digest for batch in batches for digest in batch]


def erase(connection: Connection, subject: str, by: str) -> Erasure:
    """Delete a subject's records and the feedback on them, inside the caller's transaction. Returns the
    Erasure that describes this; the caller appends it."""
    own = connection.execute(_COLUMNS.where(log.c.subject == subject)).all()
    erasure = Erasure(new_id("erasure"), time.time(), subject, by, {})
    return _remove(connection, own, erasure, "feedback of others")


def expired(connection: Connection, now: float, after: int, upto: float = math.inf) -> tuple[list[int], int]:
    """Sequence numbers behind `after`, up to `upto`, of interactions whose `retain_until` is at most `now`,
    and the number up to which no record there has a `retain_until` that is still to come."""
    find = func.strpos if connection.dialect.name == "postgresql" else func.instr
    start = find(log.c.body, _RETAIN_UNTIL)
    end = int(min(connection.execute(select(func.max(log.c.seq))).scalar() or 0, upto))
    query = select(log.c.seq, func.substr(log.c.body, start + len(_RETAIN_UNTIL), 32).label("until")).where(
        log.c.kind.in_(_ANSWERS),
        log.c.seq > after,
        log.c.seq <= end,
        log.c.body.not_like(f"%{_RETAIN_UNTIL}null%"),  # several times faster than `find`, so it comes first
        start > 0,
    )
    over, first_pending = [], end + 1
    for row in connection.execute(query):
        number = _NUMBER.match(row.until)
        if number and float(number[0]) <= now:
            over.append(row.seq)
        else:
            first_pending = min(first_pending, row.seq)
    return sorted(over), first_pending - 1


def purge(connection: Connection, seqs: Sequence[int], now: float) -> Erasure | None:
    """Delete expired records and the feedback on them, inside the caller's transaction. Returns the Erasure
    that describes this, at time `now`, which the caller appends; None where another process deleted them
    first."""
    own = connection.execute(_COLUMNS.where(log.c.seq.in_(_many)), {"many": seqs}).all()
    erasure = Erasure(new_id("erasure"), now, "", RETENTION, {})
    return _remove(connection, own, erasure, FEEDBACK) if own else None


def remove(connection: Connection, records: Iterable[tuple[str, str]]) -> None:
    """Delete records by kind and id, inside the caller's transaction, without a trace of their own."""
    for kind, id in records:
        seqs = connection.execute(select(log.c.seq).where(log.c.kind == kind, log.c.id == id)).scalars().all()
        for statement in _DELETE:
            connection.execute(statement, {"many": seqs})


def _remove(connection: Connection, own: Sequence[Any], erasure: Erasure, others: str) -> Erasure:
    """Delete records and the feedback on their answers, which is counted under `others`. Returns the erasure
    with its counts."""
    removed = {row.seq: row for row in own}
    counts = Counter({INTERACTION: 0, FEEDBACK: 0} | Counter(row.kind for row in own))
    # All kinds but feedback: a pending interaction is an answer too.
    answers = {row.id for row in own if row.kind != FEEDBACK}
    for batch in _batches(answers):
        removed |= {row.seq: row for row in connection.execute(_FEEDBACK_ABOUT, {"many": batch})}
    counts[others] += len(removed) - len(own)
    new = {digest(row.kind, row.id) for row in removed.values()} | {digest(INTERACTION, id) for id in answers}
    new -= erased_among(connection, new)  # a pending record may have been removed before its interaction
    for batch in _batches(new):
        connection.execute(insert(erased), [{"digest": each, "erasure": erasure.id} for each in batch])
    lists = (connection.execute(_SHARED, {"many": batch}).scalars() for batch in _batches(removed))
    shared = {mention for each in lists for mention in each}
    for batch in _batches(removed):
        for statement in _DELETE:
            connection.execute(statement, {"many": batch})
    counts.update(_retire(connection, shared))
    return replace(erasure, counts=dict(counts))


def _retire(connection: Connection, mentions: set[str]) -> Counter[str]:
    """Delete those of the records under these mentions that no row names any more; how many, by kind."""
    named = (connection.execute(_MENTIONED, {"many": batch}).scalars() for batch in _batches(mentions))
    left = sorted(mentions - {mention for each in named for mention in each})
    counts: Counter[str] = Counter()
    for kind in SHARED:
        prefix = shared_mention(kind, "")
        for batch in _batches(each.removeprefix(prefix) for each in left if each.startswith(prefix)):
            counts[kind] += connection.execute(_DELETE_SHARED, {"kind": kind, "many": batch}).rowcount
    return +counts


def _batches(values: Iterable[T]) -> Iterator[list[T]]:
    values = iter(values)
    while batch := list(islice(values, BATCH)):
        yield batch
