"""The derived index: what the labelling rules need of the log, in a SQLite file that follows it.

Only new log entries are read, and only prompts that something changed about are drafted again. The file can
be deleted at any time: it is rebuilt from the log. Its name says which store and settings it belongs to; a
mark of the last entry read tells whether it was read from this log, by the present code. A read of new
entries is one transaction: a process that is killed leaves what was there before.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from escultor.code_closure import code_version
from escultor.config import FeedbackRules
from escultor.errors import StoreError
from escultor.feedback import abuse_rules, drafting, index_tables, raw_log, trust
from escultor.feedback.labelling_rules import CORRECTION_RULE, Draft
from escultor.ids import hash_value
from escultor.process_pool import ProcessPool
from escultor.store.log import Log
from escultor.types import Erasure, Feedback, Interaction, QuarantineOverride

ENTRIES_PER_READ = 25_000
_CODE = ("escultor.feedback.raw_log", "escultor.feedback.trust", "escultor.feedback.drafting")
# How entries are stored and how work is shared decides nothing of what the index holds.
_NOT_DECIDING = ("escultor.store.log", "escultor.config", "escultor.process_pool", "escultor.errors")


class AnswerFacts(NamedTuple):
    """What selection needs to know of an answer."""

    skill: str
    tenant: str
    arm: str
    propensity: float
    retain_until: float | None
    length: int  # characters
    text_hash: str


class FeedbackIndex(AbstractContextManager["FeedbackIndex"]):
    """The derived state of one log, or of events given by hand (`path` None: in memory)."""

    def __init__(self, path: Path | None, settings: FeedbackRules):
        self.path, self.settings = path, settings
        self.file = index_tables.open_file(path)

    def __exit__(self, *_: object) -> None:
        self.file.close()

    # --- reading ----------------------------------------------------------------------------------

    def follow(self, log: Log) -> int:
        """Read what was recorded since the last time; return the number of the last entry read. Events,
        standings and drafts are a transaction each: after a kill the next call goes on from the last."""
        until = log.last_seq()
        with self._transaction():
            cursor = self._cursor(log)
            if until > cursor:
                self._read(log, cursor, until)
        if self._get("settled") != str(until):
            released = {
                body["target"] for page in log.raw_pages(QuarantineOverride, 0, until) for _, body in page
            }
            self._settle(frozenset(released), until, log)
        return until

    def add(self, interactions: Iterable[Interaction], feedback: Iterable[Feedback]) -> None:
        """Add events given by hand instead of a log, all in one call; order and repetition do not matter."""
        bodies = raw_log.InMemorySource(interactions, feedback)
        answers, events = list(bodies.bodies[Interaction].values()), bodies.bodies[Feedback]
        batch = raw_log.LogBatch()
        batch.newest, batch.counts["feedback events"] = len(events), len(events)
        for seq, id in enumerate(sorted(events), 1):
            batch.add(seq, events[id])
        batch.add_regenerations(answers)
        with self._transaction():
            fold = raw_log.Fold(self.file, self._get("standings") is None)
            self._fold(fold, batch)
            rows = [raw_log.answer_row(body) for body in answers]
            fold.add_answers(rows)
            fold.set_wanted(fold.unknown({row.parent for row in rows}))
            fold.mark_prompts()
        self._settle(frozenset(), len(events), bodies)

    def _cursor(self, log: Log) -> int:
        """The last entry that was read; 0 if that was of another log, an older copy, or by other code."""
        cursor = int(self._get("cursor") or 0)
        if cursor and self._get("mark") != _mark(log, cursor):
            index_tables.clear(self.file)
            return 0
        return cursor

    def _read(self, log: Log, cursor: int, until: int) -> None:
        for page in log.raw_pages(Erasure, cursor, until):
            self._erase([body for _, body in page])
            self._put("erased", str(page[-1][0]))
        fold = raw_log.Fold(self.file, self._get("standings") is None)
        with ProcessPool(raw_log.worker_count(until - cursor), log) as pool:
            ranges = [
                (at, min(at + ENTRIES_PER_READ, until)) for at in range(cursor, until, ENTRIES_PER_READ)
            ]
            for batch in pool.map(raw_log.read_range, ranges):
                self._fold(fold, batch)
            fold.fetch(lambda ids: pool.map(raw_log.read_answers, ids))
        fold.mark_prompts()
        self._put("cursor", str(until))
        self._put("mark", _mark(log, until))

    def _fold(self, fold: raw_log.Fold, batch: raw_log.LogBatch) -> None:
        fold.add_events(batch)
        if batch.newest:
            self._put("newest", str(batch.newest))

    def _settle(self, released: frozenset[str], until: int, bodies: raw_log.BodySource) -> None:
        """Measure the standings, and draft all prompts that they or new events change."""
        with self._transaction():
            index_tables.create_indexes(self.file)
            before = self.standings() if self._get("standings") else None
            now = trust.measure_standings(self.file, self.settings, released)
            drafting.mark_changed(self.file, before, now)
            self._put("standings", now.to_json())
        with self._transaction():
            if self.file.execute("select exists (select 1 from dirty)").fetchone()[0]:
                self._put("drafted", str(int(self._get("drafted") or 0) + 1))
            # Not `now`: another process may have measured later, and its standings are the stored ones.
            drafting.redraft(self.file, self.path, self.standings(), bodies)
            self._put("settled", str(until))
            parts = [self._get(name) for name in ("newest", "erased", "drafted", "standings")]
            self._put("state", hash_value(parts))

    # --- queries ----------------------------------------------------------------------------------

    def standings(self) -> trust.RaterStandings:
        stored = self._get("standings")
        if stored is None:
            return trust.measure_standings(self.file, self.settings, frozenset())
        return TypeAdapter(trust.RaterStandings).validate_json(stored)

    def state(self) -> str:
        """The name of the index's present content: it changes with everything that items are made of."""
        return self._get("state") or ""

    def cached(self, key: str) -> str | None:
        """What was stored under a key, if the state is still the same."""
        return self._get(f"kept {key}")

    def put_cached(self, key: str, value: str, blobs: Mapping[str, str], version: str) -> None:
        """Store a result for the present state, and the blobs of its rows, with the version of what decides
        their texts; results for earlier states are deleted."""
        with self._transaction():
            state = self.state()
            if self._get("kept of") != state:
                self.file.execute("delete from meta where key like 'kept %'")
                self._put("kept of", state)
            self._put(f"kept {key}", value)
            self._put("written", json.dumps({"version": version, "blobs": dict(blobs)}))

    def last_blobs(self, version: str) -> dict[str, str]:
        """The blobs that were stored last, by kind; none if they have another version."""
        written = json.loads(self._get("written") or "{}")
        return written["blobs"] if written.get("version") == version else {}

    def drafts(
        self, after: int, since: float | None
    ) -> Iterator[tuple[Draft, AnswerFacts, AnswerFacts | None]]:
        """The drafts whose newest event was recorded behind entry `after` and happened no earlier than
        `since`, with the facts of their answer and, for a pair, of the rejected one; by prompt, in the
        order of the rules."""
        columns = "{0}.skill, {0}.tenant, {0}.arm, {0}.propensity, {0}.retain_until, "
        own = "coalesce(e.length, a.length), coalesce(e.text_hash, a.text_hash)"
        rows = self.file.execute(
            f"select d.*, {columns.format('a')} {own}, {columns.format('b')} b.length, b.text_hash "
            "from drafts d join answers a on a.id = d.answer "
            f"left join edits e on d.rule = '{CORRECTION_RULE}' and e.id = d.chosen "
            "left join answers b on b.id = d.rejected and d.rejected != '' "
            "where d.seq > ? and d.time >= ? order by d.prompt, d.rowid",
            (after, float("-inf") if since is None else since),
        )
        n_draft, n_facts = len(Draft._fields), len(AnswerFacts._fields)
        for row in rows:
            # Texts that many drafts share are in memory once.
            prompt, rule, kind, *others = row[:n_draft]
            draft = Draft._make((intern(prompt), intern(rule), intern(kind), *others))
            facts, rejected = _facts(*row[n_draft : n_draft + n_facts]), row[n_draft + n_facts :]
            yield draft, facts, _facts(*rejected) if draft.rejected else None

    def counts(self) -> dict[str, int]:
        """Why events made no item, over all that holds now."""
        counts = dict(self.file.execute("select reason, n from read_counts"))
        counts |= dict(self.file.execute("select reason, sum(n) from unused group by reason"))
        wanted = self.file.execute("select count(*) from wanted").fetchone()[0]
        return counts | ({"waiting: about an answer that is not known": wanted} if wanted else {})

    def subjects(self) -> frozenset[str]:
        """All end users who gave feedback."""
        return frozenset(subject for (subject,) in self.file.execute("select subject from subjects"))

    def newcomers(self, min_votes: int, now: float) -> frozenset[str]:
        """The end users on probation. Events of the future (after `now`) make nobody old."""
        newest = self.file.execute(
            "select coalesce(max(time), 0) from live where time <= ?", (now,)
        ).fetchone()[0]
        rows = self.file.execute(
            "select s.subject, (select count(*) from live l where l.subject = s.subject and l.withdrawn = 0) "
            "+ (select count(*) from choices c where c.subject = s.subject and c.withdrawn = 0), s.first "
            "from subjects s"
        ).fetchall()
        oldest = min((first for *_, first in rows), default=newest)
        return frozenset(
            subject
            for subject, n, first in rows
            if n < min_votes or abuse_rules.is_new(first, oldest, newest)
        )

    def agreement(self) -> list[tuple[int, int]]:
        """(thumbs up, thumbs down) of every answer that several people gave a thumb."""
        return self.file.execute(
            "select sum(up), count(*) - sum(up) from live "
            "where name = 'thumb' and withdrawn = 0 and up is not null group by target having count(*) > 1"
        ).fetchall()

    # --- the file -------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self.file.execute("begin immediate")
            yield
            self.file.execute("commit")
        except BaseException as error:
            with suppress(sqlite3.Error):
                self.file.execute("rollback")
            if not isinstance(error, sqlite3.Error):
                raise
            remedy = f"free disk space, or delete {self.path}: it is rebuilt from the log"
            raise StoreError("the derived index of feedback failed", error, remedy=remedy) from error

    def _erase(self, erasures: Sequence[Mapping[str, Any]]) -> None:
        """Delete what the log erased: answers and feedback of subjects, answers whose retention was over
        (an erasure without a subject), and all feedback on these answers."""
        run = self.file.execute
        gone = "(select id from temp.gone)"
        for erasure in erasures:
            subject = erasure["subject"]
            rule, value = ("subject = ?", subject) if subject else ("retain_until <= ?", erasure["time"])
            run(f"create temp table gone as select id, prompt from answers where {rule}", (value,))
            run("insert or ignore into dirty select prompt from temp.gone")
            if subject:  # events of nobody have an empty one
                drafting.mark_subject(self.file, subject)
                for table in ("live", "choices", "rates", "subjects"):
                    run(f"delete from {table} where subject = ?", (subject,))
            run(f"delete from live where target in {gone}")
            run(
                f"delete from choices where first in {gone} "
                f"or exists (select 1 from json_each(shown) s where s.value in {gone})"
            )
            run(f"delete from children where parent in {gone} or child in {gone}")
            run(f"delete from answers where id in {gone}")
            run("drop table temp.gone")
        run("delete from edits where id not in (select id from live)")

    def _get(self, key: str) -> str | None:
        row = self.file.execute("select value from meta where key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _put(self, key: str, value: str) -> None:
        self.file.execute("insert or replace into meta values (?, ?)", (key, value))


def index_path(folder: Path, store: str, settings: FeedbackRules) -> Path:
    """The file of a store's index: other settings that all drafts depend on have another."""
    name = hash_value([store, index_tables.SCHEMA, settings.pairs_per_prompt, settings.max_flip_rate])
    return folder / f"feedback-{name[:12]}.sqlite"


def _mark(log: Log, seq: int) -> str:
    return f"{seq}:{log.identity(seq)}:{code_version(*_CODE, without=_NOT_DECIDING)}"


def _facts(skill: str, tenant: str, arm: str, *others: Any) -> AnswerFacts:
    return AnswerFacts._make((intern(skill), intern(tenant), intern(arm), *others))
