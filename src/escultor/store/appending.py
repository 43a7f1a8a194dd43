"""Appending inside a transaction: new records are inserted, equal ones left, conflicting ones refused."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, null, select, text

from escultor.errors import DataError, Erased, EscultorError, IdTaken
from escultor.store import erasing
from escultor.store.codec import decode, encode, same
from escultor.store.database import display_url
from escultor.store.kinds import KINDS, SHARED, Spending, kind_of_instance
from escultor.store.tables import log, mention

LogRow = dict[str, Any]
RecordKey = tuple[str, str]  # kind and id
AppendOutcome = list[int] | EscultorError  # sequence numbers of a group's records, or why it was refused

NUL = "\0"
BATCH = 200  # records looked up and inserted by one statement

# Keys of a row that are no columns of `log`: rows of `mention`, what it adds to `spending`, and the record
# of a body that is only made where it is new.
_MENTIONS, _SPENT, _RECORD = "mentions", "spent", "record"
_NO_COLUMNS = {_MENTIONS, _SPENT, _RECORD}
_THESE = log.c.kind == bindparam("kind"), log.c.id.in_(bindparam("ids", expanding=True))
_STORED = select(log.c.id, log.c.seq, log.c.body).where(*_THESE)
_STORED_IDS = select(log.c.id, log.c.seq, null().label("body")).where(*_THESE)
_INSERT = insert(log).returning(log.c.seq, sort_by_parameter_order=True)
_MENTION = insert(mention)
_SPEND = text(  # the same in both dialects
    "insert into spending (key, day, tokens, usd) values (:key, :day, :tokens, :usd) on conflict (key, day) "
    "do update set tokens = spending.tokens + excluded.tokens, usd = spending.usd + excluded.usd"
)


def log_row(record: object) -> LogRow:
    """The columns of a record, and what it mentions besides its target. Raises InputError for a type the log
    does not hold, DataError for a record that could not be read back."""
    kind = kind_of_instance(record)
    body, when = None if kind.is_shared else encode(record), kind.time(record)
    id, target, subject = kind.id(record), kind.target(record), kind.subject(record)
    mentions, spent = kind.mentions(record), kind.spent(record)
    if any(NUL in text for text in (id, target or "", subject or "", spent.key if spent else "", *mentions)):
        what = "a record is found by texts without the character NUL, which PostgreSQL does not store"
        raise DataError(what, f"{kind.name} {id!r}", None, "leave the character out")
    return {
        "kind": kind.name,
        "id": id,
        "time": time.time() if when is None else when,
        "target": target,
        "subject": subject,
        "body": body,
        _MENTIONS: mentions,
        _SPENT: spent,
        _RECORD: record if kind.is_shared else None,
    }


def append(connection: Connection, groups: Sequence[Sequence[LogRow]], outcomes: list[AppendOutcome]) -> None:
    """Insert the new rows of each group that can be recorded. `outcomes` has an entry for each group: an
    error of an earlier check, or an empty list, which is filled with sequence numbers or replaced by the
    error. The caller's transaction holds the writers' lock."""
    rows = [row for group in groups for row in group]
    stored = _stored(connection, rows)
    new_digests = (digest for row in rows if _key(row) not in stored for digest in _digests(row))
    erased = erasing.erased_among(connection, list(new_digests))
    fresh: dict[RecordKey, LogRow] = {}
    for index, group in enumerate(groups):
        try:
            fresh |= _new_rows(group, stored, fresh, erased)
        except (IdTaken, Erased) as error:
            what = f"the store {display_url(connection.engine)} {error.what}"
            outcomes[index] = type(error)(what, error.got, error.allowed, error.remedy)
        except DataError as error:
            outcomes[index] = error
    numbers = {key: row.seq for key, row in stored.items()} | _insert(connection, fresh)
    for outcome, group in zip(outcomes, groups, strict=True):
        if isinstance(outcome, list):
            outcome += [numbers[_key(row)] for row in group]


def _new_rows(
    group: Sequence[LogRow],
    stored: Mapping[RecordKey, Row[Any]],
    fresh: Mapping[RecordKey, LogRow],
    erased: Collection[str],
) -> dict[RecordKey, LogRow]:
    """The rows of a group that are neither `stored` nor `fresh` (of an earlier group). Raises IdTaken for an
    id that names other content, Erased for a row that is, or is about, what was erased, DataError for a
    shared record that could not be read back."""
    new: dict[RecordKey, LogRow] = {}
    for row in group:
        key, name = _key(row), f"{row['kind']} {row['id']!r}"
        known = stored.get(key)
        if row["kind"] in SHARED:  # equal ids are equal contents
            if not known and key not in fresh and key not in new:
                new[key] = {**row, "body": encode(row[_RECORD])}
            continue
        body = known.body if known else (new.get(key) or fresh.get(key) or row)["body"]
        if body != row["body"] and not _equal(row, body):
            where = f"as entry {known.seq}" if known else "earlier in the same call"
            what, remedy = (
                f"holds other content under this id {where}",
                "record the new content under a new id",
            )
            raise IdTaken(what, name, "an id names one content for ever", remedy)
        if known or key in fresh:
            continue
        if erased and any(digest in erased for digest in _digests(row)):
            what = "erased this, or what it is about, on request"
            raise Erased(what, name, None, "leave it out; it is not to return")
        new.setdefault(key, row)
    return new


def _stored(connection: Connection, rows: Sequence[LogRow]) -> dict[RecordKey, Row[Any]]:
    """`seq` and `body` of those rows whose id is already in the log."""
    stored: dict[RecordKey, Row[Any]] = {}
    for kind in {row["kind"] for row in rows}:
        ids = [row["id"] for row in rows if row["kind"] == kind]
        for start in range(0, len(ids), BATCH):
            query = _STORED_IDS if kind in SHARED else _STORED
            matches = connection.execute(query, {"kind": kind, "ids": ids[start : start + BATCH]})
            stored |= {(kind, row.id): row for row in matches}
    return stored


def _insert(connection: Connection, fresh: Mapping[RecordKey, LogRow]) -> dict[RecordKey, int]:
    """Insert new rows in order, and return their sequence numbers."""
    numbers: dict[RecordKey, int] = {}
    mentions: list[dict[str, Any]] = []
    rows = list(fresh.items())
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        columns = [{name: row[name] for name in row.keys() - _NO_COLUMNS} for _, row in batch]
        for (key, row), seq in zip(batch, connection.execute(_INSERT, columns).scalars(), strict=True):
            numbers[key] = seq
            mentions += [{"about": answer, "seq": seq} for answer in dict.fromkeys(row[_MENTIONS])]
    if mentions:
        connection.execute(_MENTION, mentions)
    _spend(connection, [row[_SPENT] for row in fresh.values() if row[_SPENT] is not None])
    return numbers


def _spend(connection: Connection, spent: Sequence[Spending]) -> None:
    """Add what rows cost to what their keys have spent."""
    sums: dict[tuple[str, int], list[Spending]] = {}
    for each in spent:
        sums.setdefault((each.key, each.day), []).append(each)
    for (key, day), parts in sums.items():
        totals = {"tokens": sum(p.tokens for p in parts), "usd": math.fsum(p.usd for p in parts)}
        connection.execute(_SPEND, {"key": key, "day": day, **totals})


def _key(row: LogRow) -> RecordKey:
    return row["kind"], row["id"]


def _digests(row: LogRow) -> Iterator[str]:
    return erasing.digests(row, row[_MENTIONS])


def _equal(row: LogRow, body: str) -> bool:
    """Whether a body decodes to the record of `row`: keys may be in another order, a default left out."""
    kind = next(kind for kind in KINDS if kind.name == row["kind"])
    return same(decode(kind, body), decode(kind, row["body"]))
