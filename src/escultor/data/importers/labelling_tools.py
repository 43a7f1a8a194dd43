"""Argilla's records, Label Studio's tasks and distilabel's generations as interactions and feedback.

All three have a prompt, one or more responses to it, and what people or models said of them. Which fields
are what is not stated in the files: it is read off their names. A value that names a response, or a side,
is a choice; a ranking is a choice of its first; a number or verdict about the only response, or about the
one that the question names, is a score; a text is a correction, or under a name such as `comment` a remark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from escultor.data.importers import dialogues
from escultor.data.importers.scores import Statement, verdict_of
from escultor.data.importers.session import ImportedRecord, ImportSession, answer_id, objects, part
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.ids import hash_value
from escultor.strict_json import JsonObject
from escultor.types import Choice, Feedback, Interaction, Message, Role, SourceKind

_PROMPTS = [
    "prompt",
    "instruction",
    "question",
    "query",
    "input",
    "user_prompt",
    "user_input",
    "messages",
    "chat",
    "conversation",
    "dialog",
    "dialogue",
]
_SYSTEMS = ("system", "system_prompt")
_RESPONSE = re.compile(
    r"(?:response|answer|completion|generation|output|reply|candidate|model_response|model_output|chosen|rejected)"
    r"[ _-]?(?:\d{1,3}|[a-d]|left|right)?",
    re.IGNORECASE,
)
_CORRECTION = re.compile("correct|improv|edit|rewrit|better|ideal|gold|response|answer|completion", re.I)
_REMARKS = ["comment", "feedback", "reason", "rational", "note", "explan", "justif", "critique", "why"]
_SIDES = {"left": 0, "right": 1, "a": 0, "b": 1, "1": 0, "2": 1}
_SIDE = re.compile(
    r"(?:response|answer|option|model|assistant|output)?[ _-]?(left|right|a|b|1|2)"
    r"(?: is)?(?: (?:much|slightly|significantly|clearly))?(?: better| preferred| wins)?"
)
_TIES = {"tie", "equal", "same", "both", "draw"}


class Said(NamedTuple):
    """One value that someone gave to a question."""

    question: str
    value: Any
    person: str | None
    source: SourceKind
    time: Any = None
    about: str | None = None  # the response, where it is known


@dataclass(slots=True)
class Item:
    """What was labelled: a prompt and its responses by name, all under the id of the record."""

    tool: str
    id: str
    prompt: tuple[Message, ...]
    responses: dict[str, str]
    models: dict[str, str]
    time: float

    def target(self, name: str) -> str:
        return answer_id(f"{self.tool}-{self.id}/{name}")


def argilla(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """A record of version 2 (`responses` by question), of version 1 (a list of `responses` with `values`)
    or with columns (`QUESTION.responses`, `.responses.users`, `.responses.status`, `.suggestion`)."""
    fields = row.get("fields")
    if not isinstance(fields, dict):
        fields = {key: value for key, value in row.items() if "." not in key}
    said = list(_argilla_columns(row) if "fields" not in row else _argilla_answers(row))
    id = row.get("external_id") or row.get("id") or row.get("_server_id") or hash_value(fields)
    time = session.time_of(row.get("updated_at"), row.get("inserted_at"))
    yield from _records(_item("argilla", str(id), fields, time), said, session)


def _argilla_answers(row: JsonObject) -> Iterator[Said]:
    responses, suggestions = row.get("responses"), row.get("suggestions")
    if isinstance(responses, dict):
        for question, values in responses.items():
            for each in objects(values):
                if each.get("status", "submitted") == "submitted":
                    yield Said(question, each.get("value"), _name(each.get("user_id")), SourceKind.RATER)
    for response in responses if isinstance(responses, list) else []:
        if isinstance(response, dict) and response.get("status", "submitted") == "submitted":
            user, values, stamp = response.get("user_id"), response.get("values"), response.get("updated_at")
            for question, each in values.items() if isinstance(values, dict) else ():
                value = each.get("value") if isinstance(each, dict) else each
                yield Said(question, value, _name(user), SourceKind.RATER, stamp)
    listed = suggestions if isinstance(suggestions, list) else []
    named = suggestions if isinstance(suggestions, dict) else {}
    for question, each in [
        *named.items(),
        *((s.get("question_name"), s) for s in listed if isinstance(s, dict)),
    ]:
        if isinstance(each, dict) and isinstance(question, str) and each.get("value") is not None:
            yield Said(
                question, each["value"], f"agent:{each.get('agent') or 'unknown'}", SourceKind.LLM_JUDGE
            )


def _argilla_columns(row: JsonObject) -> Iterator[Said]:
    for key, values in row.items():
        question, _, kind = key.rpartition(".")
        if kind == "responses" and question and isinstance(values, list):
            users, status = row.get(f"{key}.users"), row.get(f"{key}.status")
            for i, value in enumerate(values):
                if _at(status, i) in (None, "submitted"):
                    yield Said(question, value, _name(_at(users, i)), SourceKind.RATER)
        elif kind == "suggestion" and values is not None:
            agent = row.get(f"{key}.agent")
            yield Said(question, values, f"agent:{agent or 'unknown'}", SourceKind.LLM_JUDGE)


def label_studio(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """A task with `annotations` and `predictions`, or a flat row of the JSON_MIN export."""
    id, data = row.get("id"), part(row, "data")
    time = session.time_of(row.get("updated_at"), row.get("created_at"))
    if data:
        said = list(_annotations(row))
    else:
        known = {
            "id",
            "annotator",
            "annotation_id",
            "created_at",
            "updated_at",
            "lead_time",
            "annotation_results",
        }
        said = [
            Said(key, value, _name(row.get("annotator")), SourceKind.RATER)
            for key, value in row.items()
            if key not in known and not _is_field(key)
        ]
    yield from _records(_item("labelstudio", str(id), data or row, time), said, session)


def _annotations(row: JsonObject) -> Iterator[Said]:
    for key, source in (("annotations", SourceKind.RATER), ("predictions", SourceKind.LLM_JUDGE)):
        for each in objects(row.get(key)):
            if each.get("was_cancelled"):
                continue
            by = each.get("completed_by")
            by = by.get("email") or by.get("id") if isinstance(by, dict) else by
            person = f"agent:{each.get('model_version') or 'unknown'}" if key == "predictions" else _name(by)
            for result in objects(each.get("result")):
                value = part(result, "value")
                given = next(
                    (value[k] for k in ("selected", "choices", "rating", "text", "number") if k in value),
                    None,
                )
                if given is not None:
                    question = str(result.get("from_name") or result.get("type"))
                    yield Said(
                        question, given, person, source, each.get("updated_at") or each.get("created_at")
                    )


def distilabel(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """Generations for one instruction with ratings and rationales by a model."""
    generations = row.get("generations")
    if not isinstance(generations, list):
        raise Fault("`generations` is of the wrong type", short(generations), "a list of texts")
    texts = {f"generation_{i}": text for i, text in enumerate(generations, 1)}
    fields = {key: value for key, value in row.items() if _is_prompt(key) or key in _SYSTEMS}
    item = _item("distilabel", hash_value([fields, generations]), fields | texts, session.time_of())
    models = row.get("generation_models")
    item.models |= {name: str(_at(models, i) or "unknown") for i, name in enumerate(texts)}
    judge = f"agent:{row.get('model_name') or 'unknown'}"
    said = [
        Said(question, value, judge, SourceKind.LLM_JUDGE, about=f"generation_{i}")
        for question, key in (("rating", "ratings"), ("rationale", "rationales"))
        for i, value in enumerate(row.get(key) or [] if isinstance(row.get(key), list) else [], 1)
    ]
    yield from _records(item, said, session)


# --- what they share ----------------------------------------------------------------------------


def _name(user: Any) -> str | None:
    return str(user) if isinstance(user, str | int) and user != "" else None


def _at(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None


def _plain(key: str) -> str:
    return key.lower().replace("-", "_").replace(" ", "_")


def _is_prompt(key: str) -> bool:
    return _plain(key) in _PROMPTS


def _is_field(key: str) -> bool:
    return _is_prompt(key) or _plain(key) in _SYSTEMS or _RESPONSE.fullmatch(key) is not None


def _item(tool: str, id: str, fields: JsonObject, time: float) -> Item:
    """The prompt and the responses of a record's fields. Raises Skip where one of them is missing."""
    by_lower = {_plain(key): value for key, value in fields.items()}
    prompts = [key for key in _PROMPTS if by_lower.get(key)]
    if not prompts:  # the first text that is no response
        others = (key for key, value in by_lower.items() if isinstance(value, str) and not _is_field(key))
        prompts = list(islice((key for key in others if by_lower[key].strip()), 1))
    if not prompts:
        raise Skip(f"no prompt among the fields: {', '.join(sorted(fields))[:80]}")
    prompt = dialogues.conversation(by_lower[prompts[0]])
    responses = {
        k: v for k, v in fields.items() if _RESPONSE.fullmatch(k) and isinstance(v, str) and v.strip()
    }
    if not responses and prompt and prompt[-1].role is Role.ASSISTANT:
        responses, prompt = {prompts[0]: prompt[-1].content}, prompt[:-1]
    system = next(
        (by_lower[key] for key in _SYSTEMS if isinstance(by_lower.get(key), str) and by_lower[key]), None
    )
    first = (Message(Role.SYSTEM, system),) if system else ()
    if not responses:
        raise Skip(f"no response among the fields: {', '.join(sorted(fields))[:80]}")
    return Item(tool, id, prompt=first + prompt, responses=responses, models={}, time=time)


