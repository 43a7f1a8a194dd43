"""Open WebUI's exports, of feedback and of chats, as interactions and feedback.

Feedback (`backend/open_webui/models/feedbacks.py`): id, user_id, type, data {rating ±1, model_id,
sibling_model_ids, reason, comment, details.rating 1–10}, meta {chat_id, message_id, arena}, snapshot with
the chat or null, created_at and updated_at in seconds. Chats: id, user_id, chat {history.messages by id,
params}, whose answers carry `annotation` {rating, reason, comment}.

A rating becomes a thumb, `details.rating` a score, reason and comment a remark, a rating in the arena a
choice between the answers to one prompt, an answer edited in place a correction of the one that was
generated. Rated answers and their alternatives become interactions; of a chats export, all answers. Ids are
those of the chat and the message, so that both exports of one server name an answer alike. Feedback that
was changed since an earlier import is a new event, later than the old one.
"""

from __future__ import annotations

from collections.abc import Iterator

from escultor.data.importers.open_webui_chat import ChatTree
from escultor.data.importers.scores import Statement
from escultor.data.importers.session import ImportedRecord, ImportSession, part
from escultor.data.importers.traces import figure
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.ids import hash_value
from escultor.store.feedback import THUMB
from escultor.strict_json import JsonObject
from escultor.types import Choice, Correction, Feedback, Interaction, Rating

SCORE = "score"
_THUMBS = {"1": True, "-1": False}
MAX_OWN_ID = 128


