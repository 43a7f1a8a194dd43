"""Rows of an instruction and its answer, under their many names, as prompt and completion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from escultor.data.formats.chat import chatml_messages, hh_messages, is_chatml, is_hh
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.strict_json import JsonObject

PROMPTS = ("prompt", "instruction", "question", "query", "input", "user")
ANSWERS = ("completion", "response", "output", "answer", "assistant", "generation")
_LABELS = {"1": True, "0": False, "true": True, "false": False, "yes": True, "no": False}
_SYSTEMS = ("system", "system_prompt")


def canonical(row: JsonObject) -> JsonObject:
    """A row of our own keys, with its label as true or false, and a transcript as its messages."""
    if is_hh(row.get("prompt")):
        row = row | {"prompt": [m for m in hh_messages(row["prompt"]) if m["content"]]}
    return row | {"label": label_of(row["label"])} if "label" in row else row


def label_of(value: Any) -> bool:
    """A label as true (a good answer) or false: also 1 and 0, as numbers or text. Raises Fault for others."""
    if isinstance(value, bool):
        return value
    key = str(int(value)) if isinstance(value, float) and value in (0, 1) else str(value).strip().lower()
    if isinstance(value, int | float | str) and key in _LABELS:
        return _LABELS[key]
    raise Fault("`label` is of the wrong type", short(value), "true or 1 (a good answer), false or 0")


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


def judged(convert: Callable[[JsonObject], JsonObject], label: str) -> Callable[[JsonObject], JsonObject]:
    """The function for rows that `convert` reads and that have a verdict under this key besides."""

    def with_label(row: JsonObject) -> JsonObject:
        rest = {k: v for k, v in row.items() if k != label}
        return convert(rest) | {"label": label_of(row.get(label))}

    return with_label


def squad(row: JsonObject) -> JsonObject:
    """A question about a passage, with the first of its answers."""
    answers = row["answers"].get("text") or []
    if not answers:
        raise Skip("a question without an answer")
    rest = {k: v for k, v in row.items() if k not in ("question", "context", "answers")}
    prompt = f"{_content(row, 'context')}\n\n{_content(row, 'question')}"
    return {"prompt": prompt, "completion": answers[0], **rest}


def transcript(row: JsonObject) -> JsonObject:
    """A text that is a whole conversation: Anthropic's transcript or ChatML."""
    text = row["text"]
    messages = chatml_messages(text) if is_chatml(text) else hh_messages(text)
    return {"messages": messages, **{k: v for k, v in row.items() if k != "text"}}


def is_transcript(row: JsonObject) -> bool:
    """Whether a row's text is a conversation."""
    return is_hh(row["text"]) or is_chatml(row["text"])
