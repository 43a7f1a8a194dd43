"""From the tables of the index to drafts: which prompts are drafted again, and with what evidence."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from escultor.feedback import index_tables, raw_log
from escultor.feedback.edits import compare_corrections
from escultor.feedback.evidence import DraftLimits, PromptGroup, judge_answer
from escultor.feedback.index_tables import ChoiceEvent, CorrectionEdit, FeedbackEvent, RatedAnswer
from escultor.feedback.labelling_rules import Draft, draft_items
from escultor.feedback.raw_log import BodySource, is_end_user
from escultor.feedback.trust import RaterStandings
from escultor.process_pool import ProcessPool
from escultor.store.feedback import CORRECTION
from escultor.types import FAILED, Consent

PROMPTS_PER_SPAN = 2000
BROKEN_OFF = frozenset((*map(str, FAILED), "cancelled"))
_TRAIN = Consent.TRAIN.value
PromptSpan = tuple[str, str]  # the first prompt, and the first after the last
AFTER_ALL = "\U0010ffff"  # no prompt's hash sorts behind it


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


def redraft(
    file: sqlite3.Connection, path: Path | None, standings: RaterStandings, bodies: BodySource
) -> None:
    """Replace the drafts of all marked prompts. The marks have to be committed: other processes read them."""
    file.execute("delete from drafts where prompt in (select prompt from dirty)")
    file.execute("delete from unused where prompt in (select prompt from dirty)")
    n = file.execute("select count(*) from dirty").fetchone()[0]
    workers = raw_log.worker_count(n) if path and index_tables.can_read_while_writing(file) else 1
    # Other processes open connections of their own, which see what was committed.
    source = path if path and workers > 1 else file
    with ProcessPool(workers, (source, standings, bodies)) as pool:
        # What the workers read is in other tables than what is written here.
        for drafts, unused, edits in pool.map(_draft_span, _spans(file)):
            file.executemany(f"insert into drafts values {index_tables.marks(Draft)}", drafts)
            file.executemany("insert into unused values (?,?,?)", unused)
            file.executemany(f"insert into edits values {index_tables.marks(CorrectionEdit)}", edits)
    file.execute("delete from dirty")


def _spans(file: sqlite3.Connection) -> list[PromptSpan]:
    """The marked prompts in order, cut into spans."""
    rows = file.execute(
        "select prompt from (select prompt, row_number() over (order by prompt) n from dirty) "
        "where (n - 1) % ? = 0",
        (PROMPTS_PER_SPAN,),
    )
    starts = [prompt for (prompt,) in rows]
    return list(zip(starts, (*starts[1:], AFTER_ALL), strict=True)) if starts else []


class DraftedSpan(NamedTuple):
    """Rows for the tables of drafts, of unused events (prompt, reason, number), and of corrections that
    were compared for the first time."""

    drafts: list[Draft]
    unused: list[tuple[str, str, int]]
    edits: list[CorrectionEdit]


@raw_log.no_cycle_collection()
def _draft_span(
    shared: tuple[Path | sqlite3.Connection, RaterStandings, BodySource], span: PromptSpan
) -> DraftedSpan:
    """The drafts of all marked prompts of a span."""
    source, standings, bodies = shared
    made = DraftedSpan([], [], [])
    reader = _reader(source) if isinstance(source, Path) else source
    for group in _read_groups(reader, standings, bodies, span, made.edits):
        made.drafts.extend(draft_items(group))
        made.unused.extend((group.prompt, reason, n) for reason, n in group.unused_counts.items() if n)
    return made


_reader = cache(index_tables.open_reader)


def _read_groups(
    file: sqlite3.Connection,
    standings: RaterStandings,
    bodies: BodySource,
    span: PromptSpan,
    new_edits: list[CorrectionEdit],
) -> Iterator[PromptGroup]:
    """The marked prompts of a span, each with its usable answers and what holds about them.

    An event belongs to the answer that it is about, and a choice to the answer shown first. Corrections
    that were not compared with their answers yet are, and added to `new_edits`.
    """
    answers = [
        RatedAnswer._make(row)
        for row in file.execute(
            "select a.* from dirty d join answers a on a.prompt = d.prompt "
            "where d.prompt >= ? and d.prompt < ? order by d.prompt",
            span,
        )
    ]
    ids = (json.dumps([answer.id for answer in answers]),)

    def read(columns: str, join: str) -> sqlite3.Cursor:
        return file.execute(f"select {columns} from json_each(?) a cross join {join}", ids)

    events: dict[str, list[FeedbackEvent]] = {}
    live = "live l on l.target = a.value and l.withdrawn = 0 and l.up is not null"
    for event in map(FeedbackEvent._make, read("l.*", live)):
        events.setdefault(event.target, []).append(event)
    choices: dict[str | None, list[ChoiceEvent]] = {}
    for choice in map(ChoiceEvent._make, read("c.*", "choices c on c.first = a.value and c.withdrawn = 0")):
        choices.setdefault(choice.first, []).append(choice)
    regenerated = {id for (id,) in read("c.parent", "children c on c.parent = a.value")}
    corrections = [e for own in events.values() for e in own if e.name == CORRECTION]
    edits = _edits(file, bodies, corrections, new_edits)
    limits = DraftLimits._make(standings.settings[name] for name in DraftLimits._fields)
    for prompt, grouped in groupby(answers, attrgetter("prompt")):
        group = PromptGroup(prompt, standings.trust, regenerated, limits)
        own_choices: list[ChoiceEvent] = []
        for answer in grouped:
            own_choices += choices.get(answer.id, ())
            _add_answer(group, standings, answer, events.get(answer.id, []), edits)
        _add_choices(group, standings, own_choices)
        yield group


def _edits(
    file: sqlite3.Connection,
    bodies: BodySource,
    corrections: list[FeedbackEvent],
    new: list[CorrectionEdit],
) -> dict[str, CorrectionEdit]:
    """What these corrections change, by id; those that were erased are left out."""
    ids = json.dumps([event.id for event in corrections])
    rows = file.execute("select e.* from json_each(?) a cross join edits e on e.id = a.value", (ids,))
    known = {edit.id: edit for edit in map(CorrectionEdit._make, rows)}
    new += compare_corrections([event for event in corrections if event.id not in known], bodies)
    return known | {edit.id: edit for edit in new}


def _add_answer(
    group: PromptGroup,
    standings: RaterStandings,
    answer: RatedAnswer,
    events: list[FeedbackEvent],
    edits: Mapping[str, CorrectionEdit],
) -> None:
    """Add an answer and what each person made of it, if it may be used at all."""
    if answer.consent != _TRAIN or answer.finish in BROKEN_OFF:
        reason = "the answer was broken off" if answer.consent == _TRAIN else "no consent"
        group.count(f"left out: {reason}", len(events))
        return
    group.answers[answer.id] = answer
    judging = []
    for event in events:
        if rule := _holding_rule(standings, event, answer):
            group.count(f"held back: {rule}")
        elif event.name != CORRECTION:
            judging.append(event)
        elif (edit := edits.get(event.id)) is None:
            group.count("left out: erased")
        elif not edit.distance:
            group.count("left out: correction that changes nothing but white space and punctuation")
        elif edit.distance < group.limits.min_edit:
            group.count("left out: correction that changes less than feedback.min_edit")
        else:
            group.add_correction(event, edit)
            judging.append(event)
    if judging:
        group.judgements[answer.id] = judge_answer(judging, group.trust)


def _add_choices(group: PromptGroup, standings: RaterStandings, choices: list[ChoiceEvent]) -> None:
    """Add the choices whose answers are all in the group."""
    for choice in choices:
        if not choice.winner:
            group.count("no pair: a choice that was a tie")
        elif choice.winner not in choice.answers or not group.answers.keys() >= set(choice.answers):
            group.count("left out: a choice between answers to several prompts, unknown or not to be used")
        elif rule := _holding_rule(standings, choice, group.answers[choice.winner]):
            group.count(f"held back: {rule}")
        else:
            group.add_choice(choice)


def _holding_rule(
    standings: RaterStandings, event: FeedbackEvent | ChoiceEvent, answer: RatedAnswer
) -> str | None:
    """The abuse rule that holds an event back."""
    if not is_end_user(event.source) or event.id in standings.released:
        return None
    held = standings.anomalies.get(event.subject)
    if held and any(since <= event.time < until for since, until in held):
        return "rate_anomaly"
    return "prompt_echo" if standings.is_echo(answer) else None
