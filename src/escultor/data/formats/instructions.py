"""Rows of an instruction and its answer, under their many names, as prompt and completion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from escultor.data.formats.chat import turns
from escultor.data.formats.transcripts import hh_messages, is_hh, transcript_messages
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.data.row_messages import label_of
from escultor.strict_json import JsonObject

PROMPTS = ("prompt", "instruction", "question", "query", "input", "user")
ANSWERS = ("completion", "response", "output", "answer", "assistant", "generation")
_SYSTEMS = ("system", "system_prompt")


def canonical(row: JsonObject) -> JsonObject:
    """A row of our own keys, with its label as true or false, and a transcript as its messages."""
    if is_hh(row.get("prompt")):
        row = row | {"prompt": [m for m in hh_messages(row["prompt"]) if m["content"]]}
    return row | {"label": label_of(row["label"])} if "label" in row else row


def asked(prompt: str, answer: str, context: str = "") -> Callable[[JsonObject], JsonObject]:
    """The function for rows whose prompt and answer have these names; a context that is not empty follows
    the prompt, a system prompt comes before it."""

    def convert(row: JsonObject) -> JsonObject:
        said = _content(row, prompt)
        if context and (more := row.get(context)):
            said = f"{said}\n\n{_text(more, context)}" if said.strip() else _text(more, context)
        used = {prompt, answer, context, "history", *_SYSTEMS}
        rest = {k: v for k, v in row.items() if k not in used}
        return {"prompt": _with_history(row, said), "completion": _content(row, answer), **rest}

    return convert


def preferred(row: JsonObject) -> JsonObject:
    """An instruction with the better and the worse of two answers (LLaMA-Factory)."""
    made = asked("instruction", "chosen", "input")(row)
    chosen, rejected = made.pop("completion"), _content(row, "rejected")
    return made | {"chosen": chosen, "rejected": rejected}


def _with_history(row: JsonObject, said: str) -> str | list[JsonObject]:
    """The prompt after a system prompt and earlier questions and answers, if the row has any."""
    messages: list[JsonObject] = []
    if system := next((row[key] for key in _SYSTEMS if row.get(key)), None):
        messages.append({"role": "system", "content": system})
    for turn in row.get("history") or ():
        if not isinstance(turn, list) or len(turn) != 2:
            raise Fault("`history` is of the wrong type", short(turn), "a list of [question, answer]")
        messages.append({"role": "user", "content": turn[0]})
        messages.append({"role": "assistant", "content": turn[1], "weight": 1})
    return [*messages, {"role": "user", "content": said}] if messages else said


def _content(row: JsonObject, key: str) -> str:
    if row.get(key) is None:
        raise Skip(f"empty {key}") if key in row else Fault(f"`{key}` is missing", short(sorted(row)), key)
    return _text(row[key], key)


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise Fault(f"`{key}` is of the wrong type", short(value), "text")
    return value


def squad(row: JsonObject) -> JsonObject:
    """A question about a passage, with the first of its answers."""
    answers = row["answers"].get("text") or []
    if not answers:
        raise Skip("a question without an answer")
    rest = {k: v for k, v in row.items() if k not in ("question", "context", "answers")}
    prompt = f"{_content(row, 'context')}\n\n{_content(row, 'question')}"
    return {"prompt": prompt, "completion": answers[0], **rest}


def transcript(row: JsonObject) -> JsonObject:
    """A text that is a whole conversation; see `transcripts`."""
    messages = transcript_messages(row.get("text"))
    if not messages:
        raise Fault("`text` is not a conversation", short(row.get("text")), "a transcript of turns")
    return {"messages": messages, **{k: v for k, v in row.items() if k != "text"}}


def alternating(row: JsonObject) -> JsonObject:
    """Texts of a user and an assistant by turns (UltraChat)."""
    return {
        "messages": turns(row["data"], "data"),
        **{k: v for k, v in row.items() if k not in ("data", "id")},
    }


def is_transcript(row: JsonObject) -> bool:
    """Whether a row's text is a conversation."""
    return bool(transcript_messages(row["text"]))