def _records(item: Item, said: list[Said], session: ImportSession) -> Iterator[ImportedRecord]:
    for name in item.responses:
        yield from session.each(_answer(item, name, session))
    for each in said:
        yield from session.each(_feedback(item, each, session))
    if not said:
        session.report.count("records that nobody has labelled: interactions only")


def _answer(item: Item, name: str, session: ImportSession) -> Iterator[Interaction]:
    yield session.interaction(
        item.target(name),
        item.prompt,
        Message(Role.ASSISTANT, item.responses[name]),
        time=item.time,
        subject=session.subject_of(f"{item.tool}:dataset"),
        version=item.models.get(name),
    )


def _feedback(item: Item, said: Said, session: ImportSession) -> Iterator[Feedback]:
    """What one person said to one question. Raises Skip for what no event can represent."""
    value = said.value[0] if isinstance(said.value, list) and len(said.value) == 1 else said.value
    if value is None:
        raise Skip("a question that was not answered")
    names, question = list(item.responses), said.question
    subject = session.subject(said.person and f"{item.tool}:{said.person}", f"{item.tool}:record:{item.id}")
    unique = f"{item.tool}-{hash_value([item.id, question, said.about, subject, said.value])}"
    time = session.time_of(said.time, item.time)
    if said.about is None and len(names) > 1 and (order := _order(value, names)) is not None:
        winner = item.target(order[0]) if order else None
        shown = tuple(item.target(name) for name in names)
        yield Choice(unique, time, subject, question, shown_order=shown, winner=winner, source=said.source)
        return
    about = said.about or next(
        (n for n in names if len(names) == 1 or _ending(n) == _ending(question) != ""), None
    )
    if about not in item.responses:
        raise Skip(f"an answer to `{question}`, which does not say which response it is about")
    statement = Statement(unique, time, item.target(about), subject, said.source)
    words = value if isinstance(value, str) and verdict_of(value) is None else None
    if words is not None and any(word in question.lower() for word in _REMARKS):
        yield from statement.remark(words)
    elif words is not None and _CORRECTION.search(question):
        if words.strip() == item.responses[about].strip():
            raise Skip("a correction that changes nothing")
        yield from statement.correction(words)
    else:
        label = ", ".join(map(str, value)) if isinstance(value, list) else value
        yield from session.score(statement, question, label)


def _order(value: Any, names: list[str]) -> list[str] | None:
    """The responses from the best on, as a value ranks them; empty for a tie; None if it does not."""
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        ranks = [(each.get("rank"), each.get("value")) for each in value]
        if not all(isinstance(rank, int) and name in names for rank, name in ranks):
            return None
        first = min(rank for rank, _ in ranks)
        best = [str(name) for rank, name in ranks if rank == first]
        return best if len(best) == 1 else []
    if isinstance(value, list) and value and all(isinstance(each, str) and each in names for each in value):
        return list(value)
    if not isinstance(value, str):
        return None
    if value in names:
        return [value]
    key = value.strip().lower()
    if key in _TIES:
        return []
    found = _SIDE.fullmatch(key)
    side = _SIDES[found[1]] if found else None
    return [names[side]] if side is not None and side < len(names) == 2 else None


def _ending(name: str) -> str:
    """The number or letter that tells one of several names from the others."""
    found = re.search(r"(\d{1,3}|(?<=[ _-])[a-d])\b", name.replace("_", " "), re.IGNORECASE)
    return found[1].lower() if found else ""
