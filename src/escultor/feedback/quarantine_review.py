"""The events behind an entry of the quarantine, so that a person can judge them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from escultor.feedback.abuse_rules import QuarantineEntry
from escultor.feedback.index import FeedbackIndex
from escultor.feedback.raw_log import BodySource
from escultor.store.feedback import CORRECTION, THUMB
from escultor.types import Feedback, Interaction, Role, SourceKind


@dataclass(frozen=True, slots=True)
class HeldFeedback:
    """One event that is held back. `id` releases it alone."""

    id: str
    time: float
    said: str  # good, bad, chosen of N, a tie, correction, or the name of an implicit event
    target: str
    prompt: str  # the last thing that was asked
    text: str  # the answer, or the text of a correction


_EVENTS = f"""
with events as (
  select id, time, subject, target judged, target,
    iif(name != '{THUMB}', name, iif(up, 'good', 'bad')) said
  from live where withdrawn = 0 and up is not null and source = '{SourceKind.END_USER}'
  union all
  select id, time, subject, winner, iif(winner = '', first, winner),
    iif(winner = '', 'a tie', 'chosen of ' || json_array_length(shown))
  from choices where withdrawn = 0 and source = '{SourceKind.END_USER}')
select id, time, said, target from events where
"""


def held_events(
    index: FeedbackIndex, entry: QuarantineEntry, bodies: BodySource, limit: int
) -> list[HeldFeedback]:
    """The events that an entry holds back, the newest first, `limit` at most. Withdrawn events are not
    among them; texts that the source does not hold are empty."""
    where, values = _held_by(index, entry)
    query = f"{_EVENTS} {where} order by time desc, id desc limit :limit"
    rows = index.file.execute(query, values | {"limit": limit}).fetchall()
    answers = bodies.raw_by_id(Interaction, sorted({target for *_, target in rows}))
    corrections = bodies.raw_by_id(Feedback, [id for id, _, said, _ in rows if said == CORRECTION])
    events = []
    for id, time, said, target in rows:
        body = answers.get(target, {"messages": [], "answer": ""})
        asked = [m["content"] for m in body["messages"] if m["role"] == Role.USER]
        text = corrections[id]["text"] if id in corrections else body["answer"]
        prompt = asked[-1] if asked else ""
        events.append(HeldFeedback(id=id, time=time, said=said, target=target, prompt=prompt, text=text))
    return events


def _held_by(index: FeedbackIndex, entry: QuarantineEntry) -> tuple[str, dict[str, Any]]:
    """The condition on events that an entry holds back, and its values."""
    if entry.rule == "rate_anomaly":
        since, until = entry.interval
        values = {"subject": entry.subject, "since": since, "until": until}
        return "subject = :subject and time >= :since and time < :until", values
    echoes = (
        "judged in (select id from answers where subject = :subject and echoed >= :share "
        "and claim in (select value from json_each(:claims)))"
    )
    claims = json.dumps(index.standings().echo_claims.get(entry.subject, []))
    share = index.settings.prompt_echo_share
    return echoes, {"subject": entry.subject, "share": share, "claims": claims}
