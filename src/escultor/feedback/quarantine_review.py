"""What stands behind an entry of the quarantine: the words themselves, so that a person can judge them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from escultor.feedback.abuse_rules import QuarantineEntry
from escultor.feedback.index import FeedbackIndex
from escultor.feedback.raw_log import ids_of
from escultor.feedback.selection import BodySource
from escultor.store.feedback import CORRECTION, THUMB
from escultor.types import Feedback, Interaction, Role, SourceKind


@dataclass(frozen=True, slots=True)
class HeldFeedback:
    """One word that is held back: what was said about which answer. `id` releases it alone."""

    id: str
    time: float
    said: str  # good, bad, chosen, a tie, correction, or what was done
    target: str
    prompt: str  # the last thing that was asked
    text: str  # the answer, or what somebody wrote in its place


def words_of(
    index: FeedbackIndex, held: QuarantineEntry, bodies: BodySource, limit: int
) -> list[HeldFeedback]:
    """The words an entry holds back, the newest first, `limit` at most; what was withdrawn is not among
    them, and texts that are not in the log are empty."""
    found = sorted((*_live(index, held, limit), *_picks(index, held, limit)), key=lambda row: row[1:3])
    found = found[::-1][:limit]
    answers = bodies.lean_by_id(Interaction, sorted({target for *_, target in found}))
    wrote = bodies.lean_by_id(Feedback, [id for said, _, id, _ in found if said == CORRECTION])
    made = []
    for said, time, id, target in found:
        answer = answers.get(target)
        text = wrote[id]["text"] if id in wrote else answer["answer"] if answer else ""
        made.append(HeldFeedback(id, time, said, target, _asked(answer), text))
    return made


def _asked(body: dict[str, Any] | None) -> str:
    asked = [m["content"] for m in body["messages"] if m["role"] == Role.USER] if body else []
    return asked[-1] if asked else ""


def _within(index: FeedbackIndex, held: QuarantineEntry, target: str) -> tuple[str, list[Any]]:
    """What of the rows `l` about answers `target` an entry holds back."""
    if held.rule == "haste":
        return "l.subject = ? and l.time >= ? and l.time < ?", [held.subject, *held.span]
    skills = index.standings().copying
    where = (
        f"exists (select 1 from answers a where a.id = {target} and a.subject = ? and a.repeated >= ? "
        f"and a.skill not in ({','.join('?' * len(skills))}))"
    )
    return where, [held.subject, index.settings.dictated_share, *skills]


def _live(index: FeedbackIndex, held: QuarantineEntry, limit: int) -> list[tuple[str, float, str, str]]:
    where, values = _within(index, held, "l.target")
    rows = index.file.execute(
        "select l.name, l.up, l.time, l.id, l.target from live l where l.gone = 0 and l.up is not null "
        "and l.source = ? "
        f"and {where} order by l.time desc, l.id desc limit ?",
        (SourceKind.END_USER, *values, limit),
    )
    return [(_said(name, up), time, id, target) for name, up, time, id, target in rows]


def _picks(index: FeedbackIndex, held: QuarantineEntry, limit: int) -> list[tuple[str, float, str, str]]:
    where, values = _within(index, held, "l.winner")
    rows = index.file.execute(
        "select l.shown, l.winner, l.time, l.id from picks l where l.gone = 0 and l.source = ? "
        f"and {where} order by l.time desc, l.id desc limit ?",
        (SourceKind.END_USER, *values, limit),
    )
    return [
        (f"chosen of {len(ids_of(shown))}" if winner else "a tie", time, id, winner or ids_of(shown)[0])
        for shown, winner, time, id in rows
    ]


def _said(name: str, up: int) -> str:
    return name if name != THUMB else ("good" if up else "bad")
