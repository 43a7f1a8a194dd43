"""Reads the log into the tables of the index, as JSON bodies without building records: there may be
millions.

What is read of a range of the log depends on that range alone, so several processes can read at once.
"""

from __future__ import annotations

import gc
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Protocol

from escultor.feedback import abuse_rules
from escultor.feedback.index_tables import ChoiceEvent, FeedbackEvent, RatedAnswer, marks
from escultor.ids import plain
from escultor.store.feedback import CORRECTION, THUMB, choice_target
from escultor.store.log import Log
from escultor.types import Feedback, ImplicitEvent, Interaction, Relation, Role, SourceKind

MIN_PARALLEL = 100_000  # entries, prompts or items; starting processes costs 0.7 s, which fewer do not repay
MAX_WORKERS = 4  # one process writes the results of all
ANSWERS_PER_READ = 4000
REGENERATED = '"relation":"regenerate"'
_END_USER, _USER, _REGENERATE = SourceKind.END_USER.value, Role.USER.value, Relation.REGENERATE.value
# Whether an implicit event approves of its answer, and how often that is right: proposals of the literature
# on satisfaction signals, to be measured on one's own raters. Events that are not listed say nothing.
IMPLICIT_RULES = "implicit/1"
IMPLICIT: dict[str, tuple[bool, float]] = {
    ImplicitEvent.COPY: (True, 0.60),
    ImplicitEvent.INSERT_ACCEPT: (True, 0.60),
    ImplicitEvent.SHARE: (True, 0.60),
    ImplicitEvent.REGENERATE: (False, 0.60),
    ImplicitEvent.UNDO: (False, 0.60),
    ImplicitEvent.ESCALATE_TO_HUMAN: (False, 0.60),
    ImplicitEvent.FOLLOW_UP_REPHRASE: (False, 0.65),
}


class BodySource(Protocol):
    """Where texts are looked up, such as `escultor.store.log.Log`."""

    def raw_by_id(self, record_type: Any, ids: Sequence[str]) -> dict[str, dict[str, Any]]: ...


