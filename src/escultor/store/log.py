"""The log: all records in one table, in the order in which they were appended.

Nothing is ever updated, and nothing deleted except by `erase`, on the request of the person it is about; the
present state is a fold of the records.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import from_json
from sqlalchemy import Engine, Select, bindparam, delete, func, insert, select, text
from sqlalchemy.engine import URL

from escultor.errors import EscultorError, InputError
from escultor.store import erasing
from escultor.store.appending import NUL, AppendOutcome, LogRow, append, log_row
from escultor.store.codec import decode
from escultor.store.database import READ_ONLY, connect, display_url, reading, scrub, writing
from escultor.store.kinds import RecordKind, Spending, kind_of
from escultor.store.tables import log, mention, spending
from escultor.strict_json import JsonObject
from escultor.types import Erasure

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")
_PROBE = "#probe"  # no id of an answer
PAGE = 256  # records held in memory while reading
RAW_PAGE, RAW_IDS = 5000, 2000  # bodies read at a time without making records, and ids looked up at a time
_c = log.c


class Log:
    """Appends records and reads them back. One per process is enough. Threads may share it; a copy sent to
    another process opens its own connections."""

    def __init__(self, engine: Engine):
        """Use `escultor.store.open_store`, which makes sure that the tables are there."""
        self._engine = engine

    def __reduce__(self) -> tuple[Any, tuple[URL]]:
        return _reconnected, (self._engine.url,)

    def append(self, *records: object) -> list[int]:
        """Record all of `records` in one transaction, or none; on disk when this returns sequence numbers.

        A record that is already there with the same content is not written again and its number is returned,
        so a write whose outcome is unknown may be repeated. Raises IdTaken when an id names other content,
        Erased when a record, or what it is about, was erased, StoreError when the store fails, InputError for
        a type the log does not hold, DataError for a record that could not be read back.
        """
        (outcome,) = self.append_each([records])
        if isinstance(outcome, EscultorError):
            raise outcome
        return outcome

    def append_each(self, groups: Sequence[Sequence[object]]) -> list[AppendOutcome]:
        """Record groups of records in one transaction, each group whole or not at all. Returns for each group
        its sequence numbers or the error that `append` would raise: a group that is refused does not affect
        the others. Raises StoreError when the store fails; nothing is recorded then."""
        outcomes: list[AppendOutcome] = []
        rows: list[list[LogRow]] = []
        for group in groups:
            try:
                rows.append([log_row(record) for record in group])
                outcomes.append([])
            except InputError as error:
                rows.append([])
                outcomes.append(error)
        if any(rows):
            with writing(self._engine) as connection:
                append(connection, rows, outcomes)
        return outcomes

    def erase(self, subject: str, by: str) -> Erasure:
        """Remove a person's interactions and feedback, and what others said about those answers.

        `by` says who asked for it. What remains is the Erasure returned, and hashes of the removed ids. No
        reader finds the records when this returns. In SQLite their bytes are gone too. PostgreSQL
        overwrites them as pages are reused; `VACUUM FULL log` does it at once, locking the table; its
        write-ahead log and backups have their own retention. Raises StoreError when the store fails, or when
        a long-running reader kept bytes of removed records in the file: erasing again then finishes the work.
        """
        with writing(self._engine) as connection:
            erasure = erasing.erase(connection, subject, by)
            append(connection, [[log_row(erasure)]], [[]])
        scrub(self._engine)
        return erasure

    def purge(self, now: float, after: int = 0, upto: float = math.inf) -> tuple[list[Erasure], int]:
        """Remove the interactions behind number `after`, up to `upto`, whose `retain_until` is over at `now`,
        and the feedback on them, in transactions of bounded size: an Erasure for each, and a number that the
        next purge may start behind. Raises as `erase`."""
        with reading(self._engine) as connection:
            seqs, resume = erasing.expired(connection, now, after, upto)
        erasures: list[Erasure] = []
        for start in range(0, len(seqs), erasing.BATCH):
            with writing(self._engine) as connection:
                erasure = erasing.purge(connection, seqs[start : start + erasing.BATCH], now)
                if erasure is not None:
                    append(connection, [[log_row(erasure)]], [[]])
                    erasures.append(erasure)
        if erasures:
            scrub(self._engine, rebuild=False)
        return erasures, resume

    def replace(self, removed: Sequence[tuple[TypeForm[Any], str]], *records: object) -> None:
        """Remove records by type and id, which hold text of what was erased, and append those that take
        their place: in one transaction. `scrub` then removes their bytes. Raises as `append`."""
        rows, outcomes = [log_row(record) for record in records], list[AppendOutcome]([[]])
        with writing(self._engine) as connection:
            erasing.remove(connection, [(kind_of(each).name, id) for each, id in removed])
            append(connection, [rows], outcomes)
            if isinstance(error := outcomes[0], EscultorError):
                raise error

    def scrub(self) -> None:
        """Remove what was deleted from the database's files as well. Raises as `erase`."""
        scrub(self._engine)

    def erased(self, record_type: TypeForm[T], ids: Collection[str]) -> set[str]:
        """Those of these ids of a type that were erased."""
        kind = kind_of(record_type).name
        digests = {erasing.digest(kind, id): id for id in ids}
        with reading(self._engine) as connection:
            return {digests[digest] for digest in erasing.erased_among(connection, digests)}

    def erased_digests(self, erasures: Collection[str]) -> list[str]:
        """The digests (`escultor.store.erasing.digest`) of the ids that these erasures removed."""
        with reading(self._engine) as connection:
            return erasing.digests_of(connection, erasures)

    def get(self, record_type: TypeForm[T], id: str) -> T | None:
        """The record of a type with this id, or None."""
        kind = kind_of(record_type)
        if NUL in id:  # PostgreSQL would refuse to look
            return None
        return self._first(kind, select(_c.body).where(_c.kind == kind.name, _c.id == id))

    def last(self, record_type: TypeForm[T], target: str | None = None) -> T | None:
        """The record of a type (about one thing, if given) that was appended last, or None."""
        kind = kind_of(record_type)
        query = select(_c.body).where(_c.kind == kind.name).order_by(_c.seq.desc()).limit(1)
        return self._first(kind, query if target is None else query.where(_c.target == target))

    def _first(self, kind: RecordKind, query: Select[Any]) -> Any:
        with reading(self._engine) as connection:
            body = connection.execute(query).scalar()
        return None if body is None else decode(kind, body)

    def count(self, record_type: TypeForm[T]) -> int:
        """How many records of a type there are."""
        query = select(func.count()).select_from(log).where(_c.kind == kind_of(record_type).name)
        with reading(self._engine) as connection:
            return connection.execute(query).scalar_one()

    def read(
        self,
        record_type: TypeForm[T],
        after: int = 0,
        limit: int | None = None,
        target: str | None = None,
        subject: str | None = None,
        since: float | None = None,
    ) -> Iterator[tuple[int, T]]:
        """Sequence numbers and records, in the order appended, beginning behind number `after`.

        `record_type` is a class or a union (`Interaction`, `Feedback`). `target` keeps the records about one
        thing (a choice: about any of its answers), `subject` those of one person, `since` those whose time
        is not earlier. Reads page by page: memory stays flat, no transaction stays open, and records appended
        meanwhile follow. All processes number records in the order of commits, so a reader that goes on from
        its last number (`after`) misses nothing.
        """
        kind = kind_of(record_type)
        given = {"kind": kind.name, "target": target, "subject": subject, "since": since}
        given = {name: value for name, value in given.items() if value is not None}
        pages = self._pages(_read_query(frozenset(given)), given, after, limit, PAGE)
        return ((row.seq, decode(kind, row.body)) for rows in pages for row in rows)

    def unmatched(
        self, record_type: TypeForm[T], other_type: TypeForm[Any], since: float, after: int = 0
    ) -> list[tuple[int, T]]:
        """Sequence numbers and records of one type for whose ids there is no record of another type. Behind
        number `after`, with times from `since` on."""
        kind, other = kind_of(record_type), log.alias()
        match = select(other.c.seq).where(other.c.kind == kind_of(other_type).name, other.c.id == _c.id)
        query = select(_c.seq, _c.body).where(_c.kind == kind.name, _c.seq > after, _c.time >= since)
        query = query.where(~match.exists()).order_by(_c.seq)
        with reading(self._engine) as connection:
            return [(row.seq, decode(kind, row.body)) for row in connection.execute(query)]

    @property
    def is_read_only(self) -> bool:
        """Whether its file may not be written by this user."""
        return self._engine.url.query.get("mode") == READ_ONLY

    @property
    def name(self) -> str:
        """The database as a person may see it: the url without its password."""
        return display_url(self._engine)

    def last_seq(self) -> int:
        """The sequence number of the record appended last, of any type; 0 for an empty log."""
        with reading(self._engine) as connection:
            return connection.execute(select(func.max(_c.seq))).scalar() or 0

    def identity(self, seq: int) -> str | None:
        """Kind and id of the record with this number, None where there is none. A reader that kept both can
        check that it still follows the same log."""
        with reading(self._engine) as connection:
            row = connection.execute(select(_c.kind, _c.id).where(_c.seq == seq)).first()
        return None if row is None else f"{row.kind} {row.id}"

    def raw_pages(
        self,
        record_type: TypeForm[Any],
        after: int = 0,
        until: int | None = None,
        containing: str | None = None,
    ) -> Iterator[list[tuple[int, JsonObject]]]:
        """Pages of sequence numbers and bodies as JSON objects, to read few fields of very many records.

        No record is made and nothing is checked again. Behind number `after`, up to and including `until`;
        `containing` keeps the bodies in which this text occurs. JSON escapes quotes, so a text with quotes
        never matches what a user wrote.
        """
        query = select(_c.seq, _c.body).where(_c.kind == kind_of(record_type).name)
        query = query.where(_c.seq <= until) if until is not None else query
        if containing is not None:
            find = func.strpos if self._engine.dialect.name == "postgresql" else func.instr
            query = query.where(find(_c.body, containing) > 0)
        for rows in self._pages(_paged(query), {}, after, None, RAW_PAGE):
            yield [(seq, from_json(body, cache_strings="keys")) for seq, body in rows]

    def raw_by_id(self, record_type: TypeForm[Any], ids: Sequence[str]) -> dict[str, JsonObject]:
        """The bodies of the records with these ids, as JSON objects; ids that do not exist are left out."""
        postgresql = self._engine.dialect.name == "postgresql"
        # The ids go as one JSON value: thousands of parameters would cost more than the look-up.
        each = "json_array_elements_text(cast(:ids as json)) e(value)" if postgresql else "json_each(:ids)"
        query = text(f"select id, body from log where kind = :kind and id in (select value from {each})")
        bodies: dict[str, JsonObject] = {}
        with reading(self._engine) as connection:
            for start in range(0, len(ids), RAW_IDS):
                batch = json.dumps(list(ids[start : start + RAW_IDS]))
                rows = connection.execute(query, {"kind": kind_of(record_type).name, "ids": batch}).all()
                bodies |= {id: from_json(body, cache_strings="keys") for id, body in rows}
        return bodies

    def spending(self, key: str, since_day: int) -> list[Spending]:
        """What a key has spent on each day from `since_day` on, in days since the epoch (UTC): the sums over
        its answers that are in the log, and over those that were erased."""
        columns = select(spending).where(spending.c.key == key, spending.c.day >= since_day)
        with reading(self._engine) as connection:
            return [Spending(*row) for row in connection.execute(columns)]

    def check_writable(self) -> None:
        """Write a row that means nothing and remove it again. Raises StoreError where that fails."""
        with writing(self._engine) as connection:
            connection.execute(insert(mention), {"about": _PROBE, "seq": 0})
            connection.execute(delete(mention).where(mention.c.about == _PROBE))

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    def _pages(
        self, query: Select[Any, Any], given: Mapping[str, Any], after: int, limit: int | None, page: int
    ) -> Iterator[Sequence[Any]]:
        """The rows of a paged query behind number `after`, at most `page` at a time and `limit` in all."""
        while limit is None or limit > 0:
            size = page if limit is None else min(page, limit)
            with reading(self._engine) as connection:
                rows = connection.execute(query, {**given, "after": after, "size": size}).all()
            if rows:
                yield rows
                after = rows[-1].seq
            if len(rows) < size:
                return
            limit = None if limit is None else limit - size


def _paged(query: Select[Any, Any]) -> Select[Any, Any]:
    return query.where(_c.seq > bindparam("after")).order_by(_c.seq).limit(bindparam("size"))


@cache
def _read_query(given: frozenset[str]) -> Select[Any, Any]:
    """The query of `Log.read` with these parameters. It is built once: that takes longer than to run it."""
    # One target or person has few records: `concat` keeps the planner from the index over the whole kind.
    narrow = not given.isdisjoint(("target", "subject"))
    query = select(_c.seq, _c.body).where((_c.kind.concat("") if narrow else _c.kind) == bindparam("kind"))
    if "target" in given:
        target = bindparam("target")
        about = select(mention.c.seq).where(mention.c.about == target)
        query = query.where(_c.seq.in_(select(_c.seq).where(_c.target == target).union_all(about)))
    query = query.where(_c.subject == bindparam("subject")) if "subject" in given else query
    query = query.where(_c.time >= bindparam("since")) if "since" in given else query
    return _paged(query)


def _reconnected(url: URL) -> Log:
    return Log(connect(url))
