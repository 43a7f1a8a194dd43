"""From the tables of the index to drafts: which prompts are gone through again, and with what of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
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
    judgements,
)
from escultor.feedback.labelling_rules import DraftLimits, drafts
from escultor.feedback.trust import RaterStandings
from escultor.process_pool import ProcessPool
from escultor.store.feedback import CORRECTION
from escultor.types import FAILED, Consent

MANY = 2000  # prompts at a time
BROKEN = (*FAILED, "cancelled")
TableRow = tuple[Any, ...]
PromptRows = tuple[
    str, list[TableRow], list[TableRow]
]  # its hash, its answers with what was said of them, its choices
PromptSpan = tuple[str, str | None]  # the first prompt, and the first behind the last


def mark_changed(file: sqlite3.Connection, before: RaterStandings | None, now: RaterStandings) -> None:
    """And so is every prompt with a word or an answer of somebody who counts otherwise than before."""
    if before is None or before.settings != now.settings or before.shared != now.shared:
        file.execute("insert or ignore into dirty select distinct prompt from answers")
        return
    for subject in before.changed(now):
        mark_of(file, subject)


def mark_of(file: sqlite3.Connection, subject: str) -> None:
    """The prompts with a word or an answer of one person."""
    for where in (
        "live l join answers a on a.id = l.target where l.subject = ?",
        "answers a where a.subject = ?",
        "picks p join answers a on a.id = p.first where p.subject = ?",
    ):
        file.execute(f"insert or ignore into dirty select a.prompt from {where}", (subject,))


class Drafting:
    """What goes through prompts knows: where the index lies, and who is trusted how far. A copy in another
    process has a connection of its own, and sees what was committed; one alone uses that of its owner."""

    def __init__(self, path: Path | None, now: RaterStandings, file: sqlite3.Connection | None = None):
        self.path, self.now = path, now
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Drafting, (self.path, self.now)

    @property
    def file(self) -> sqlite3.Connection:
        if self._file is None:
            assert self.path is not None, "an index in memory is gone through by one process"
            self._file = index_tables.reader(self.path)
        return self._file


def redraft(file: sqlite3.Connection, path: Path | None, now: RaterStandings) -> None:
    """Go through the prompts that are marked; what is marked was committed before, since other processes
    read it."""
    file.execute("delete from drafts where prompt in (select prompt from dirty)")
    file.execute("delete from tally where prompt in (select prompt from dirty)")
    n = file.execute("select count(*) from dirty").fetchone()[0]
    workers = raw_log.workers(n) if path is not None and index_tables.is_shared(file) else 1
    with ProcessPool(workers, Drafting(path, now, file)) as crew:
        # What is read here is in other tables than what is written.
        for made, tallies in crew.map(_drafted, _spans(file)):
            file.executemany(f"insert into drafts values ({','.join('?' * 14)})", made)
            file.executemany("insert into tally values (?,?,?)", tallies)
    file.execute("delete from dirty")


def _spans(file: sqlite3.Connection) -> list[PromptSpan]:
    """The marked prompts in their order, some at a time: the first of each span, and the first behind it."""
    rows = file.execute(
        "select prompt from (select prompt, row_number() over (order by prompt) n from dirty) "
        "where (n - 1) % ? = 0",
        (MANY,),
    )
    starts = [prompt for (prompt,) in rows]
    return list(zip(starts, (*starts[1:], None), strict=True)) if starts else []


def _prompts(file: sqlite3.Connection, span: PromptSpan) -> Iterator[PromptRows]:
    """The marked prompts of a span."""
    marked = "dirty d join answers a on a.prompt = d.prompt"
    within = "d.prompt >= ?" + (" and d.prompt < ?" if span[1] is not None else "")
    bounds = span if span[1] is not None else span[:1]
    rows = file.execute(
        "select d.prompt, a.id, a.subject, a.text, a.length, a.parent, "
        "exists (select 1 from children c where c.parent = a.id), "
        "a.consent, a.finish, a.repeated, a.skill, "
        "l.seq, l.id, l.time, l.subject, l.name, l.up, l.source "
        f"from {marked} left join live l on l.target = a.id and l.gone = 0 and l.up is not null "
        f"where {within} order by d.prompt",
        bounds,
    )
    picked = file.execute(
        "select d.prompt, p.seq, p.id, p.time, p.subject, p.shown, p.winner, p.source "
        f"from {marked} join picks p on p.first = a.id where p.gone = 0 and {within} order by d.prompt",
        bounds,
    )
    choices: dict[str, list[TableRow]] = {}
    for prompt, several in groupby(picked, itemgetter(0)):
        choices[prompt] = list(several)
    for prompt, several in groupby(rows, itemgetter(0)):
        yield prompt, list(several), choices.get(prompt, [])


@raw_log.uncollected()
def _drafted(drafting: Drafting, span: PromptSpan) -> tuple[list[TableRow], list[tuple[str, str, int]]]:
    """Rows of drafts, and why the rest of what was said about these prompts made none."""
    now = drafting.now
    limits = DraftLimits(int(now.settings["pairs_per_prompt"]), now.settings["max_flip_rate"])
    reader, made, tallies = _Reader(now), [], []
    for prompt, rows, picks in _prompts(drafting.file, span):
        group = reader.group(prompt, rows, picks)
        for draft in drafts(group, limits):
            words, subjects = "\x1f".join(draft.words), "\x1f".join(draft.subjects)
            made.append((*draft[:9], words, subjects, *draft[11:]))
        tallies += [(prompt, reason, n) for reason, n in group.tally.items() if n]
    return made, tallies


class _Reader:
    """From rows of a prompt to what holds about it."""

    def __init__(self, now: RaterStandings):
        self.now, self.trust = now, now.trust()
        self.dictated_share = now.settings["dictated_share"]

    def group(self, prompt: str, rows: Sequence[TableRow], picks: Sequence[TableRow]) -> PromptGroup:
        group = PromptGroup(prompt, {}, {}, [], [], self.trust)
        words: dict[str, list[FeedbackEvent]] = {}
        suspect: set[str] = set()
        for row in rows:
            id = row[1]
            if id not in group.answers and not self._takes(group, row, suspect):
                continue
            if row[11] is None:
                continue
            word = FeedbackEvent(row[11], row[12], row[13], id, row[14], row[15], bool(row[16]), row[17])
            if held := self._held(word, id in suspect):
                group.count(f"held back: {held}")
            elif word.name == CORRECTION:
                group.corrections.append(word)
            else:
                words.setdefault(id, []).append(word)
        group.judgements.update({id: judgements(said, self.trust) for id, said in words.items()})
        for _, seq, id, time, subject, shown, winner, source in picks:
            pick = ChoiceEvent(seq, id, time, subject, raw_log.ids_of(shown), winner, source)
            self._pick(group, pick, suspect)
        return group

    def _takes(self, group: PromptGroup, row: tuple[Any, ...], suspect: set[str]) -> bool:
        """Whether the answer of a row may be used at all; it is in the group then."""
        prompt, id, subject, text, length, parent, regenerated, consent, finish, repeated, skill = row[:11]
        said = row[11] is not None
        if consent != Consent.TRAIN:
            group.count("left out: no consent", said)
            return False
        if finish in BROKEN:
            group.count("left out: the answer was broken off", said)
            return False
        group.answers[id] = PromptAnswer(id, prompt, subject, text, length, parent, bool(regenerated))
        if self.now.is_dictated(subject, skill, repeated, self.dictated_share):
            suspect.add(id)
        return True

    def _pick(self, group: PromptGroup, pick: ChoiceEvent, suspect: set[str]) -> None:
        if not pick.winner:
            group.count("no pair: a choice that was a tie")
        elif pick.winner not in pick.shown or not all(id in group.answers for id in pick.shown):
            group.count("left out: a choice between answers to several prompts, unknown or not to be used")
        elif held := self._held(pick, pick.winner in suspect):
            group.count(f"held back: {held}")
        else:
            group.choices.append(pick)

    def _held(self, word: FeedbackEvent | ChoiceEvent, suspect: bool) -> str | None:
        if not is_end_user(word.source) or word.id in self.now.released:
            return None
        if any(since <= word.time < until for since, until in self.now.hasty.get(word.subject, ())):
            return "haste"
        return "dictation" if suspect else None
