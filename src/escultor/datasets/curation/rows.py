"""What flows through the steps: an item with what is known about it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from escultor.data.jsonl_rows import Fault, RowKind, TrainingItem, build, row_of, short
from escultor.types import Consent, Document, Example, Message, Messages, Origin, Pair, Role, UnpairedExample

RowPart = tuple[str, str]  # role, text
LARGEST = 10**300


@dataclass(frozen=True, slots=True)
class CurationRow:
    """An item, its source, labels (text) and figures (numbers) by name. `notes` are what steps changed."""

    item: TrainingItem
    source: str
    labels: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    subject: str | None = None
    time: float | None = None
    notes: tuple[str, ...] = ()

    def figure(self, name: str, value: float) -> CurationRow:
        """The row with one more figure."""
        return replace(self, figures={**self.figures, name: value})

    def label(self, name: str, value: str) -> CurationRow:
        """The row with one more label."""
        return replace(self, labels={**self.labels, name: value})


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a row is left out."""

    reason: str


def parts_of(item: TrainingItem) -> tuple[RowPart, ...]:
    """The texts of an item by their role. Verdicts and sides are part of the role: an answer called good
    is another text than the same one called bad."""
    if isinstance(item, Document):
        return (("text", item.text),)
    prompt = tuple((f"prompt {m.role}", m.content) for m in item.prompt)
    if isinstance(item, Example):
        return (*prompt, ("response", item.response))
    if isinstance(item, Pair):
        return (*prompt, ("chosen", item.chosen), ("rejected", item.rejected))
    return (*prompt, ("response good" if item.desirable else "response bad", item.response))


def learnt(item: TrainingItem) -> str:
    """The text that is learnt: the response, the chosen side, the document."""
    if isinstance(item, Document):
        return item.text
    return item.chosen if isinstance(item, Pair) else item.response


def prompt_text(item: TrainingItem) -> str:
    """What is asked, as one text; of a document all of it."""
    return item.text if isinstance(item, Document) else "\n".join(m.content for m in item.prompt)


def whole(item: TrainingItem) -> str:
    """All texts of an item, one after another."""
    return "\n".join(text for _, text in parts_of(item))


def rewritten(item: TrainingItem, change: Callable[[str], str]) -> TrainingItem:
    """The item with every text changed; its id and origin stay, so that it can be traced."""
    if isinstance(item, Document):
        return replace(item, text=change(item.text))
    prompt = tuple(Message(m.role, change(m.content)) for m in item.prompt)
    if isinstance(item, Pair):
        return replace(item, prompt=prompt, chosen=change(item.chosen), rejected=change(item.rejected))
    return replace(item, prompt=prompt, response=change(item.response))


# --- lines ------------------------------------------------------------------------------------


def parse(kind: RowKind, data: dict[str, Any], source: str, number: int) -> CurationRow:
    """The row of a user's line. Raises Fault for a broken one, Skip for one that teaches nothing."""
    item = build(kind, data, Counter(), f"{source}:{number}")
    labels = data.get("labels", {})
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise Fault("`labels` is of the wrong type", short(labels), "text by name")
    figures = data.get("figures", {})
    if not isinstance(figures, dict) or not all(_is_number(v) for v in figures.values()):
        raise Fault("`figures` is of the wrong type", short(figures), "numbers by name")
    subject, time = data.get("subject"), data.get("time")
    if subject is not None and not isinstance(subject, str):
        raise Fault("`subject` is of the wrong type", short(subject), "text")
    if time is not None and not _is_number(time):
        raise Fault("`time` is of the wrong type", short(time), "seconds since the epoch")
    figures = {name: float(value) for name, value in figures.items()}
    return CurationRow(item, source, dict(labels), figures, subject, None if time is None else float(time))


def _is_number(value: object) -> bool:
    """Whether it is a number that a float can hold."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= LARGEST


def line_of(row: CurationRow) -> bytes:
    """A row as a line of JSON; `read` gives an equal one back, but for its notes."""
    about: dict[str, Any] = {"labels": row.labels, "figures": row.figures, "source": row.source}
    if row.subject is not None:
        about["subject"] = row.subject
    if row.time is not None:
        about["time"] = row.time
    return json.dumps(row_of(row.item) | about, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def read(kind: RowKind, line: bytes) -> CurationRow:
    """The row of a line that `line_of` wrote: no check is made again."""
    data = json.loads(line)
    origin = data["origin"]
    made = Origin(tuple(origin["parents"]), origin["rule"], Consent(origin["consent"]))
    item = _READERS[kind](data, made)
    return CurationRow(
        item, data["source"], data["labels"], data["figures"], data.get("subject"), data.get("time")
    )


def _prompt(data: dict[str, Any]) -> Messages:
    return tuple(Message(Role(m["role"]), m["content"]) for m in data["prompt"])


_READERS: dict[str, Callable[[dict[str, Any], Origin], TrainingItem]] = {
    "document": lambda d, o: Document(d["id"], d["text"], o),
    "example": lambda d, o: Example(d["id"], _prompt(d), d["completion"], o, d["weight"]),
    "pair": lambda d, o: Pair(
        d["id"], _prompt(d), d["chosen"], d["rejected"], o, d["weight"], d["flip_rate"]
    ),
    "unpaired": lambda d, o: UnpairedExample(
        d["id"], _prompt(d), d["completion"], d["label"], o, d["weight"]
    ),
}
