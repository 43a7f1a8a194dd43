"""The scores of one run of another evaluation tool, item by item."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from escultor.errors import DataError

Better = Literal["higher", "lower", "neither"]
# What tools call a value that is no number; lower-cased.
WORDS = {
    **dict.fromkeys(("c", "correct", "pass", "passed", "yes", "true", "success", "y"), 1.0),
    **dict.fromkeys(("i", "incorrect", "fail", "failed", "no", "false", "failure", "n"), 0.0),
    "p": 0.5,
    "partial": 0.5,
}


@dataclass(slots=True)
class ScoredItem:
    """One item of a run: its prompt and answer, and each metric's values, several where it was repeated."""

    cluster: str | None = None
    prompt: str = ""
    answer: str = ""
    values: dict[str, list[float]] = field(default_factory=dict)
    failed: bool = False  # there is no answer to be scored: it counts as the worst


@dataclass(slots=True)
class ScoredRun:
    """A run as its tool wrote it. `better` says what the tool says of a metric's direction; a metric that is
    missing there has none stated. `settings` are those in which the sides of a comparison must agree,
    `conditions` those whose differences are told."""

    path: Path
    tool: str
    task: str
    model: str
    items: dict[str, ScoredItem] = field(default_factory=dict)
    better: dict[str, Better] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def item(self, id: str, prompt: str = "", answer: str = "", cluster: str | None = None) -> ScoredItem:
        """The item of this id, made where it is new."""
        return self.items.setdefault(id, ScoredItem(cluster, prompt, answer))

    def add(self, item: ScoredItem, metric: str, value: Any, where: str) -> None:
        """Add a score to an item. A label or a text is none, and is left out with a note. Raises DataError as
        `number` for any other value."""
        try:
            item.values.setdefault(metric, []).append(number(value, f"{metric} of {where}"))
        except DataError:
            if not isinstance(value, str):
                raise
            if not item.values[metric]:
                del item.values[metric]
            note = f"{metric} is left out where it is a label or a text, such as {value[:40]!r}"
            if not any(each.startswith(note.partition(", such")[0]) for each in self.notes):
                self.notes.append(note)

    @property
    def metrics(self) -> list[str]:
        """The metrics of the items that were answered, in order of appearance."""
        return list(dict.fromkeys(name for item in self.items.values() for name in item.values))


def number(value: Any, what: str) -> float:
    """A score as a number: true and false, and words such as C and I or pass and fail, are 1 and 0, and 85 %
    is 0.85.

    Raises DataError for any other value, and for one that is not finite.
    """
    if isinstance(value, str):
        word = value.strip().lower()
        value = WORDS.get(word, value)
        if isinstance(value, str):
            share = word.endswith("%")
            with suppress(ValueError):
                value = float(word.removesuffix("%").replace("_", "?")) / (100 if share else 1)
    try:
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    except OverflowError:  # of whole numbers
        pass
    allowed = "a finite number, a percentage, true or false, or a word such as pass"
    raise DataError(f"{what} is no number", repr(value)[:60], allowed)


def text_of(value: Any) -> str:
    """The text of a message's content, of a list of messages (the last), or of any other value."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        texts = [v for v in value if isinstance(v, Mapping) and v.get("type") == "text"]
        return "".join(str(v.get("text", "")) for v in texts) if texts else text_of(value[-1])
    if isinstance(value, Mapping):
        for key in ("content", "output", "text", "question", "prompt", "input"):
            if key in value:
                return text_of(value[key])
    return "" if value is None else str(value)
