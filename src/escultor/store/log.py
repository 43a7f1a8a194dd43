"""The log: every noun that is recorded, in one table, in the order it was recorded.

Nothing is ever updated, and nothing deleted but on the request of whom it is about (`erase`); what holds
now is a fold of the entries.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import from_json
from sqlalchemy import Engine, Select, func, select, text
from sqlalchemy.engine import URL

from escultor.errors import EscultorError, InputError
from escultor.store import erasing
from escultor.store.appending import AppendOutcome, LogRow, append, row_of
from escultor.store.codec import decode
from escultor.store.database import connect, name_of, reading, scrub, writing
from escultor.store.kinds import RecordKind, kind_of
from escultor.store.tables import log, mention
from escultor.types import Erasure

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")
PAGE = 256  # entries held in memory while reading
LEAN_PAGE, LEAN_IDS = 5000, 2000  # of those read without making nouns: at a time, and looked up by id
_c = log.c


class Log:
    """Appends nouns and reads them back. One per process is enough; threads may share it, and a copy that
    was sent to another process has connections of its own."""

    def __init__(self, engine: Engine):
        """Use `escultor.store.open_store`, which makes sure that the tables are there."""
        self._engine = engine

    def __reduce__(self) -> tuple[Any, tuple[URL]]:
        return _reconnected, (self._engine.url,)

    def append(self, *nouns: object) -> list[int]:
        """Record nouns in one transaction; they are on disk when this returns their sequence numbers.

        A noun that is already there with the same content is not written again and its number is
        returned, so a write whose outcome is unknown may be repeated. Raises IdTaken when its id is
        taken by other content, Erased when it or what it is about was erased (nothing of the call is
        then kept), StoreError when the store fails, InputError for a noun the log does not hold,
        DataError for one that could not be read back.
        """
        (outcome,) = self.append_each([nouns])
        if isinstance(outcome, EscultorError):
            raise outcome
        return outcome

    def append_each(self, groups: Sequence[Sequence[object]]) -> list[AppendOutcome]:
        """Record groups of nouns in one transaction, each group wholly or not at all.

        For each the sequence numbers, or the error `append` would raise for it: the fault of one group
        keeps no other from being recorded. Raises StoreError when the store fails; nothing is kept then.
        """
        outcomes: list[AppendOutcome] = []
        rows: list[list[LogRow]] = []
        for group in groups:
            try:
                rows.append([row_of(noun) for noun in group])
                outcomes.append([])
            except InputError as error:
                rows.append([])
                outcomes.append(error)
        if any(rows):
            with writing(self._engine) as connection:
                append(connection, rows, outcomes)
        return outcomes

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
            append(connection, [[row_of(erasure)]], [[]])
        scrub(self._engine)
        return erasure

    def purge(self, now: float, after: int = 0) -> tuple[list[Erasure], int]:
        """Remove the interactions behind number `after` whose `retain_until` is over at `now`, and the
        feedback on them, in transactions of bounded size: an Erasure for each, and a number that the next
        purge may start behind. Raises as `erase`."""
        with reading(self._engine) as connection:
            seqs, resume = erasing.expired(connection, now, after)
        erasures: list[Erasure] = []
        for start in range(0, len(seqs), erasing.CHUNK):
            with writing(self._engine) as connection:
                erasure = erasing.purge(connection, seqs[start : start + erasing.CHUNK], now)
                if erasure is not None:
                    append(connection, [[row_of(erasure)]], [[]])
                    erasures.append(erasure)
        if erasures:
            scrub(self._engine)
        return erasures, resume

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

    def lacking(
        self, noun: TypeForm[T], other: TypeForm[Any], since: float, after: int = 0
    ) -> list[tuple[int, T]]:
        """Sequence number and noun of those no older than `since`, behind number `after`, whose id names no
        entry of the other kind."""
        kind, there = kind_of(noun), log.alias()
        answered = select(there.c.seq).where(there.c.kind == kind_of(other).name, there.c.id == _c.id)
        query = select(_c.seq, _c.body).where(_c.kind == kind.name, _c.seq > after, _c.time >= since)
        query = query.where(~answered.exists()).order_by(_c.seq)
        with reading(self._engine) as connection:
            return [(seq, decode(kind, body)) for seq, body in connection.execute(query)]

    @property
    def name(self) -> str:
        """The database as a person may see it: the url without its password."""
        return name_of(self._engine)

    def end(self) -> int:
        """The sequence number of the entry recorded last, of any kind; 0 for an empty log."""
        with reading(self._engine) as connection:
            return connection.execute(select(func.max(_c.seq))).scalar() or 0

    def identity(self, seq: int) -> str | None:
        """Kind and id of the entry with this number, None where there is none: by it a reader that kept a
        number knows the log again."""
        with reading(self._engine) as connection:
            row = connection.execute(select(_c.kind, _c.id).where(_c.seq == seq)).first()
        return None if row is None else f"{row[0]} {row[1]}"

    def lean(
        self, noun: TypeForm[Any], after: int = 0, until: int | None = None, holding: str | None = None
    ) -> Iterator[list[tuple[int, dict[str, Any]]]]:
        """Pages of sequence numbers and bodies as JSON has them, for those who read very many entries and
        need few of their fields: no noun is made, and what was checked at the append is not checked again.

        Behind `after`, up to and with `until`; `holding` keeps the bodies in which this text stands as it
        is. JSON escapes quotes, so a text with quotes is never found inside what a user wrote.
        """
        query = select(_c.seq, _c.body).where(_c.kind == kind_of(noun).name).order_by(_c.seq)
        query = query.where(_c.seq <= until) if until is not None else query
        if holding is not None:
            find = func.strpos if self._engine.dialect.name == "postgresql" else func.instr
            query = query.where(find(_c.body, holding) > 0)
        while True:
            with reading(self._engine) as connection:
                rows = connection.execute(query.where(_c.seq > after).limit(LEAN_PAGE)).all()
            if rows:
                yield [(seq, from_json(body)) for seq, body in rows]
                after = rows[-1][0]
            if len(rows) < LEAN_PAGE:
                return

    def lean_by_id(self, noun: TypeForm[Any], ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The bodies under these ids, as JSON has them; ids that the log does not hold are left out."""
        postgresql = self._engine.dialect.name == "postgresql"
        # As one value: a list of thousands of parameters costs more than what it looks up.
        each = "json_array_elements_text(cast(:ids as json)) e(value)" if postgresql else "json_each(:ids)"
        query = text(f"select id, body from log where kind = :kind and id in (select value from {each})")
        found: dict[str, dict[str, Any]] = {}
        with reading(self._engine) as connection:
            for at in range(0, len(ids), LEAN_IDS):
                part = json.dumps(list(ids[at : at + LEAN_IDS]))
                rows = connection.execute(query, {"kind": kind_of(noun).name, "ids": part}).all()
                found |= {id: from_json(body) for id, body in rows}
        return found

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    def _pages(
        self, kind: RecordKind, query: Select[Any, Any], after: int, limit: int | None
    ) -> Iterator[Any]:
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


def _reconnected(url: URL) -> Log:
    return Log(connect(url))
