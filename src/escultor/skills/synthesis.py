"""Summaries in a fixed structure: a title, an executive summary in two paragraphs, key points each with its
context. A parser judges the structure; names and numbers that occur in the document, the faithfulness."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from escultor.errors import DataError
from escultor.skills.partial_json import read_partial
from escultor.skills.table import BINARY, SHARE, Metric, ModelOutput
from escultor.skills.text_forms import folded
from escultor.strict_json import strict_loads
from escultor.types import SuiteItem

PARAGRAPHS = 2
KEY_POINTS = 8  # of a document of several sections
_NUMBER = re.compile(r"\d++(?:[.,:/]\d++)*+")
# Capitalised words, two or more together or with capitals inside; and words with digits or underscores.
_NAME = re.compile(r"\b[A-Z][\w'’]*+(?:[ -][A-Z][\w'’]*+)++|\b\w+[A-Z]\w*\b|\b[A-Za-z]\w*_\w+\b")


@dataclass(frozen=True, slots=True)
class KeyPoint:
    point: str
    context: str


@dataclass(frozen=True, slots=True)
class Synthesis:
    """A structured summary of a document."""

    title: str
    summary: tuple[str, ...]
    key_points: tuple[KeyPoint, ...]

    def to_json(self) -> str:
        """The answer that a model should give."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_markdown(self) -> str:
        """The summary for people."""
        points = "\n".join(f"- **{each.point}** {each.context}" for each in self.key_points)
        return "\n\n".join([f"# {self.title}", *self.summary, "## Key points", points]) + "\n"


def parse_synthesis(answer: str) -> Synthesis:
    """Read an answer strictly: a title, two paragraphs of one paragraph each, and key points with contexts,
    none of them empty or twice. Raises DataError naming the first thing that is wrong."""
    try:
        value = strict_loads(answer)
    except ValueError as error:
        raise DataError("the answer is no JSON", str(error)[:80]) from error
    if not isinstance(value, dict) or set(value) != {"title", "summary", "key_points"}:
        raise DataError("the answer has the wrong fields", str(value)[:80], "title, summary, key_points")
    if not _is_text(value["title"]) or "\n" in value["title"].strip():
        raise DataError("`title` is no title", repr(value["title"])[:80], "one line")
    paragraphs, points = value["summary"], value["key_points"]
    if not isinstance(paragraphs, list) or len(paragraphs) != PARAGRAPHS:
        raise DataError("`summary` is no executive summary", repr(paragraphs)[:80], "two paragraphs")
    if not all(_is_text(each) and "\n\n" not in each.strip() for each in paragraphs):
        raise DataError("`summary` holds what is no paragraph", repr(paragraphs)[:80], "two paragraphs")
    if not isinstance(points, list) or not points:
        raise DataError("there are no key points", repr(points)[:80], "a list of {point, context}")
    for each in points:
        if (
            not isinstance(each, dict)
            or set(each) != {"point", "context"}
            or not all(map(_is_text, each.values()))
        ):
            raise DataError("a key point lacks its point or context", repr(each)[:80], "{point, context}")
    if len({folded(each["point"]) for each in points}) < len(points):
        raise DataError("a key point stands there twice", None, "each once")
    key_points = tuple(KeyPoint(each["point"], each["context"]) for each in points)
    return Synthesis(value["title"], tuple(paragraphs), key_points)


def read_synthesis(answer: str, document: str) -> tuple[Synthesis, tuple[str, ...]]:
    """The summary that an answer gives, and the fields that are filled from the document since the answer
    (cut, or of a model that no schema guides) does not give them."""
    given = read_partial(answer)
    lines = [line.strip("#=- \t") for line in document.splitlines() if line.strip("#=- \t")] or ["document"]
    paragraphs = [" ".join(p.split()) for p in document.split("\n\n") if p.strip()][:PARAGRAPHS]
    opening = lines[0][:120]
    title = str(given.get("title")) if _is_text(given.get("title")) else ""
    summary = [p for p in _list(given.get("summary")) if _is_text(p)][:PARAGRAPHS]
    points = {
        folded(each["point"]): KeyPoint(each["point"], each["context"])
        for each in _list(given.get("key_points"))
        if isinstance(each, dict) and _is_text(each.get("point")) and _is_text(each.get("context"))
    }
    filled = [
        *([] if title else ["title"]),
        *(["summary"] if len(summary) < PARAGRAPHS else []),
        *(["key_points"] if not points else []),
    ]
    summary += [p[:600] for p in (paragraphs + lines[:1] * PARAGRAPHS)[: PARAGRAPHS - len(summary)]]
    key_points = tuple(points.values()) or (KeyPoint(opening, summary[0]),)
    return Synthesis(_one(title or opening), tuple(map(_one, summary)), key_points), tuple(filled)


def merge_syntheses(parts: Sequence[Synthesis], whole: Synthesis | None) -> Synthesis:
    """The summary of a document from those of its sections, and of the sections' summaries: title and
    executive summary are of the whole, key points are taken in turn from the sections, at most eight."""
    head = whole or parts[0]
    points: dict[str, KeyPoint] = {}
    for turn in range(max(len(part.key_points) for part in parts)):
        for part in parts:
            for each in part.key_points[turn : turn + 1]:
                points.setdefault(folded(each.point), each)
    return Synthesis(parts[0].title, head.summary, tuple(points.values())[:KEY_POINTS])


def unsupported(answer: Synthesis, document: str) -> list[str]:
    """The names and numbers of a summary that do not occur in the document."""
    text = folded(document)
    numbers = set(_NUMBER.findall(text))
    words = [answer.title, *answer.summary, *(t for p in answer.key_points for t in (p.point, p.context))]
    found = dict.fromkeys(name for each in words for name in mentions(each))
    return [m for m in found if (m not in numbers if m[0].isdigit() else folded(m) not in text)]


def mentions(text: str) -> Iterator[str]:
    """The names and numbers of a text."""
    yield from (match[0] for match in _NAME.finditer(text))
    yield from _NUMBER.findall(text)


def _structure(output: ModelOutput, item: SuiteItem) -> float:
    try:
        parse_synthesis(output.answer)
    except DataError:
        return 0.0
    return 1.0


def _faithful(output: ModelOutput, item: SuiteItem) -> float:
    try:
        made = parse_synthesis(output.answer)
    except DataError:
        return 0.0
    texts = [made.title, *made.summary, *(t for p in made.key_points for t in (p.point, p.context))]
    total = len(dict.fromkeys(name for each in texts for name in mentions(each)))
    return 1.0 - len(unsupported(made, item.prompt[-1].content)) / total if total else 1.0


METRICS = {
    "structure": Metric(
        "title, two paragraphs, key points each with its context", frozenset(("answer",)), BINARY, _structure
    ),
    "faithful": Metric(
        "share of names and numbers that occur in the document", frozenset(("answer",)), SHARE, _faithful
    ),
}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _one(paragraph: str) -> str:
    return " ".join(paragraph.split())
