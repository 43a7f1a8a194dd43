"""Labels of a row by fixed rules: style, length band, domain and purpose."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from escultor.datasets.balance import UNLABELLED
from escultor.datasets.rows import CurationRow, target_text
from escultor.types import Document

STYLES = ("structured", "code", "math", "dialogue", "list", "brief", "instruction", "prose")
BANDS = ((16, "1-16 words"), (64, "17-64 words"), (256, "65-256 words"), (1024, "257-1024 words"))
LONGEST = "over 1024 words"
LABELS = ("domain", "purpose", "style", "length")

BRIEF_WORDS = 12
_CODE_LINE = re.compile(r"^\s*(?:def |class |import |from \w+ import |return\b|>>> |[^\n]*[;{}]\s*$)", re.M)
_MATH = re.compile(r"\d\s*[=+*/×÷]\s*\$?\d|\\frac|\\sum|\\int")
_SPEAKER = re.compile(r"^[A-Z][\w .'-]{0,24}:\s*\S?", re.M)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.M)
_IMPERATIVE = re.compile(
    r"^(?:add|apply|build|call|check|choose|click|compute|copy|create|define|do|enter|find|get|give|go|"
    r"install|keep|load|make|move|open|pass|print|put|read|remove|replace|return|run|save|select|send|set|"
    r"show|start|stop|take|try|turn|use|wait|write)\b",
    re.I,
)


def with_labels(row: CurationRow) -> CurationRow:
    """A copy of the row with every label of `LABELS`; labels it already has stay."""
    labels = {**_stated_labels(row), **row.labels}
    text = target_text(row.item)
    turns = 1 if isinstance(row.item, Document) else len(row.item.prompt)
    labels.setdefault("style", style_of(text, turns))
    labels.setdefault("length", band_of(len(text.split())))
    labels.setdefault("domain", UNLABELLED)
    labels.setdefault("purpose", UNLABELLED)
    return replace(row, labels=labels)


def style_of(text: str, turns: int = 1) -> str:
    """The style of a text, by the first rule that applies:

    structured   a JSON object or list, or a table of pipes
    code         a fence, or code in three lines of ten
    math         two calculations or a formula
    dialogue     two lines that name a speaker, or a prompt of three messages
    list         three bullets or numbers
    brief        at most twelve words
    instruction  begins with a verb in the imperative
    prose        everything else
    """
    stripped = text.strip()
    lines = stripped.count("\n") + 1
    if stripped[:1] in "{[" and stripped[-1:] in "}]" and stripped:
        return "structured"
    if stripped.count("|") >= 6 and stripped[:1] == "|":
        return "structured"
    if "```" in stripped or len(_CODE_LINE.findall(stripped)) >= max(1, 0.3 * lines):
        return "code"
    if len(_MATH.findall(stripped)) >= 2:
        return "math"
    if turns >= 3 or (lines > 1 and len(_SPEAKER.findall(stripped)) >= 2):
        return "dialogue"
    if lines > 2 and len(_BULLET.findall(stripped)) >= 3:
        return "list"
    if len(stripped.split(maxsplit=BRIEF_WORDS)) <= BRIEF_WORDS:
        return "brief"
    return "instruction" if _IMPERATIVE.match(stripped) else "prose"


def band_of(words: int) -> str:
    """The length band of a number of words."""
    return next((name for limit, name in BANDS if words <= limit), LONGEST)


def _stated_labels(row: CurationRow) -> dict[str, str]:
    """Domain and purpose where the answer is a JSON object that states them, as a Trinity does."""
    text = target_text(row.item)
    if not (text.startswith("{") and ('"domain"' in text or '"purpose"' in text)):
        return {}
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    flat = {**data, **{k: v for part in data.values() if isinstance(part, dict) for k, v in part.items()}}
    return {k: flat[k] for k in ("domain", "purpose") if isinstance(flat.get(k), str) and flat[k]}
