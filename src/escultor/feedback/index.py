"""What the routes need of the log, lean, in a derived SQLite file: only new entries are read, and only
prompts about which something changed are gone through again.

The file can be deleted at any time: it is made again from the log. Its name says which rules it was made by
and which store it belongs to; that it belongs to this log is checked by the entry it was last read up to.
A read of new entries is one transaction, so a process that is killed leaves what was there before.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from escultor.config import FeedbackRules
from escultor.errors import StoreError
from escultor.feedback import abuse_rules, drafting, index_tables, raw_log, trust
from escultor.feedback.fold import Fold
from escultor.feedback.index_tables import SCHEMA, opened
from escultor.feedback.labelling_rules import RULES, Draft
from escultor.feedback.raw_log import PARENT
from escultor.ids import code_hash, hash_value, plain
from escultor.process_pool import ProcessPool
from escultor.store.log import Log
from escultor.types import Erasure, Feedback, Interaction, QuarantineOverride

STRETCH = 25_000  # entries of the log that are read at a time


class AnswerFacts(NamedTuple):
    """What selecting needs to know of an answer."""

    skill: str
    tenant: str
    arm: str
    propensity: float
    retain: float | None  # until when it may be kept
    length: int
    text: str  # a hash of it


class CorrectionEdit(NamedTuple):
    """A correction: a hash of its text, its length and that of the answer it corrects, and how far it is
    from that (normalised Levenshtein distance)."""

    id: str
    text: str
    length: int
    before: int
    distance: float


class _Once(dict[str, str]):
    """Texts by themselves: of equal ones the first."""

    def __missing__(self, text: str) -> str:
        self[text] = text
        return text


class FeedbackIndex:
    """The derived state of one log, or of events given by hand (`path` None: in memory)."""

    def __init__(self, path: Path | None, settings: FeedbackRules):
        self.path, self.settings = path, settings
        self.file = opened(path)

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> FeedbackIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- reading ----------------------------------------------------------------------------------

    def follow(self, log: Log) -> int:
        """Read what was recorded since the last time; the number of the entry it is read up to.

        In three transactions: what was said, what it changes in the standing of those who said it, and the
        drafts. A process that is killed leaves the last that was finished; the next one goes on from there.
        """
        until = log.end()
        with self._transaction():
            cursor = self._cursor(log)
            if until > cursor:
                self._read(log, cursor, until)
        if self._get("settled") != str(until):
            released = {body["target"] for page in log.lean(QuarantineOverride, 0, until) for _, body in page}
            self._settle(frozenset(released), until)
        return until

    def take(self, interactions: Iterable[Interaction], feedback: Iterable[Feedback]) -> None:
        """Take events given by hand, once and in any order, in the place of a log."""
        answers = [plain(i) for i in {i.id: i for i in interactions}.values()]
        once = {f.id: f for f in feedback}
        found = raw_log.LogBatch()
        found.newest, found.counts["feedback events"] = len(once), len(once)
        for seq, id in enumerate(sorted(once), 1):
            found.take(seq, plain(once[id]))
        found.regenerations(answers)
        with self._transaction():
            fold = Fold(self.file, self._get("standings") is None)
            self._fold(fold, found)
            rows = [raw_log.answer_row(body) for body in answers]
            fold.take_answers(rows)
            fold.wait_for(fold.unknown({row[PARENT] for row in rows}))
            fold.mark()
        self._settle(frozenset(), len(once))

    def _cursor(self, log: Log) -> int:
        """How far the log was read. Of another log, or an older copy of this one, nothing was."""
        cursor = int(self._get("cursor") or 0)
        if cursor and self._get("mark") != _mark(log, cursor):
            index_tables.empty(self.file)
            return 0
        return cursor

    def _read(self, log: Log, cursor: int, until: int) -> None:
        for page in log.lean(Erasure, cursor, until):
            self._erase([body["subject"] for _, body in page])
            self._put("erased", str(page[-1][0]))
        fold = Fold(self.file, self._get("standings") is None)
        with ProcessPool(raw_log.workers(until - cursor), log) as crew:
            stretches = [(at, min(at + STRETCH, until)) for at in range(cursor, until, STRETCH)]
            for found in crew.map(raw_log.read, stretches):
                self._fold(fold, found)
            fold.fetch(lambda ids: crew.map(raw_log.answers, ids))
        fold.mark()
        self._put("cursor", str(until))
        self._put("mark", _mark(log, until))

    def _fold(self, fold: Fold, found: raw_log.LogBatch) -> None:
        fold.fold(found)
        if found.newest:
            self._put("newest", str(found.newest))

    def _settle(self, released: frozenset[str], until: int) -> None:
        """Who is trusted how far, what is held back, and the drafts of all prompts that this changes."""
        with self._transaction():
            index_tables.index(self.file)
            now = trust.measure(self.file, self.settings, released)
            drafting.mark_changed(self.file, trust.RaterStandings.parse(self._get("standings")), now)
            self._put("standings", now.text())
        with self._transaction():
            if self.file.execute("select exists (select 1 from dirty)").fetchone()[0]:
                self._put("drafted", str(int(self._get("drafted") or 0) + 1))
            # Not those measured here: another process may have measured later, and these are what it left.
            drafting.redraft(self.file, self.path, self.standings())
            self._put("settled", str(until))
            held = [self._get(name) for name in ("newest", "erased", "drafted", "standings")]
            self._put("state", hash_value(held))

    # --- what is asked of it --------------------------------------------------------------------

    def quarantine(self) -> list[abuse_rules.QuarantineEntry]:
        """Everything that is held back now, and why; the fullest entries first."""
        now = trust.RaterStandings.parse(self._get("standings"))
        held = [] if now is None else now.held
        return sorted(held, key=lambda h: (-h.n, h.id))

    def standings(self) -> trust.RaterStandings:
        found = trust.RaterStandings.parse(self._get("standings"))
        return found if found is not None else trust.measure(self.file, self.settings, frozenset())

    def state(self) -> str:
        """The name of what the index holds: it changes when anything does that items are made of."""
        return self._get("state") or ""

    def remembered(self, key: str) -> str | None:
        """What was kept under a key while the state was the same."""
        return self._get(f"kept {key}")

    def remember(self, key: str, value: str, blobs: Mapping[str, str], held: str) -> None:
        """Keep the outcome of a question to this state, and the blobs that it wrote while so much was `held`
        out; what was kept of earlier states is forgotten."""
        with self._transaction():
            state = self.state()
            if self._get("kept of") != state:
                self.file.execute("delete from meta where key like 'kept %'")
                self._put("kept of", state)
            self._put(f"kept {key}", value)
            self._put("written", json.dumps({"by": [code_hash(), held], "blobs": dict(blobs)}))

    def written(self, held: str) -> dict[str, str]:
        """The blobs that were written last, by kind; not those of other code, whose rows may be of another
        form, nor those written before something more was held out."""
        found = json.loads(self._get("written") or "{}")
        return found["blobs"] if found and found.get("by") == [code_hash(), held] else {}

    def drafts(
        self, after: int, since: float | None
    ) -> Iterator[tuple[Draft, AnswerFacts, AnswerFacts | None]]:
        """Drafts whose newest word was recorded behind `after` and said no earlier than `since`, with the
        rights and facts of the answers they are made of; in the order of the routes."""
        facts = "{0}.skill, {0}.tenant, {0}.arm, {0}.propensity, {0}.retain_until, {0}.length, {0}.text"
        rows = self.file.execute(
            f"select d.*, {facts.format('a')}, {facts.format('b')} "
            "from drafts d join answers a on a.id = d.about "
            "left join answers b on b.id = d.rejected and d.rejected != '' "
            "where d.seq > ? and d.time >= ? order by d.prompt, d.rowid",
            (after, float("-inf") if since is None else since),
        )
        one, people = _Once(), cache(_split)  # what many drafts share is in memory once
        for prompt, route, kind, about, chosen, *row in rows:
            rejected, good, flip, weight, words, subjects, seq, time, simulated = row[:9]
            named = one[prompt], one[route], one[kind], about, about if chosen == about else chosen, rejected
            lists = _split(words), people(subjects)
            draft = Draft._make((*named, bool(good), flip, weight, *lists, seq, time, bool(simulated)))
            facts = AnswerFacts._make((*(one[of] for of in row[9:12]), *row[12:16]))
            other = AnswerFacts._make((*(one[of] for of in row[16:19]), *row[19:])) if rejected else None
            yield draft, facts, other

    def edits(self) -> dict[str, CorrectionEdit]:
        """The corrections whose texts were compared already, by id."""
        return {row[0]: CorrectionEdit._make(row) for row in self.file.execute("select * from edits")}

    def keep_edits(self, found: Sequence[CorrectionEdit]) -> None:
        """Remember what was compared."""
        with self._transaction():
            self.file.executemany("insert or replace into edits values (?,?,?,?,?)", found)

    def counts(self) -> dict[str, int]:
        """Why events made no item, over all that holds now."""
        found = dict(self.file.execute("select reason, n from seen"))
        found |= dict(self.file.execute("select reason, sum(n) from tally group by reason"))
        orphans = self.file.execute("select count(*) from wanted").fetchone()[0]
        return found | ({"waiting: about an answer that is not known": orphans} if orphans else {})

    def newcomers(self, least: int, now: float) -> tuple[list[tuple[str, int, float]], float]:
        """(person, live verdicts, time of the first) of end users who may be new, and the newest time; an
        event of the future makes nobody old."""
        newest = self.file.execute(
            "select coalesce(max(time), 0) from live where time <= ?", (now,)
        ).fetchone()[0]
        rows = self.file.execute(
            "select s.subject, (select count(*) from live l where l.subject = s.subject and l.gone = 0) "
            "+ (select count(*) from picks p where p.subject = s.subject and p.gone = 0) n, s.first "
            "from subjects s where n < ? or s.first > ?",
            (least, newest - abuse_rules.YOUNG_S),
        )
        return rows.fetchall(), newest

    def agreement(self) -> list[tuple[int, int]]:
        """(up, down) of every answer that several people gave a thumb."""
        return self.file.execute(
            "select sum(up), count(*) - sum(up) from live "
            "where name = 'thumb' and gone = 0 and up is not null group by target having count(*) > 1"
        ).fetchall()

    # --- the file -------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self.file.execute("begin immediate")
            yield
            self.file.execute("commit")
        except sqlite3.Error as error:
            self._undo()
            remedy = f"free disk space, or delete {self.path}: it is made again from the log"
            raise StoreError("the derived index of feedback failed", error, remedy=remedy) from error
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        with suppress(sqlite3.Error):
            self.file.execute("rollback")

    def _erase(self, subjects: Sequence[str]) -> None:
        """Forget what the log erased: these people's answers, their words, and all words on their answers."""
        file = self.file
        for subject in subjects:
            drafting.mark_of(file, subject)
            file.execute("create temp table gone as select id from answers where subject = ?", (subject,))
            theirs = "select id from temp.gone"
            file.execute(f"delete from live where subject = ? or target in ({theirs})", (subject,))
            file.execute(
                f"delete from picks where subject = ? or first in ({theirs}) "
                f"or exists (select 1 from json_each(shown) j where j.value in ({theirs}))",
                (subject,),
            )
            file.execute(f"delete from children where parent in ({theirs}) or child in ({theirs})")
            for table in ("answers", "rates", "subjects"):
                file.execute(f"delete from {table} where subject = ?", (subject,))
            file.execute("drop table temp.gone")
        file.execute("delete from edits where id not in (select id from live)")

    def _get(self, key: str) -> str | None:
        found = self.file.execute("select value from meta where key = ?", (key,)).fetchone()
        return found[0] if found else None

    def _put(self, key: str, value: str) -> None:
        self.file.execute("insert or replace into meta values (?, ?)", (key, value))


def index_path(folder: Path, store: str, settings: FeedbackRules) -> Path:
    """Where the index of a store lies: another store or other rules have another file."""
    name = hash_value(
        [store, SCHEMA, RULES, abuse_rules.RULES, settings.pairs_per_prompt, settings.max_flip_rate]
    )
    return folder / f"routes-{name[:12]}.sqlite"


def _mark(log: Log, seq: int) -> str:
    found = log.identity(seq)
    return f"{seq}:{found}"


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split("\x1f")) if text else ()