def parse(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """The records of one feedback, or of one chat. Raises Fault for a broken one, Skip for one without
    content."""
    yield from _feedback(row, session) if "meta" in row and "data" in row else _chat(row, session)


def _feedback(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    data, meta = part(row, "data"), part(row, "meta")
    if row.get("type") != "rating":
        raise Skip(f"feedback of type {short(row.get('type'))}")
    chat_id, message = meta.get("chat_id"), meta.get("message_id")
    if not isinstance(chat_id, str) or not isinstance(message, str) or not chat_id or not message:
        raise Skip("no message that it is about")
    stamp = row.get("updated_at")
    if not isinstance(stamp, int | float) or isinstance(stamp, bool) or not 0 < stamp < 1e11:
        raise Fault("`updated_at` is of the wrong type", short(stamp), "seconds since the epoch")
    id = row.get("id")
    if not isinstance(id, str) or not id:
        raise Fault("`id` is of the wrong type", short(id), "text")
    chat = ChatTree.read(chat_id, part(row, "snapshot").get("chat"), session.row_of)
    subject = session.subject(row.get("user_id") or chat.owner, f"open-webui:chat:{chat_id}")
    said = Statement(f"owui-{id}-{stamp:.0f}", float(stamp), chat.target(message), subject)
    yield from _about(said, chat, message, data, session, is_arena=meta.get("arena") is True)


def _about(
    said: Statement, chat: ChatTree, message: str, data: JsonObject, session: ImportSession, *, is_arena: bool
) -> Iterator[ImportedRecord]:
    """What one person said of one answer, with that answer and its alternatives."""
    words = _words(said, data)
    if message not in chat.messages:
        session.report.count("no snapshot of the answer: feedback only")
        yield from _some(words)
        return
    if (original := chat.copied_from(message)) is not None:
        yield from _answers(chat, [original], said, session)
        yield from _copy(chat, message, original, said.subject, session)
        raise Skip("a rating of a text that a person wrote")
    if chat.is_failed(message):
        raise Skip("a failed generation is no answer")
    alternatives = chat.alternatives(message)
    made = list(_answers(chat, alternatives, said, session))
    known = {each.id for each in made if isinstance(each, Interaction)}
    answers = [t for id in alternatives if (t := chat.target(id)) in known or t != chat.own_id(id)]
    if said.target not in answers and words:
        session.report.count("feedback kept, without the answer it is about")
    yield from made
    if is_arena:
        words = [*words, *_choice(said, answers, data, session)]
    yield from _without_thumb_of_edit(_some(words), made, session)


def _without_thumb_of_edit(
    words: list[Feedback], made: list[Interaction | Feedback], session: ImportSession
) -> Iterator[Feedback]:
    """What was said of an answer. A thumb up of one that was edited is about the edit, and left out: the
    generated text was not liked, and the correction says what was."""
    edited = {each.target for each in made if isinstance(each, Correction)}
    for each in words:
        if isinstance(each, Rating) and each.value is True and each.target in edited:
            session.report.count("a thumb up of an edited answer: its correction says it")
        else:
            yield each


def _some(words: list[Feedback]) -> list[Feedback]:
    if not words:
        raise Skip("it says nothing")
    return words


def _words(said: Statement, data: JsonObject) -> list[Feedback]:
    """The thumb, the score and the remark of a rating."""
    up = _THUMBS.get(str(data.get("rating")).removesuffix(".0"))
    thumb = [] if up is None else said.rating(THUMB, up)
    details = data.get("details")
    score = details.get("rating") if isinstance(details, dict) else None
    is_score = isinstance(score, int | float) and not isinstance(score, bool)
    scored = said._replace(id=f"{said.id}-score").rating(SCORE, figure(score)) if is_score else []
    return [*thumb, *scored, *said.remark(data.get("reason"), data.get("comment"))]


def _choice(said: Statement, answers: list[str], data: JsonObject, session: ImportSession) -> list[Feedback]:
    """The choice that a rating in the arena is: for the rated answer against all others, or for the only
    other one."""
    up, others = (
        _THUMBS.get(str(data.get("rating")).removesuffix(".0")),
        [a for a in answers if a != said.target],
    )
    if not others or said.target not in answers:
        return []
    if up is None or (not up and len(others) > 1):
        session.report.count("no choice: it is not known which answer was better")
        return []
    winner = said.target if up else others[0]
    name = "preference"
    return [
        Choice(f"{said.id}-choice", said.time, said.subject, name, shown_order=tuple(answers), winner=winner)
    ]


def _answers(
    chat: ChatTree, ids: list[str], said: Statement, session: ImportSession
) -> Iterator[ImportedRecord]:
    """The interactions of answers, the rated one last, and the corrections by which they were edited."""
    rated = [id for id in ids if chat.target(id) == said.target]
    for id in [*(each for each in ids if each not in rated), *rated]:
        try:
            yield from _answer(chat, id, said, session)
        except Skip as skip:
            session.report.count(str(skip))


def _answer(chat: ChatTree, id: str, said: Statement, session: ImportSession) -> Iterator[ImportedRecord]:
    answer, message = chat.answer(id), chat.messages[id]
    stamp = message.get("timestamp")
    owner = said.subject if chat.owner is None else session.subject_of(chat.owner)  # need not be the rater
    time = figure(stamp, 1e11) or said.time
    if chat.target(id) == chat.own_id(id):
        yield session.interaction(
            chat.own_id(id),
            answer.prompt,
            answer.message,
            time=time,
            subject=owner,
            version=chat.version(id),
            finish=answer.finish,
            lineage=chat.lineage(id),
            message=id[:MAX_OWN_ID],
        )
    else:
        session.report.count("answers that were served from here: what was said goes to the recorded row")
    if message.get("sources") or message.get("citations"):
        session.report.count("answers that drew on sources which the export lacks")
    if answer.edited is not None:
        edit = Statement(f"owui-{hash_value([chat.target(id), answer.edited])}", time, chat.target(id), owner)
        yield from edit.correction(answer.edited)


def _chat(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """All answers of a chat, with the ratings noted on them."""
    chat_id = row.get("id") or hash_value(row.get("chat") or row)
    if not isinstance(chat_id, str):
        raise Fault("`id` is of the wrong type", short(chat_id), "text")
    chat = ChatTree.read(chat_id, row, session.row_of)
    if not chat.messages:
        raise Skip("an empty chat")
    subject = session.subject(chat.owner, f"open-webui:chat:{chat_id}")
    time = session.time_of(row.get("updated_at"), row.get("created_at"))
    answers = set(chat.answers())
    for id, message in chat.messages.items():
        annotation = message.get("annotation")
        words = annotation if isinstance(annotation, dict) else {"rating": message.get("rating")}
        if message.get("role") != "assistant":
            continue
        if id in answers:
            unique = hash_value(
                [chat.target(id), words.get("rating"), words.get("reason"), words.get("comment")]
            )
            said = Statement(f"owui-{unique}", time, chat.target(id), subject)
            yield from _one(said, chat, id, words, session)
        elif (original := chat.copied_from(id)) is not None:
            yield from _copy(chat, id, original, subject, session)
        else:
            session.report.count("a failed generation is no answer")


def _one(
    said: Statement, chat: ChatTree, id: str, words: JsonObject, session: ImportSession
) -> Iterator[ImportedRecord]:
    """One answer of a chat and what was said of it."""
    made = list(_answers(chat, [id], said, session))
    yield from made
    yield from _without_thumb_of_edit(_words(said, words), made, session)


def _copy(
    chat: ChatTree, id: str, original: str, subject: str, session: ImportSession
) -> Iterator[ImportedRecord]:
    """The correction that an edited copy is."""
    text = chat.answer(id).message.content
    if text.strip() and text != chat.answer(original).message.content:
        stamp = session.time_of(chat.messages[id].get("timestamp"))
        unique = f"owui-{hash_value([chat.target(original), text])}"
        yield from Statement(unique, stamp, chat.target(original), subject).correction(text)
