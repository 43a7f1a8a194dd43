"""From what was read of the log to the tables of the index: what holds of what was said, the answers it was
said about, and which prompts that touches."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from escultor.feedback.raw_log import PARENT, LogBatch

MANY = 4000  # answers that are read at a time
IndexRow = tuple[Any, ...]
Read = Callable[[list[list[str]]], Iterable[list[IndexRow]]]


class Fold:
    """One read of new entries into the tables, within one transaction.

    `afresh` where there was nothing before: all of it is then gone through anyway, and keeping a list of
    what was touched, a million rows long, would cost a tenth of the time.
    """

    def __init__(self, file: sqlite3.Connection, afresh: bool):
        self.file, self.afresh = file, afresh
        file.execute("create temp table if not exists touched (id text primary key) without rowid")

    def fold(self, found: LogBatch) -> None:
        """Fold what was said into what holds."""
        run = self.file.executemany
        run(_upsert("live", ("up", "source")), sorted(found.words, key=itemgetter(0)))
        run(_upsert("picks", ("source", "first", "shown", "winner")), found.picks)
        run("insert or ignore into children values (?,?)", found.children)
        if not self.afresh:
            touched = found.targets.union(parent for parent, _ in found.children)
            run("insert or ignore into touched values (?)", [(target,) for target in sorted(touched)])
        run(
            "insert into rates values (?,?,?) on conflict do update set n = n + excluded.n",
            sorted((*key, n) for key, n in found.rates.items()),
        )
        run(
            "insert into subjects values (?,?) on conflict do update set first = min(first, excluded.first)",
            list(found.first.items()),
        )
        run(
            "insert into seen values (?,?) on conflict do update set n = n + excluded.n",
            list(found.counts.items()),
        )

    def fetch(self, read: Read) -> None:
        """The answers that something was said about, and those that they are regenerations of."""
        ids = self._mentioned()
        missing: set[str] = set()
        while ids:
            missing |= set(ids)
            parents: set[str] = set()
            for found in read([ids[at : at + MANY] for at in range(0, len(ids), MANY)]):
                self.take_answers(found)
                missing -= {row[0] for row in found}
                parents |= {row[PARENT] for row in found}
            ids = self.unknown(parents - missing)
        self.wait_for(missing)

    def take_answers(self, rows: Sequence[IndexRow]) -> None:
        self.file.executemany(f"insert or replace into answers values ({','.join('?' * 14)})", rows)
        if not self.afresh:
            self.file.executemany("insert or ignore into dirty values (?)", [row[1:2] for row in rows])

    def unknown(self, ids: Iterable[str | None]) -> list[str]:
        """Those of these that are no answers in the index."""
        rows = self.file.execute(
            "select value from json_each(?) where not exists (select 1 from answers where id = value)",
            (json.dumps(sorted(id for id in ids if id)),),
        )
        return [id for (id,) in rows]

    def wait_for(self, ids: Iterable[str]) -> None:
        """Answers that something was said about and that the log does not hold yet."""
        self.file.execute("delete from wanted")
        self.file.executemany("insert or ignore into wanted values (?)", [(id,) for id in ids])

    def mark(self) -> None:
        """Every prompt about which something was read is to be gone through again."""
        self.file.execute(
            "insert or ignore into dirty select prompt from answers where id in (select id from touched)"
        )
        self.file.execute(
            "insert or ignore into dirty select a.prompt from picks p join answers a on a.id = p.first "
            "where p.target in (select id from touched)"
        )
        self.file.execute("delete from touched")

    def _mentioned(self) -> list[str]:
        """Answers that something holds about and that are not in the index, in order."""
        if self.afresh:
            query = (
                "select target from live where target not like 'choice-%' "
                "union select j.value from picks p, json_each(p.shown) j"
            )
        else:
            query = (
                "select id from wanted union select id from touched t where id not like 'choice-%' "
                "and not exists (select 1 from answers a where a.id = t.id) "
                "and (exists (select 1 from live l where l.target = t.id) "
                "or exists (select 1 from picks p where p.first = t.id)) "
                "union select j.value from picks p, json_each(p.shown) j "
                "where p.target in (select id from touched) "
                "and not exists (select 1 from answers a where a.id = j.value)"
            )
        return [id for (id,) in self.file.execute(query)]


def _upsert(table: str, more: Sequence[str]) -> str:
    """Take the place of what holds under the same key, if it is of lower precedence. A withdrawn choice
    keeps the answers that it was made from: the withdrawal does not name them."""
    columns = ("target", "subject", "name", "time", "gone", "id", "seq", *more)
    kept = {"first": "coalesce(excluded.first, first)"}
    news = ", ".join(f"{name} = {kept.get(name, f'excluded.{name}')}" for name in columns[3:])
    return (
        f"insert into {table} ({', '.join(columns)}) values ({', '.join('?' * len(columns))}) "
        f"on conflict do update set {news} "
        f"where (excluded.time, excluded.gone, excluded.id) > ({table}.time, {table}.gone, {table}.id)"
    )
