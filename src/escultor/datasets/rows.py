"""A curation row: a training item with its source, labels and figures, and its form as a line of JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from escultor.data.jsonl_rows import Fault, RowKind, TrainingItem, build, item_of, row_of, short
from escultor.ids import compact_json
from escultor.text.shingles import RowPart
from escultor.types import (
    NO_EXTRAS,
    AnswerExtras,
    Document,
    Example,
    Message,
    Messages,
    Pair,
    Role,
    UnpairedExample,
    answer_message,
)

_OWN_KEYS = {"labels", "figures", "source", "subject", "time", "conversation"}  # those of no item
LARGEST = 10**300  # integers up to this size fit a float


@dataclass(frozen=True, slots=True)
class CurationRow:
    """An item with its source, text labels and numeric figures by name. `notes` name what steps changed."""

    item: TrainingItem
    source: str
    labels: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    subject: str | None = None
    time: float | None = None
    conversation: str | None = None  # rows of one conversation stay on one side of a split
    notes: tuple[str, ...] = ()

    def with_figure(self, name: str, value: float) -> CurationRow:
        """A copy with one more figure."""
        return replace(self, figures={**self.figures, name: value})

    def with_label(self, name: str, value: str) -> CurationRow:
        """A copy with one more label."""
        return replace(self, labels={**self.labels, name: value})


@dataclass(frozen=True, slots=True)
class Dropped:
    """The result of a step that removes a row, with the reason."""

    reason: str


def text_parts(item: TrainingItem) -> tuple[RowPart, ...]:
    """The texts of an item by role. The verdict or side is part of the role, so that an answer rated good
    differs from the same answer rated bad."""
    if isinstance(item, Document):
        return (("text", item.text),)
    prompt = tuple((f"prompt {m.role}", text) for m in item.prompt for text in _texts(m))
    if isinstance(item, Example):
        return (*prompt, *_answer("response", item.response, item.extras))
    if isinstance(item, Pair):
        chosen = _answer("chosen", item.chosen, item.chosen_extras)
        return (*prompt, *chosen, *_answer("rejected", item.rejected, item.rejected_extras))
    name = "response good" if item.desirable else "response bad"
    return (*prompt, *_answer(name, item.response, item.extras))


def _answer(name: str, text: str, extras: AnswerExtras) -> tuple[RowPart, ...]:
    if extras == NO_EXTRAS:
        return ((name, text),)
    return tuple((name, each) for each in _texts(answer_message(text, extras)))


def _texts(message: Message) -> Iterator[str]:
    """The texts of a message: what it reasons, says and calls."""
    if message.reasoning:
        yield message.reasoning
    if message.content or not (message.reasoning or message.tool_calls):
        yield message.content
    yield from (f"{call.name} {call.arguments}" for call in message.tool_calls)


def target_field(item: TrainingItem) -> str:
    """The field with the text that training learns: the response, the chosen side or the document."""
    return {Document: "text", Pair: "chosen"}.get(type(item), "response")


def target_text(item: TrainingItem) -> str:
    """The text that training learns: of a conversation, every answer that is learnt, with its calls."""
    if isinstance(item, Document):
        return item.text
    turns = (text for message in item.prompt if message.learnt for text in _texts(message))
    return "\n".join((*turns, answer_text(item)))


def answer_text(item: Example | Pair | UnpairedExample) -> str:
    """What the last answer that training learns reasons, says and calls."""
    extras = item.chosen_extras if isinstance(item, Pair) else item.extras
    return "\n".join(text for _, text in _answer("", getattr(item, target_field(item)), extras))


def prompt_text(item: TrainingItem) -> str:
    """The messages of the prompt joined by newlines; for a document, its whole text."""
    return item.text if isinstance(item, Document) else "\n".join(m.content for m in item.prompt)


def prompt_part(item: TrainingItem) -> tuple[RowPart, ...]:
    """The prompt as one text part, in the form in which prompts are compared with each other."""
    return (("prompt", prompt_text(item)),)


def full_text(item: TrainingItem) -> str:
    """All texts of an item joined by newlines."""
    return "\n".join(text for _, text in text_parts(item))


def plain_messages(messages: Messages) -> Messages:
    """Messages as a chat template without tools shows them: what is beside the text becomes text."""
    return tuple(
        Message(Role.USER if m.role is Role.TOOL else m.role, "\n".join(_texts(m))) for m in messages
    )


def map_texts(item: TrainingItem, change: Callable[[str], str]) -> TrainingItem:
    """A copy of the item with `change` applied to every text; id and origin stay."""
    if isinstance(item, Document):
        return replace(item, text=change(item.text))
    prompt = tuple(_changed(message, change) for message in item.prompt)
    if isinstance(item, Pair):
        chosen, chosen_extras = _changed_answer(item.chosen, item.chosen_extras, change)
        rejected, rejected_extras = _changed_answer(item.rejected, item.rejected_extras, change)
        extras = {"chosen_extras": chosen_extras, "rejected_extras": rejected_extras}
        return replace(item, prompt=prompt, chosen=chosen, rejected=rejected, **extras)
    response, extras = _changed_answer(item.response, item.extras, change)
    return replace(item, prompt=prompt, response=response, extras=extras)


def _changed(message: Message, change: Callable[[str], str]) -> Message:
    """The message with changed texts; if any is another now, token ids are no longer its own."""
    changed = replace(
        message,
        content=change(message.content),
        reasoning=change(message.reasoning) if message.reasoning else "",
        tool_calls=tuple(replace(call, arguments=change(call.arguments)) for call in message.tool_calls),
    )
    return message if changed == message else replace(changed, token_ids="")


def _changed_answer(
    text: str, extras: AnswerExtras, change: Callable[[str], str]
) -> tuple[str, AnswerExtras]:
    if extras == NO_EXTRAS:
        return change(text), extras
    changed = _changed(answer_message(text, extras), change)
    return changed.content, AnswerExtras(changed.reasoning, changed.tool_calls, changed.token_ids)


# --- lines ------------------------------------------------------------------------------------


def parse_row(
    kind: RowKind, data: dict[str, Any], source: str, number: int, counts: Counter[str] | None = None
) -> CurationRow:
    """The row of a user's line, checked; keys that are not used are counted. Raises Fault if it is broken,
    Skip if there is nothing to learn."""
    own = {key: data[key] for key in _OWN_KEYS & data.keys() if data[key] is not None}
    rest = {key: value for key, value in data.items() if key not in _OWN_KEYS}
    item = build(kind, rest, Counter() if counts is None else counts, f"{source}:{number}")
    labels, figures, time = own.get("labels", {}), own.get("figures", {}), own.get("time")
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise Fault("`labels` is of the wrong type", short(labels), "text by name")
    if not isinstance(figures, dict) or not all(_is_number(v) for v in figures.values()):
        raise Fault("`figures` is of the wrong type", short(figures), "numbers by name")
    for key in ("subject", "conversation"):
        if not isinstance(own.get(key, ""), str):
            raise Fault(f"`{key}` is of the wrong type", short(own[key]), "text")
    if time is not None and not _is_number(time):
        raise Fault("`time` is of the wrong type", short(time), "seconds since the epoch")
    figures = {name: float(value) for name, value in figures.items()}
    time = None if time is None else float(time)
    return CurationRow(
        item,
        source,
        dict(labels),
        figures,
        subject=own.get("subject"),
        time=time,
        conversation=own.get("conversation"),
    )


def _is_number(value: object) -> bool:
    """Whether a value is a finite number that fits a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= LARGEST


