"""Open WebUI's feedback export: a JSON array of ratings, each with a snapshot of its chat.

As its administration page exports it (backend/open_webui/models/feedbacks.py, FeedbackModel): id, user_id,
type, data {rating ±1, model_id, sibling_model_ids, reason, comment, details.rating 1–10}, meta {chat_id,
message_id, arena}, snapshot.chat.chat.history.messages by id, created_at and updated_at in seconds.

A rating becomes a thumb, `details.rating` a score, reason and comment a remark, an arena's rating a
choice between the answers to one prompt; rated answers and those beside them become interactions. A
feedback that was changed since an earlier import is a new event, later than the old one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.ids import hash_value
from escultor.store.feedback import THUMB
from escultor.strict_json import JsonObject
from escultor.types import (
    Choice,
    Consent,
    Feedback,
    Interaction,
    Message,
    Messages,
    Rating,
    Remark,
    Role,
    Sampling,
    Usage,
)

SCORE = "score"
_DEPTH = 1000  # messages of one chat that are followed back


def open_webui(
    row: JsonObject, subject_of: Callable[[str], str], consent: Consent, counts: Counter[str]
) -> list[Interaction | Feedback]:
    """What one feedback says. Raises Fault for one that is broken, Skip for one that says nothing."""
    data, meta = _part(row, "data"), _part(row, "meta")
    if row.get("type") != "rating":
        raise Skip(f"feedback of type {short(row.get('type'))}")
    chat, message = meta.get("chat_id"), meta.get("message_id")
    if not isinstance(chat, str) or not isinstance(message, str) or not chat or not message:
        raise Skip("no message that it is about")
    subject = subject_of(_text(row, "user_id"))
    stamp = row.get("updated_at")
    if not isinstance(stamp, int | float) or isinstance(stamp, bool):
        raise Fault("`updated_at` is of the wrong type", short(stamp), "seconds since the epoch")
    id = f"owui-{_text(row, 'id')}-{stamp:.0f}"
    about = (float(stamp), f"{chat}/{message}", subject)
    made: list[Interaction | Feedback] = list(_judged(id, about, data))
    history = _history(row)
    if message not in history:
        counts["no snapshot of the answer: feedback only"] += 1
        return _or_skip(made)
    beside, owner = _beside(history, message), _owner(row, subject_of) or subject
    for each in beside if meta.get("arena") is True else [message]:
        made.insert(0, _interaction(history, chat, each, owner, float(stamp), consent, data))
    if meta.get("arena") is True:
        made += _choice(id, about, chat, message, beside, data, counts)
    return _or_skip(made)


def _judged(id: str, about: tuple[float, str, str], data: JsonObject) -> list[Feedback]:
    made: list[Feedback] = []
    if (up := {"1": True, "-1": False}.get(str(data.get("rating")))) is not None:
        made.append(Rating(id, *about, THUMB, up))
    details = data.get("details")
    score = details.get("rating") if isinstance(details, dict) else None
    if isinstance(score, int | float) and not isinstance(score, bool):
        made.append(Rating(f"{id}-score", *about, SCORE, float(score)))
    words = [data.get(key) for key in ("reason", "comment")]
    if text := "\n".join(w for w in words if isinstance(w, str) and w.strip()):
        made.append(Remark(f"{id}-remark", *about, text))
    return made


def _choice(
    id: str,
    about: tuple[float, str, str],
    chat: str,
    message: str,
    beside: list[str],
    data: JsonObject,
    counts: Counter[str],
) -> list[Feedback]:
    """The choice that an arena's rating is: won against all beside it, or lost against the only other."""
    won, others = str(data.get("rating")) == "1", [each for each in beside if each != message]
    if not others or (not won and len(others) > 1):
        counts["no choice: it is not known which answer was better"] += 1
        return []
    shown = tuple(f"{chat}/{each}" for each in beside)
    winner = f"{chat}/{message if won else others[0]}"
    return [Choice(f"{id}-choice", about[0], about[2], "preference", shown, winner)]


def _interaction(
    history: JsonObject, chat: str, id: str, subject: str, stamp: float, consent: Consent, data: JsonObject
) -> Interaction:
    said, messages = history[id], _before(history, id)
    when = said.get("timestamp")
    model = said.get("model") or data.get("model_id") or "unknown"
    time = float(when) if isinstance(when, int | float) and not isinstance(when, bool) else stamp
    return Interaction(
        id=f"{chat}/{id}",
        time=time,
        skill="chat",
        subject=subject,
        version=str(model),
        arm="imported",
        propensity=1.0,
        messages=messages,
        answer=_text(said, "content"),
        finish_reason="stop",
        sampling=Sampling(),
        usage=Usage(0, 0),
        latency_ms=0.0,
        ttft_ms=None,
        cost_usd=0.0,
        prompt_hash=hash_value(messages),
        consent=consent,
    )


def _before(history: JsonObject, id: str) -> Messages:
    """The messages that lead to an answer, oldest first."""
    found: list[Message] = []
    at = history[id].get("parentId")
    while at in history and len(found) < _DEPTH:
        said = history[at]
        role = said.get("role")
        if role not in list(Role):
            raise Skip("a chat with tools")
        found.append(Message(Role(role), _text(said, "content")))
        at = said.get("parentId")
    if not found:
        raise Skip("an answer to nothing")
    return tuple(reversed(found))


def _beside(history: JsonObject, id: str) -> list[str]:
    """The answers to the same message, in the order in which they were shown."""
    parent = history.get(history[id].get("parentId"), {})
    children = parent.get("childrenIds")
    known = [c for c in children if isinstance(c, str) and c in history] if isinstance(children, list) else []
    answers = [c for c in dict.fromkeys(known) if history[c].get("role") == "assistant"]
    return answers if id in answers else [id]


def _history(row: JsonObject) -> JsonObject:
    """The messages of the snapshot by id; empty where there is none."""
    at: Any = row.get("snapshot")
    for key in ("chat", "chat", "history", "messages"):
        at = at.get(key) if isinstance(at, dict) else None
    return {k: v for k, v in at.items() if isinstance(v, dict)} if isinstance(at, dict) else {}


def _owner(row: JsonObject, subject_of: Callable[[str], str]) -> str | None:
    """Whose chat it is, which need not be who rates it."""
    at = row["snapshot"]["chat"].get("user_id")
    return subject_of(at) if isinstance(at, str) and at else None


def _or_skip(made: list[Interaction | Feedback]) -> list[Interaction | Feedback]:
    if not any(isinstance(each, Feedback) for each in made):
        raise Skip("it says nothing")
    return made


def _part(row: JsonObject, key: str) -> JsonObject:
    value = row.get(key)
    if value is not None and not isinstance(value, dict):
        raise Fault(f"`{key}` is of the wrong type", short(value), "an object")
    return value or {}


def _text(row: JsonObject, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise Fault(f"`{key}` is of the wrong type", short(value), "text")
    return value
