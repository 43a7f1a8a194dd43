"""Appending inside a transaction: what is new goes in, what is there is left, the rest is refused."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from escultor.errors import Erased, EscultorError, IdTaken
from escultor.store import erasing
from escultor.store.codec import decode, encode, same
from escultor.store.database import name_of
from escultor.store.kinds import KINDS, kind_of_instance
from escultor.store.tables import log, mention

LogRow = dict[str, Any]
RecordKey = tuple[str, str]  # kind and id
AppendOutcome = list[int] | EscultorError  # the numbers of a group's entries, or why it was not recorded

BATCH = 200  # entries looked up and inserted by one statement

_MENTIONS = "mentions"  # of a row, beside its columns
_KNOWN = select(log.c.id, log.c.seq, log.c.body).where(
    log.c.kind == bindparam("kind"), log.c.id.in_(bindparam("ids", expanding=True))
)
_INSERT = insert(log).returning(log.c.seq, sort_by_parameter_order=True)
_MENTION = insert(mention)


def row_of(noun: object) -> LogRow:
    """The columns of a noun, and what else it mentions. Raises InputError for what the log does not hold,
    DataError for what could not be read back."""
    kind = kind_of_instance(noun)
    body, when = encode(noun), kind.time(noun)
    return {
        "kind": kind.name,
        "id": kind.id(noun),
        "time": time.time() if when is None else when,
        "target": kind.target(noun),
        "subject": kind.subject(noun),
        "body": body,
        _MENTIONS: kind.mentions(noun),
    }


def append(connection: Connection, groups: Sequence[Sequence[LogRow]], outcomes: list[AppendOutcome]) -> None:
    """Insert what is new of each group that has no fault; numbers or the fault go into `outcomes`, where
    there may be a fault already. The caller's transaction holds the writers' lock."""
    known = _known(connection, [row for group in groups for row in group])
    gone = _gone(connection, [row for group in groups for row in group if _key(row) not in known])
    fresh: dict[RecordKey, LogRow] = {}
    for at, group in enumerate(groups):
        try:
            fresh |= _admitted(group, known, fresh, gone)
        except (IdTaken, Erased) as error:
            what = f"the store {name_of(connection.engine)} {error.what}"
            outcomes[at] = type(error)(what, error.got, error.allowed, error.remedy)
    numbers = {key: seq for key, (seq, _) in known.items()} | _insert(connection, fresh)
    for outcome, group in zip(outcomes, groups, strict=True):
        if isinstance(outcome, list):
            outcome += [numbers[_key(row)] for row in group]


def _admitted(
    group: Sequence[LogRow],
    known: Mapping[RecordKey, tuple[int, str]],
    fresh: Mapping[RecordKey, LogRow],
    gone: Collection[str],
) -> dict[RecordKey, LogRow]:
    """The rows of a group that are new. Raises IdTaken or Erased for one that cannot be recorded."""
    new: dict[RecordKey, LogRow] = {}
    for row in group:
        key = _key(row)
        seq, body = known.get(key) or (None, (new.get(key) or fresh.get(key) or row)["body"])
        if body != row["body"] and not _equal(row, body):
            raise _taken(row, seq)
        if seq is not None or key in fresh:
            continue
        if gone and any(digest in gone for digest in _named(row)):
            got = f"{row['kind']} {row['id']!r}"
            what = "erased this, or what it is about, on request"
            raise Erased(what, got, None, "leave it out; it is not to return")
        new.setdefault(key, row)
    return new


def _taken(row: LogRow, seq: int | None) -> IdTaken:
    where = "earlier in the same call" if seq is None else f"as entry {seq}"
    return IdTaken(
        f"holds other content under this id {where}",
        f"{row['kind']} {row['id']!r}",
        "an id names one content for ever",
        "record the new content under a new id",
    )


def _known(connection: Connection, rows: Sequence[LogRow]) -> dict[RecordKey, tuple[int, str]]:
    """Number and body of those rows whose id is already in the log."""
    known: dict[RecordKey, tuple[int, str]] = {}
    for kind in {row["kind"] for row in rows}:
        ids = [row["id"] for row in rows if row["kind"] == kind]
        for start in range(0, len(ids), BATCH):
            found = connection.execute(_KNOWN, {"kind": kind, "ids": ids[start : start + BATCH]})
            known |= {(kind, id): (seq, body) for id, seq, body in found}
    return known


def _gone(connection: Connection, rows: Sequence[LogRow]) -> set[str]:
    """The digests that these rows name and that belong to what was erased."""
    return erasing.known(connection, [digest for row in rows for digest in _named(row)])


def _insert(connection: Connection, fresh: Mapping[RecordKey, LogRow]) -> dict[RecordKey, int]:
    """Insert new rows in order; their numbers."""
    numbers: dict[RecordKey, int] = {}
    about: list[tuple[str, int]] = []
    rows = list(fresh.items())
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        columns = [{name: row[name] for name in row.keys() - {_MENTIONS}} for _, row in some]
        for (key, row), seq in zip(some, connection.execute(_INSERT, columns).scalars(), strict=True):
            numbers[key] = seq
            about += [(answer, seq) for answer in dict.fromkeys(row[_MENTIONS])]
    if about:
        connection.execute(_MENTION, [{"about": answer, "seq": seq} for answer, seq in about])
    return numbers


def _key(row: LogRow) -> RecordKey:
    return row["kind"], row["id"]


def _named(row: LogRow) -> Iterator[str]:
    return erasing.digests(row, row[_MENTIONS])


def _equal(row: LogRow, body: str) -> bool:
    """Whether two bodies say the same in other words: keys in another order, a default left out."""
    kind = next(kind for kind in KINDS if kind.name == row["kind"])
    return same(decode(kind, body), decode(kind, row["body"]))