def write_line(row: CurationRow) -> bytes:
    """A row as a line of JSON. `read_line` restores all of it but the notes."""
    data = row_of(row.item) | {"labels": row.labels, "figures": row.figures, "source": row.source}
    about = {"subject": row.subject, "time": row.time, "conversation": row.conversation}
    data |= {key: value for key, value in about.items() if value is not None}
    numbers = (data.get("weight", 1.0), data.get("flip_rate", 0.0), row.time or 0.0, *row.figures.values())
    return compact_json(data, numbers) + b"\n"


def read_line(kind: RowKind, line: bytes) -> CurationRow:
    """The row of a line that `write_line` wrote, without checks."""
    data: dict[str, Any] = json.loads(line)
    if "source" not in data:  # as the cycles of the first version wrote what they trained on
        older = {"completion": data.get("response"), "label": data.get("desirable"), "labels": {}}
        data = older | {"source": data["origin"]["rule"], "figures": {}} | data
    row = CurationRow(item_of(kind, data), data["source"], data["labels"], data["figures"])
    about = {key: data[key] for key in ("subject", "time", "conversation") if key in data}
    return replace(row, **about) if about else row


def read_file(kind: RowKind, path: Path) -> Iterator[CurationRow]:
    """The rows of a file of such lines, one at a time."""
    with path.open("rb") as file:
        for line in file:
            yield read_line(kind, line)
