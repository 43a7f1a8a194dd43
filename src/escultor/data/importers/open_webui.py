"""Open WebUI's feedback export, ratings with a snapshot of the chat, as interactions and feedback.

The administration page exports a JSON array (backend/open_webui/models/feedbacks.py, FeedbackModel) of id,
user_id, type, data {rating ±1, model_id, sibling_model_ids, reason, comment, details.rating 1–10}, meta
{chat_id, message_id, arena}, snapshot.chat.chat.history.messages by id, created_at and updated_at in seconds.

A rating becomes a thumb, `details.rating` a score, reason and comment a remark, a rating in the arena a
choice between the answers to one prompt; rated answers and their alternatives become interactions. Feedback
that was changed since an earlier import is a new event, later than the old one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from escultor.data.importers.json_values import text_field
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
MAX_MESSAGES = 1000  # of one chat, back from an answer


def parse_feedback(
    row: JsonObject, subject_of: Callable[[str], str], consent: Consent, counts: Counter[str]
) -> list[Interaction | Feedback]:
    """The records of one feedback. Raises Fault for a broken one, Skip for one without content."""
    data, meta = _part(row, "data"), _part(row, "meta")
    if row.get("type") != "rating":
        raise Skip(f"feedback of type {short(row.get('type'))}")
    chat, message = meta.get("chat_id"), meta.get("message_id")
    if not isinstance(chat, str) or not isinstance(message, str) or not chat or not message:
        raise Skip("no message that it is about")
    subject = subject_of(text_field(row, "user_id", may_be_empty=True))
    stamp = row.get("updated_at")
    if not isinstance(stamp, int | float) or isinstance(stamp, bool):
        raise Fault("`updated_at` is of the wrong type", short(stamp), "seconds since the epoch")
    id, time = f"owui-{text_field(row, 'id', may_be_empty=True)}-{stamp:.0f}", float(stamp)
    feedback = _ratings(id, (time, f"{chat}/{message}", subject), data)
    interactions: list[Interaction] = []
    history = _history(row)
    if message not in history:
        counts["no snapshot of the answer: feedback only"] += 1
    else:
        is_arena, answers = meta.get("arena") is True, _alternatives(history, message)
        owner = row["snapshot"]["chat"].get("user_id")  # whose chat it is, who need not be the rater
        asker = subject_of(owner) if isinstance(owner, str) and owner else subject
        for answer in reversed(answers) if is_arena else [message]:
            model = history[answer].get("model") or data.get("model_id") or "unknown"
            interactions.append(
                _interaction(
                    history,
                    answer,
                    f"{chat}/{answer}",
                    subject=asker,
                    version=str(model),
                    time=time,
                    consent=consent,
                )
            )
        if is_arena and (winner := _winner(message, answers, data, counts)):
            shown = tuple(f"{chat}/{answer}" for answer in answers)
            feedback.append(
                Choice(
                    f"{id}-choice", time, subject, "preference", shown_order=shown, winner=f"{chat}/{winner}"
                )
            )
    if not feedback:
        raise Skip("it says nothing")
    return [*interactions, *feedback]


def _ratings(id: str, common: tuple[float, str, str], data: JsonObject) -> list[Feedback]:
    """The thumb, the score and the remark of a feedback; `common` is its time, target and subject."""
    feedback: list[Feedback] = []
    if (up := {"1": True, "-1": False}.get(str(data.get("rating")))) is not None:
        feedback.append(Rating(id, *common, THUMB, up))
    details = data.get("details")
    score = details.get("rating") if isinstance(details, dict) else None
    if isinstance(score, int | float) and not isinstance(score, bool):
        feedback.append(Rating(f"{id}-score", *common, SCORE, float(score)))
    texts = [data.get(key) for key in ("reason", "comment")]
    if text := "\n".join(each for each in texts if isinstance(each, str) and each.strip()):
        feedback.append(Remark(f"{id}-remark", *common, text))
    return feedback


def _winner(message: str, answers: list[str], data: JsonObject, counts: Counter[str]) -> str | None:
    """The better answer of an arena's rating: the rated one against all others, or the only other one."""
    is_won, others = str(data.get("rating")) == "1", [answer for answer in answers if answer != message]
    if not others or (not is_won and len(others) > 1):
        counts["no choice: it is not known which answer was better"] += 1
        return None
    return message if is_won else others[0]


def _interaction(
    history: JsonObject, answer: str, id: str, *, subject: str, version: str, time: float, consent: Consent
) -> Interaction:
    """The interaction of an answer; `time` is used if the message has none."""
    message, prompt = history[answer], _prompt(history, answer)
    stamp = message.get("timestamp")
    is_known = isinstance(stamp, int | float) and not isinstance(stamp, bool)
    return Interaction(
        id=id,
        time=float(stamp) if is_known else time,
        skill="chat",
        subject=subject,
        version=version,
        arm="imported",
        propensity=1.0,
        messages=prompt,
        answer=text_field(message, "content", may_be_empty=True),
        finish_reason="stop",
        sampling=Sampling(),
        usage=Usage(0, 0),
        latency_ms=0.0,
        ttft_ms=None,
        cost_usd=0.0,
        prompt_hash=hash_value(prompt),
        consent=consent,
    )


def _prompt(history: JsonObject, id: str) -> Messages:
    """The messages that lead to an answer, oldest first."""
    messages: list[Message] = []
    parent = history[id].get("parentId")
    while parent in history and len(messages) < MAX_MESSAGES:
        message = history[parent]
        role = message.get("role")
        if role not in list(Role):
            raise Skip("a chat with tools")
        messages.append(Message(Role(role), text_field(message, "content", may_be_empty=True)))
        parent = message.get("parentId")
    if not messages:
        raise Skip("an answer to nothing")
    return tuple(reversed(messages))


def _alternatives(history: JsonObject, id: str) -> list[str]:
    """The answers to the same message, in the order in which they were shown."""
    parent = history.get(history[id].get("parentId"), {})
    children = parent.get("childrenIds")
    known = [c for c in children if isinstance(c, str) and c in history] if isinstance(children, list) else []
    answers = [c for c in dict.fromkeys(known) if history[c].get("role") == "assistant"]
    return answers if id in answers else [id]


def _history(row: JsonObject) -> JsonObject:
    """The messages of the snapshot by id; empty without a snapshot."""
    part: Any = row.get("snapshot")
    for key in ("chat", "chat", "history", "messages"):
        part = part.get(key) if isinstance(part, dict) else None
    return {k: v for k, v in part.items() if isinstance(v, dict)} if isinstance(part, dict) else {}


def _part(row: JsonObject, key: str) -> JsonObject:
    value = row.get(key)
    if value is not None and not isinstance(value, dict):
        raise Fault(f"`{key}` is of the wrong type", short(value), "an object")
    return value or {}
