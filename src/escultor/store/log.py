"""The log: every noun that is recorded, in one table, in the order it was recorded.

Nothing is ever updated, and nothing deleted but on the request of whom it is about (`erase`); what holds
now is a fold of the entries.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, Select, bindparam, func, insert, select

from escultor.errors import Erased, IdTaken
from escultor.store import erasing
from escultor.store.codec import decode, encode, same
from escultor.store.database import name_of, reading, scrub, writing
from escultor.store.kinds import KINDS, Kind, kind_of, kind_of_instance
from escultor.store.tables import log, mention
from escultor.types import Erasure

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")
Row = dict[str, Any]

PAGE = 256  # entries held in memory while reading
BATCH = 200  # entries looked up and inserted by one statement

_c = log.c
_MENTIONS = "mentions"  # of a row, beside its columns
_KNOWN = select(_c.id, _c.seq, _c.body).where(
    _c.kind == bindparam("kind"), _c.id.in_(bindparam("ids", expanding=True))
)
_INSERT = insert(log).returning(_c.seq, sort_by_parameter_order=True)
_MENTION = insert(mention)


class Log:
    """Appends nouns and reads them back. One per process is enough; threads may share it."""

    def __init__(self, engine: Engine):
        """Use `escultor.store.open_store`, which makes sure that the tables are there."""
        self._engine = engine

    def append(self, *nouns: object) -> list[int]:
        """Record nouns in one transaction; they are on disk when this returns their sequence numbers.

        A noun that is already there with the same content is not written again and its number is
        returned, so a write whose outcome is unknown may be repeated. Raises IdTaken when its id is
        taken by other content, Erased when it or what it is about was erased (nothing of the call is
        then kept), StoreError when the store fails, InputError for a noun the log does not hold,
        DataError for one that could not be read back.
        """
        rows = [_row(noun) for noun in nouns]
        if not rows:
            return []
        numbers: list[int] = []
        with writing(self._engine) as connection:
            for start in range(0, len(rows), BATCH):
                numbers += self._append(connection, rows[start : start + BATCH])
        return numbers

    def erase(self, subject: str, by: str) -> Erasure:
        """Remove what a person asked and was answered, what they said, and what others said about those
        answers; `by` says who asked for it. What remains is returned: an Erasure, and hashes of the ids.

        The entries are gone for every reader when this returns. Their bytes are gone from a SQLite
        database too. PostgreSQL overwrites them as pages are used again: `VACUUM FULL log` does it at
        once, locking the table, and its write-ahead log and backups end with their own retention.
        Raises StoreError when the store fails; where the entries went but a long-running reader kept
        their bytes in the file, it says so, and erasing again finishes the work.
        """
        with writing(self._engine) as connection:
            erasure = erasing.erase(connection, subject, by)
            self._append(connection, [_row(erasure)])
        scrub(self._engine)
        return erasure

    def erased(self, noun: TypeForm[T], ids: Collection[str]) -> set[str]:
        """Those of these ids of a kind that were erased."""
        kind = kind_of(noun).name
        digests = {erasing.digest(kind, id): id for id in ids}
        with reading(self._engine) as connection:
            return {digests[found] for found in erasing.known(connection, list(digests))}

    def digests_of(self, erasures: Collection[str]) -> list[str]:
        """The hashes of the ids that these erasures removed; see `escultor.store.erasing.digest`."""
        with reading(self._engine) as connection:
            return erasing.digests_of(connection, erasures)

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
        query = select(func.count()).select_from(log).where(_c.kind == kind_of(noun).name)
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
        entries about one thing (of a choice: about any of its answers) or from one person, `since` those
        whose time is no earlier. Read page by page: memory stays flat, no transaction stays open, and
        entries appended meanwhile follow. Numbers are given in the order of commits, by all processes:
        who follows the log by `after` misses nothing.
        """
        kind = kind_of(noun)
        # What one thing or person says is little: the planner must not look through the whole kind for it.
        narrow = target is not None or subject is not None
        query = select(_c.seq, _c.body).where((_c.kind.concat("") if narrow else _c.kind) == kind.name)
        query = query.order_by(_c.seq)
        if target is not None:
            about = select(mention.c.seq).where(mention.c.about == target)
            query = query.where(_c.seq.in_(select(_c.seq).where(_c.target == target).union_all(about)))
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

    def _append(self, connection: Connection, rows: Sequence[Row]) -> list[int]:
        known = self._known(connection, rows)
        fresh: dict[tuple[str, str], Row] = {}
        for row in rows:
            key = row["kind"], row["id"]
            seq, body = known.get(key) or (None, fresh.get(key, row)["body"])
            if body != row["body"] and not _equal(row, body):
                raise self._taken(row, seq)
            if seq is None:
                fresh.setdefault(key, row)
        if fresh:
            self._refuse_erased(connection, list(fresh.values()))
            columns = [{name: row[name] for name in row.keys() - {_MENTIONS}} for row in fresh.values()]
            numbers = connection.execute(_INSERT, columns).scalars()
            known |= {key: (seq, "") for key, seq in zip(fresh, numbers, strict=True)}
            about = [(a, known[key][0]) for key, row in fresh.items() for a in dict.fromkeys(row[_MENTIONS])]
            if about:
                connection.execute(_MENTION, [{"about": a, "seq": seq} for a, seq in about])
        return [known[row["kind"], row["id"]][0] for row in rows]

    @staticmethod
    def _known(connection: Connection, rows: Sequence[Row]) -> dict[tuple[str, str], tuple[int, str]]:
        """Number and body of those rows whose id is already in the log."""
        known: dict[tuple[str, str], tuple[int, str]] = {}
        for kind in {row["kind"] for row in rows}:
            ids = [row["id"] for row in rows if row["kind"] == kind]
            found = connection.execute(_KNOWN, {"kind": kind, "ids": ids})
            known |= {(kind, id): (seq, body) for id, seq, body in found}
        return known

    def _refuse_erased(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Raise Erased for the first row that names what was erased."""
        named = [(digest, row) for row in rows for digest in erasing.digests(row, row[_MENTIONS])]
        gone = erasing.known(connection, [digest for digest, _ in named])
        for digest, row in named:
            if digest in gone:
                what = f"the store {name_of(self._engine)} erased this, or what it is about, on request"
                raise Erased(what, f"{row['kind']} {row['id']!r}", None, "leave it out; it is not to return")

    def _taken(self, row: Row, seq: int | None) -> IdTaken:
        where = "earlier in the same call" if seq is None else f"as entry {seq}"
        return IdTaken(
            f"the store {name_of(self._engine)} holds other content under this id {where}",
            f"{row['kind']} {row['id']!r}",
            "an id names one content for ever",
            "record the new content under a new id",
        )


def _row(noun: object) -> Row:
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


def _equal(row: Row, body: str) -> bool:
    """Whether two bodies say the same in other words: keys in another order, a default left out."""
    kind = next(kind for kind in KINDS if kind.name == row["kind"])
    return same(decode(kind, body), decode(kind, row["body"]))