class InMemorySource:
    """Interactions and feedback given by hand, instead of a log."""

    def __init__(self, interactions: Iterable[Interaction], feedback: Iterable[Feedback]):
        self.bodies: dict[Any, dict[str, Any]] = {
            Interaction: {i.id: plain(i) for i in interactions},
            Feedback: {f.id: plain(f) for f in feedback},
        }

    def raw_by_id(self, record_type: Any, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        bodies = self.bodies[record_type]
        return {id: bodies[id] for id in ids if id in bodies}


class LogBatch:
    """The feedback and the regenerations in a range of the log, as rows for the tables of the index. Law:
    folded by precedence, `live` and `choices` hold what `store.feedback.live` holds of the same events."""

    def __init__(self) -> None:
        self.live: list[FeedbackEvent] = []
        self.choices: list[ChoiceEvent] = []
        self.rates: Counter[tuple[str, int]] = Counter()  # events by (end user, hour)
        self.first_seen: dict[str, float] = {}  # by end user
        self.newest = 0  # sequence number in the log
        self.children: list[tuple[str, str]] = []  # (answer, its regeneration)
        self.counts: Counter[str] = Counter()

    def add(self, seq: int, body: dict[str, Any]) -> None:
        """Add one feedback event."""
        variant, subject, time, id = body["_"], body["subject"], body["time"], body["id"]
        if variant == "Remark":
            self.counts["not trained on: remarks"] += 1
            return
        source = body["source"]
        if variant == "Choice":
            shown, winner = body["shown_order"], body["winner"] or ""
            target = choice_target(shown)
            key = (target, subject, body["name"], time, 0, id, seq)
            # A choice among fewer than two answers is kept here too; drafting counts why it makes no pair.
            first = shown[0] if shown else None
            self.choices.append(ChoiceEvent._make((*key, source, first, json.dumps(shown), winner)))
        elif variant == "Revocation":
            target = body["target"]
            key = (target, subject, body["name"], time, 1, id, seq)
            if target.startswith("choice-"):
                self.choices.append(ChoiceEvent._make((*key, source, None, "[]", "")))
            else:
                self.live.append(FeedbackEvent._make((*key, None, source)))
        else:
            target = body["target"]
            name, up = self._polarity(variant, body)
            self.live.append(FeedbackEvent._make((target, subject, name, time, 0, id, seq, up, source)))
        if is_end_user(source):
            self.rates[subject, int(time // abuse_rules.HOUR_S)] += 1
            self.first_seen[subject] = min(time, self.first_seen.get(subject, time))

    def add_regenerations(self, bodies: Sequence[dict[str, Any]]) -> None:
        """Add the (parent, answer) of each of these answers that regenerates another."""
        self.children += [(parent, body["id"]) for body in bodies if (parent := _regenerated(body))]

    def _polarity(self, variant: str, body: dict[str, Any]) -> tuple[str, int | None]:
        """The name an event is folded by, and whether it approves (1), disapproves (0) or says nothing that
        a labelling rule uses (None)."""
        if variant == "Correction":
            return CORRECTION, 0
        if variant == "Implicit":
            event = body["event"]
            if event not in IMPLICIT:
                self.counts[f"says nothing by itself: {event}"] += 1
            return event, int(IMPLICIT[event][0]) if event in IMPLICIT else None
        if body["name"] == THUMB and isinstance(body["value"], bool):
            return THUMB, int(body["value"])
        self.counts["not a thumb: ratings by other names or on a scale"] += 1
        return body["name"], None


def is_end_user(source: str) -> bool:
    """Whether an event came from outside. Raters, judges, programs and simulated raters are the operator's
    own: abuse rules do not apply to them."""
    return source == _END_USER


@contextmanager
def no_cycle_collection() -> Iterator[None]:
    """Switches Python's search for reference cycles off: passes over millions of rows make none, and the
    search takes a fifth of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def worker_count(n: int) -> int:
    """How many processes share the work on `n` entries, prompts or items."""
    return 1 if n < MIN_PARALLEL else min(MAX_WORKERS, os.cpu_count() or 1)


@no_cycle_collection()
def read_range(log: Log, bounds: tuple[int, int]) -> LogBatch:
    """What entries `after` < seq <= `until` of the log hold, where `bounds` = (after, until)."""
    batch = LogBatch()
    for page in log.raw_pages(Feedback, *bounds):
        batch.newest = page[-1][0]
        batch.counts["feedback events"] += len(page)
        for seq, body in page:
            batch.add(seq, body)
    for page in log.raw_pages(Interaction, *bounds, REGENERATED):
        batch.add_regenerations([body for _, body in page])
    batch.live.sort(key=attrgetter("target"))  # as the tables are, so that they are written faster
    batch.choices.sort(key=attrgetter("target"))
    return batch


@no_cycle_collection()
def read_answers(log: Log, ids: Sequence[str]) -> list[RatedAnswer]:
    """The rows of those of these answers that the log holds."""
    return [answer_row(body) for body in log.raw_by_id(Interaction, ids).values()]


def answer_row(body: dict[str, Any]) -> RatedAnswer:
    """The row of an interaction."""
    answer = body["answer"]
    asked = "\n".join([m["content"] for m in body["messages"] if m["role"] == _USER])
    echoed, claim = abuse_rules.echoed_claim(asked, answer)
    return RatedAnswer(
        id=body["id"],
        prompt=body["prompt_hash"],
        subject=body["subject"],
        tenant=body.get("tenant", ""),
        skill=body["skill"],
        arm=body["arm"],
        propensity=body["propensity"],
        parent=_regenerated(body),
        consent=body.get("consent", "train"),
        retain_until=body.get("retain_until"),
        text_hash=abuse_rules.short_hash(answer),
        length=len(answer),
        echoed=echoed,
        claim=claim,
        finish=body["finish_reason"],
    )


def _regenerated(body: dict[str, Any]) -> str | None:
    """The answer that this one regenerates."""
    lineage = body.get("lineage") or {}
    return lineage.get("parent") if lineage.get("relation") == _REGENERATE else None


class Fold:
    """One read of new log entries into the tables, within one transaction. The first read notes no changed
    targets: every prompt is drafted anyway, and a million notes would cost a tenth of the time."""

    def __init__(self, file: sqlite3.Connection, first: bool):
        self.file, self.first = file, first
        file.execute("create temp table if not exists touched (id text primary key) without rowid")

    def add_events(self, batch: LogBatch) -> None:
        """Fold feedback into what holds, and count it."""
        run = self.file.executemany
        run(_upsert("live", FeedbackEvent), batch.live)
        run(_upsert("choices", ChoiceEvent), batch.choices)
        run("insert or ignore into children values (?,?)", batch.children)
        if not self.first:
            touched = {event.target for event in (*batch.live, *batch.choices)}
            touched.update(parent for parent, _ in batch.children)
            run("insert or ignore into touched values (?)", [(id,) for id in sorted(touched)])
        rates = sorted((subject, hour, n) for (subject, hour), n in batch.rates.items())
        run("insert into rates values (?,?,?) on conflict do update set n = n + excluded.n", rates)
        run(
            "insert into subjects values (?,?) on conflict do update set first = min(first, excluded.first)",
            list(batch.first_seen.items()),
        )
        counts = list(batch.counts.items())
        run("insert into read_counts values (?,?) on conflict do update set n = n + excluded.n", counts)

    def add_answers(self, rows: Sequence[RatedAnswer]) -> None:
        self.file.executemany(f"insert or replace into answers values {marks(RatedAnswer)}", rows)
        if not self.first:
            self.file.executemany("insert or ignore into dirty values (?)", [(row.prompt,) for row in rows])

    def fetch(self, read: Callable[[list[list[str]]], Iterable[list[RatedAnswer]]]) -> None:
        """Read the answers that feedback is about, and those that they regenerate. `read` maps lists of ids
        to the rows of those that the log holds; the others are wanted until a later read."""
        ids = self._mentioned()
        missing: set[str] = set()
        while ids:
            missing.update(ids)
            parents: set[str | None] = set()
            batches = [ids[i : i + ANSWERS_PER_READ] for i in range(0, len(ids), ANSWERS_PER_READ)]
            for rows in read(batches):
                self.add_answers(rows)
                missing.difference_update(row.id for row in rows)
                parents.update(row.parent for row in rows)
            ids = self.unknown(parents - missing)
        self.set_wanted(missing)

    def unknown(self, ids: Iterable[str | None]) -> list[str]:
        """The ids among these that no answer in the index has, sorted."""
        rows = self.file.execute(
            "select value from json_each(?) where not exists (select 1 from answers where id = value)",
            (json.dumps(sorted(id for id in ids if id)),),
        )
        return [id for (id,) in rows]

    def set_wanted(self, ids: Iterable[str]) -> None:
        """Remember the answers that the log does not hold yet."""
        self.file.execute("delete from wanted")
        self.file.executemany("insert or ignore into wanted values (?)", [(id,) for id in ids])

    def mark_prompts(self) -> None:
        """Mark every prompt that something new is about as to be drafted again."""
        mark = "insert or ignore into dirty select a.prompt from answers a "
        self.file.execute(f"{mark} where a.id in (select id from touched)")
        self.file.execute(
            f"{mark} join choices c on c.first = a.id where c.target in (select id from touched)"
        )
        self.file.execute("delete from touched")

    def _mentioned(self) -> list[str]:
        """The answers that live feedback is about and the index does not hold, in order."""
        if self.first:
            query = (
                "select target from live where target not like 'choice-%' "
                "union select shown.value from choices c, json_each(c.shown) shown"
            )
        else:
            query = (
                "select id from wanted union select id from touched t where id not like 'choice-%' "
                "and not exists (select 1 from answers a where a.id = t.id) "
                "and (exists (select 1 from live l where l.target = t.id) "
                "or exists (select 1 from choices c where c.first = t.id)) "
                "union select shown.value from choices c, json_each(c.shown) shown "
                "where c.target in (select id from touched) "
                "and not exists (select 1 from answers a where a.id = shown.value)"
            )
        return [id for (id,) in self.file.execute(query)]


def _upsert(table: str, row: type[FeedbackEvent | ChoiceEvent]) -> str:
    """The statement that replaces what holds under the same key if it has lower precedence. A withdrawn
    choice keeps the answers that it was made among: the withdrawal does not name them."""
    kept = {"first": "coalesce(excluded.first, first)"}
    update = ", ".join(f"{name} = {kept.get(name, f'excluded.{name}')}" for name in row._fields[3:])
    return (
        f"insert into {table} values {marks(row)} on conflict do update set {update} where "
        f"(excluded.time, excluded.withdrawn, excluded.id) > ({table}.time, {table}.withdrawn, {table}.id)"
    )
