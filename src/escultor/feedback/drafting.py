"""From the tables of the index to drafts: which prompts are drafted again, and with what evidence."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from escultor.feedback import index_tables, raw_log
from escultor.feedback.evidence import (
    ChoiceEvent,
    FeedbackEvent,
    PromptAnswer,
    PromptGroup,
    is_end_user,
    judge_answer,
)
from escultor.feedback.labelling_rules import Draft, DraftLimits, draft_items
from escultor.feedback.trust import RaterStandings
from escultor.process_pool import ProcessPool
from escultor.store.feedback import CORRECTION
from escultor.types import FAILED, Consent

PROMPTS_PER_SPAN = 2000
BROKEN_OFF = (*FAILED, "cancelled")
PromptSpan = tuple[str, str | None]  # the first prompt, and the first after the last (None: no prompt)
SEPARATOR = "\x1f"  # of ids in one column


def mark_changed(file: sqlite3.Connection, before: RaterStandings | None, now: RaterStandings) -> None:
    """Mark the prompts whose drafts change with the standings: those with an event or an answer of somebody
    who counts otherwise than before, or all."""
    if before is None or before.settings != now.settings or before.common != now.common:
        file.execute("insert or ignore into dirty select distinct prompt from answers")
        return
    for subject in before.changed_subjects(now):
        mark_subject(file, subject)


def mark_subject(file: sqlite3.Connection, subject: str) -> None:
    """Mark the prompts with an event or an answer of one person."""
    for rows in (
        "live l join answers a on a.id = l.target where l.subject = ?",
        "answers a where a.subject = ?",
        "choices c join answers a on a.id = c.first where c.subject = ?",
    ):
        file.execute(f"insert or ignore into dirty select a.prompt from {rows}", (subject,))


class Drafter:
    """Drafts prompts of an index. A copy in another process opens a connection of its own, which sees what
    was committed; the one in this process uses its owner's."""

    def __init__(self, path: Path | None, standings: RaterStandings, file: sqlite3.Connection | None = None):
        self.path, self.standings, self._file = path, standings, file

    def __reduce__(self) -> tuple[Any, ...]:
        return Drafter, (self.path, self.standings)

    @property
    def file(self) -> sqlite3.Connection:
        if self._file is None:
            assert self.path is not None, "an index in memory is drafted by one process"
            self._file = index_tables.open_reader(self.path)
        return self._file


def redraft(file: sqlite3.Connection, path: Path | None, standings: RaterStandings) -> None:
    """Replace the drafts of all marked prompts. The marks have to be committed: other processes read them."""
    file.execute("delete from drafts where prompt in (select prompt from dirty)")
    file.execute("delete from unused where prompt in (select prompt from dirty)")
    n = file.execute("select count(*) from dirty").fetchone()[0]
    workers = raw_log.worker_count(n) if path is not None and index_tables.can_read_while_writing(file) else 1
    with ProcessPool(workers, Drafter(path, standings, file)) as pool:
        # What the workers read is in other tables than what is written here.
        for drafts, unused in pool.map(_draft_span, _spans(file)):
            file.executemany(f"insert into drafts values {index_tables.marks(Draft)}", drafts)
            file.executemany("insert into unused values (?,?,?)", unused)
    file.execute("delete from dirty")


def _spans(file: sqlite3.Connection) -> list[PromptSpan]:
    """The marked prompts in order, cut into spans."""
    rows = file.execute(
        "select prompt from (select prompt, row_number() over (order by prompt) n from dirty) "
        "where (n - 1) % ? = 0",
        (PROMPTS_PER_SPAN,),
    )
    starts = [prompt for (prompt,) in rows]
    return list(zip(starts, (*starts[1:], None), strict=True)) if starts else []


@raw_log.no_cycle_collection()
def _draft_span(
    drafter: Drafter, span: PromptSpan
) -> tuple[list[tuple[Any, ...]], list[tuple[str, str, int]]]:
    """Rows of the table of drafts, and (prompt, reason, number) of the events that made none."""
    settings = drafter.standings.settings
    limits = DraftLimits(int(settings["pairs_per_prompt"]), settings["max_flip_rate"])
    drafts, unused = [], []
    for group in _read_groups(drafter, span):
        for draft in draft_items(group, limits):
            events, subjects = SEPARATOR.join(draft.events), SEPARATOR.join(draft.subjects)
            drafts.append(tuple(draft._replace(events=events, subjects=subjects)))  # type: ignore[arg-type]
        unused += [(group.prompt, reason, n) for reason, n in group.unused_counts.items() if n]
    return drafts, unused


