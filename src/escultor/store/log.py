"""The append-only log: every noun that is recorded, in one table, in the order it was recorded.

Nothing is ever updated or deleted; what holds now is a fold of the entries.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    select,
)

from escultor.errors import IdTaken
from escultor.store.codec import decode, encode, same
from escultor.store.database import name_of, reading, writing
from escultor.store.kinds import KINDS, Kind, kind_of, kind_of_instance

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")

PAGE = 256  # entries held in memory while reading
BATCH = 200  # entries looked up and inserted by one statement

metadata = MetaData()
table = Table(
    "log",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("time", Double, nullable=False),
    Column("target", Text),
    Column("subject", Text),
    Column("body", Text, nullable=False),
    UniqueConstraint("kind", "id", name="uq_log_kind_id"),
    Index("ix_log_kind_seq", "kind", "seq"),
    Index("ix_log_target", "target"),
    Index("ix_log_subject", "subject"),
    sqlite_autoincrement=True,
)
_c = table.c


class Log:
    """Appends nouns and reads them back. One per process is enough; threads may share it."""

    def __init__(self, engine: Engine):
        """Use `escultor.store.open_store`, which makes sure that the table is there."""
        self._engine = engine

    def append(self, *nouns: object) -> list[int]:
        """Record nouns in one transaction; they are on disk when this returns their sequence numbers.

        A noun that is already there with the same content is not written again and its number is
        returned, so a write whose outcome is unknown may be repeated. Raises IdTaken when its id is
        taken by other content (nothing of the call is then kept), StoreError when the store fails,
        InputError for a noun the log does not hold, DataError for one that could not be read back.
        """
        rows = [_row(noun) for noun in nouns]
        if not rows:
            return []
        numbers: list[int] = []
        with writing(self._engine) as connection:
            for start in range(0, len(rows), BATCH):
                numbers += self._append(connection, rows[start : start + BATCH])
        return numbers

    def get(self, noun: TypeForm[T], id: str) -> T | None:
        """The noun with this id, or None."""
        kind = kind_of(noun)
        with reading(self._engine) as connection:
            where = (_c.kind == kind.name, _c.id == id)
            body = connection.execute(select(_c.body).where(*where)).scalar()
        return None if body is None else decode(kind, body)

    def last(self, noun: TypeForm[T]) -> T | None:
        """The noun of this kind recorded last, or None."""
        kind = kind_of(noun)
        query = select(_c.body).where(_c.kind == kind.name).order_by(_c.seq.desc()).limit(1)
        with reading(self._engine) as connection:
            body = connection.execute(query).scalar()
        return None if body is None else decode(kind, body)

    def count(self, noun: TypeForm[T]) -> int:
        """How many nouns of this kind are recorded."""
        query = select(func.count()).select_from(table).where(_c.kind == kind_of(noun).name)
        with reading(self._engine) as connection:
            return connection.execute(query).scalar_one()

    def read(
        self,
        noun: TypeForm[T],
        after: int = 0,
        limit: int | None = None,
        target: str | None = None,
        subject: str | None = None,
        since: float | None = None,
    ) -> Iterator[tuple[int, T]]:
        """Sequence number and noun, in the order recorded, beginning behind number `after`.

        `noun` is a class or a sum type (`Interaction`, `Feedback`); `target` and `subject` keep the
        entries about one thing or from one person, `since` those whose time is no earlier. Read page
        by page: memory stays flat, no transaction stays open, and entries appended meanwhile follow.
        """
        kind = kind_of(noun)
        query = select(_c.seq, _c.body).where(_c.kind == kind.name).order_by(_c.seq)
        query = query.where(_c.target == target) if target is not None else query
        query = query.where(_c.subject == subject) if subject is not None else query
        query = query.where(_c.time >= since) if since is not None else query
        return self._pages(kind, query, after, limit)

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    def _pages(self, kind: Kind, query: Select[Any, Any], after: int, limit: int | None) -> Iterator[Any]:
        while limit is None or limit > 0:
            size = PAGE if limit is None else min(PAGE, limit)
            with reading(self._engine) as connection:
                rows = connection.execute(query.where(_c.seq > after).limit(size)).all()
            for seq, body in rows:
                yield seq, decode(kind, body)
            if len(rows) < size:
                return
            after = rows[-1].seq
            limit = None if limit is None else limit - size

    def _append(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> list[int]:
        known = self._known(connection, rows)
        fresh: dict[tuple[str, str], dict[str, Any]] = {}
        for row in rows:
            key = row["kind"], row["id"]
            seq, body = known.get(key) or (None, fresh.get(key, row)["body"])
            if body != row["body"] and not _equal(row, body):
                raise self._taken(row, seq)
            if seq is None:
                fresh.setdefault(key, row)
        if fresh:
            query = insert(table).returning(_c.seq, sort_by_parameter_order=True)
            numbers = connection.execute(query, list(fresh.values())).scalars()
            known |= {key: (seq, "") for key, seq in zip(fresh, numbers, strict=True)}
        return [known[row["kind"], row["id"]][0] for row in rows]

    @staticmethod
    def _known(
        connection: Connection, rows: Sequence[dict[str, Any]]
    ) -> dict[tuple[str, str], tuple[int, str]]:
        """Number and body of those rows whose id is already in the log."""
        known: dict[tuple[str, str], tuple[int, str]] = {}
        for kind in {row["kind"] for row in rows}:
            ids = [row["id"] for row in rows if row["kind"] == kind]
            query = select(_c.id, _c.seq, _c.body).where(_c.kind == kind, _c.id.in_(ids))
            known |= {(kind, id): (seq, body) for id, seq, body in connection.execute(query)}
        return known

    def _taken(self, row: dict[str, Any], seq: int | None) -> IdTaken:
        where = "earlier in the same call" if seq is None else f"as entry {seq}"
        return IdTaken(
            f"the store {name_of(self._engine)} holds other content under this id {where}",
            f"{row['kind']} {row['id']!r}",
            "an id names one content for ever",
            "record the new content under a new id",
        )


def _row(noun: object) -> dict[str, Any]:
    kind = kind_of_instance(noun)
    body, when = encode(noun), kind.time(noun)
    return {
        "kind": kind.name,
        "id": kind.id(noun),
        "time": time.time() if when is None else when,
        "target": kind.target(noun),
        "subject": kind.subject(noun),
        "body": body,
    }


def _equal(row: dict[str, Any], body: str) -> bool:
    """Whether two bodies say the same in other words: keys in another order, a default left out."""
    kind = next(kind for kind in KINDS if kind.name == row["kind"])
    return same(decode(kind, body), decode(kind, row["body"]))