def _read_groups(drafter: Drafter, span: PromptSpan) -> Iterator[PromptGroup]:
    """The marked prompts of a span, each with its usable answers and what is said of them.

    Two queries in the order of prompts are read side by side: answers joined with the live events about them
    (an answer has as many rows as events, or one), and choices. Both start from the marked prompts, so that
    each prompt's rows are together, and prompts without choices are missing from the second alone.
    """
    first, end = span
    marked = "dirty d join answers a on a.prompt = d.prompt"
    within = "d.prompt >= :first" + (" and d.prompt < :end" if end is not None else "")
    cursor = drafter.file.cursor()
    cursor.row_factory = sqlite3.Row
    rows = cursor.execute(
        "select d.prompt, a.id, a.subject, a.text_hash, a.parent, "
        "exists (select 1 from children c where c.parent = a.id) is_regenerated, a.consent, a.finish, "
        "a.echoed, a.skill, l.seq event_seq, l.id event_id, l.time, l.subject rater, l.name, l.up, l.source "
        f"from {marked} left join live l on l.target = a.id and l.withdrawn = 0 and l.up is not null "
        f"where {within} order by d.prompt",
        {"first": first, "end": end},
    )
    choice_rows = drafter.file.execute(
        "select d.prompt, c.seq, c.id, c.time, c.subject, c.shown, c.winner, c.source from "
        f"{marked} join choices c on c.first = a.id where c.withdrawn = 0 and {within} order by d.prompt",
        {"first": first, "end": end},
    )
    choices: dict[str, list[ChoiceEvent]] = {}
    for prompt, seq, id, time, subject, shown, winner, source in choice_rows:
        choice = ChoiceEvent._make((seq, id, time, subject, tuple(json.loads(shown)), winner, source))
        choices.setdefault(prompt, []).append(choice)
    for prompt, answer_events in groupby(rows, itemgetter("prompt")):
        yield _group(drafter.standings, prompt, answer_events, choices.get(prompt, []))


def _group(
    standings: RaterStandings, prompt: str, rows: Iterable[sqlite3.Row], choices: list[ChoiceEvent]
) -> PromptGroup:
    group = PromptGroup(prompt, standings.trust)
    events: dict[str, list[FeedbackEvent]] = {}
    echoes: set[str] = set()  # answers that repeat their prompts
    for row in rows:
        answer = row["id"]
        if answer not in group.answers:
            if not _add_answer(group, row):
                continue
            if standings.is_echo(row["subject"], row["skill"], row["echoed"]):
                echoes.add(answer)
        if row["event_seq"] is None:
            continue
        event = FeedbackEvent(
            seq=row["event_seq"],
            id=row["event_id"],
            time=row["time"],
            target=answer,
            subject=row["rater"],
            name=row["name"],
            up=bool(row["up"]),
            source=row["source"],
        )
        if rule := _holding_rule(standings, event, answer in echoes):
            group.count(f"held back: {rule}")
        elif event.name == CORRECTION:
            group.corrections.append(event)
        else:
            events.setdefault(answer, []).append(event)
    group.judgements = {id: judge_answer(own, group.trust) for id, own in events.items()}
    for choice in choices:
        if not choice.winner:
            group.count("no pair: a choice that was a tie")
        elif choice.winner not in choice.shown or not group.answers.keys() >= set(choice.shown):
            group.count("left out: a choice between answers to several prompts, unknown or not to be used")
        elif rule := _holding_rule(standings, choice, choice.winner in echoes):
            group.count(f"held back: {rule}")
        else:
            group.choices.append(choice)
    return group


def _add_answer(group: PromptGroup, row: sqlite3.Row) -> bool:
    """Add the answer of a row to the group, if it may be used at all; else count its event, if it has one."""
    if row["consent"] != Consent.TRAIN or row["finish"] in BROKEN_OFF:
        reason = "the answer was broken off" if row["consent"] == Consent.TRAIN else "no consent"
        group.count(f"left out: {reason}", int(row["event_seq"] is not None))
        return False
    group.answers[row["id"]] = PromptAnswer(
        row["id"], row["subject"], row["text_hash"], row["parent"], bool(row["is_regenerated"])
    )
    return True


def _holding_rule(standings: RaterStandings, event: FeedbackEvent | ChoiceEvent, is_echo: bool) -> str | None:
    """The abuse rule that holds an event back."""
    if not is_end_user(event.source) or event.id in standings.released:
        return None
    if any(since <= event.time < until for since, until in standings.anomalies.get(event.subject, ())):
        return "rate_anomaly"
    return "prompt_echo" if is_echo else None
