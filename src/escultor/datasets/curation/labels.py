"""Labels of a row by fixed rules (style, length band, domain, purpose), and the diversity of their
values."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from escultor.config.curation import Diversity
from escultor.datasets.rows import CurationRow, target_text
from escultor.text.normalization import word_count
from escultor.types import Document

STYLES = ("structured", "code", "math", "dialogue", "list", "brief", "instruction", "prose")
BANDS = ((16, "1-16 words"), (64, "17-64 words"), (256, "65-256 words"), (1024, "257-1024 words"))
LONGEST = "over 1024 words"
LABELS = ("domain", "purpose", "style", "length")
UNLABELLED = "unlabelled"
LabelTally = dict[str, Counter[str]]  # rows by value, by label

BRIEF_WORDS = 12
# Blanks within a line alone: over line breaks, every line would look through all blank lines after it.
_CODE_START = re.compile(r"^[ \t]*(?:def |class |import |from \w+ import |return\b|>>> )")
_CODE_END = (";", "{", "}")
_MATH = re.compile(r"\d\s*[=+*/×÷]\s*\$?\d|\\frac|\\sum|\\int")
_SPEAKER = re.compile(r"^[^\W\d_a-z][\w .'-]{0,24}: *\S?", re.M)
_BULLET = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+\S", re.M)
_IMPERATIVE_VERBS = (
    "add apply build call check choose click compute copy create define do enter find get give go "
    "install keep load make move open pass print put read remove replace return run save select "
    "send set show start stop take try turn use wait write "
    "abra acesse adicione apague calcule clique coloque copie crie defina envie escolha escreva "
    "execute explique faça feche guarde instale leia ligue liste mova mude pare passe pegue remova "
    "rode salve selecione some tire troque utilize veja verifique "
)
_IMPERATIVES = frozenset(_IMPERATIVE_VERBS.split())
_FIRST_WORD = re.compile(r"\w*")


def with_labels(row: CurationRow) -> CurationRow:
    """A copy of the row with every label of `LABELS`; labels it already has stay."""
    labels = {**_stated_labels(row), **row.labels}
    text = target_text(row.item)
    if "style" not in labels:
        labels["style"] = style_of(text, 1 if isinstance(row.item, Document) else len(row.item.prompt))
    labels.setdefault("length", band_of(word_count(text)))
    for name in ("domain", "purpose"):
        labels.setdefault(name, UNLABELLED)
    return replace(row, labels=labels)


def style_of(text: str, turns: int = 1) -> str:
    """The style of a text, by the first rule that applies:

    structured   a JSON object or list, or a table of pipes
    code         a fence, or code in three lines of ten
    math         two calculations or a formula
    dialogue     two lines that name a speaker, or a prompt of three messages
    list         three bullets or numbers
    brief        at most twelve words
    instruction  begins with a verb in the imperative, of English or Portuguese
    prose        everything else
    """
    stripped = text.strip()
    lines = stripped.count("\n") + 1
    is_json = bool(stripped) and stripped[0] in "{[" and stripped[-1] in "}]"
    if is_json or (stripped[:1] == "|" and stripped.count("|") >= 6):
        return "structured"
    if "```" in stripped or _code_lines(stripped) >= max(1, 0.3 * lines):
        return "code"
    if len(_MATH.findall(stripped)) >= 2:
        return "math"
    if turns >= 3 or (lines > 1 and len(_SPEAKER.findall(stripped)) >= 2):
        return "dialogue"
    if lines > 2 and len(_BULLET.findall(stripped)) >= 3:
        return "list"
    if word_count(stripped) <= BRIEF_WORDS:
        return "brief"
    first_word = _FIRST_WORD.match(stripped)
    return "instruction" if first_word and first_word[0].casefold() in _IMPERATIVES else "prose"


def _code_lines(text: str) -> int:
    """How many lines begin or end as code does."""
    lines = (line.rstrip(" \t") for line in text.split("\n"))
    return sum(line.endswith(_CODE_END) or bool(_CODE_START.match(line)) for line in lines)


def band_of(words: int) -> str:
    """The length band of a number of words."""
    return next((name for limit, name in BANDS if words <= limit), LONGEST)


def _stated_labels(row: CurationRow) -> dict[str, str]:
    """Domain and purpose where the answer is a JSON object that states them."""
    text = target_text(row.item)
    if not (text.startswith("{") and ('"domain"' in text or '"purpose"' in text)):
        return {}
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    flat = {**data, **{k: v for part in data.values() if isinstance(part, dict) for k, v in part.items()}}
    return {k: flat[k] for k in ("domain", "purpose") if isinstance(flat.get(k), str) and flat[k]}


# --- diversity ----------------------------------------------------------------------------------


def empty_tally() -> LabelTally:
    """The tally of no rows."""
    return {name: Counter() for name in LABELS}


@dataclass(frozen=True, slots=True)
class LabelDiversity:
    """The diversity of one label of a set of rows."""

    label: str
    values: int  # distinct ones, without unlabelled rows
    entropy: float  # bits
    evenness: float  # entropy over that of as many equal shares; 1 for a single value
    missing: int  # values fewer than a diverse dataset has
    largest: str
    largest_share: float


def label_diversity(label: str, counts: Mapping[str, int], target: int | None) -> LabelDiversity:
    """The diversity of a label by its rows by value. Unlabelled rows count in the shares, not as a
    value."""
    total = sum(counts.values())
    shares = [n / total for n in counts.values() if n]
    entropy = sum(-p * math.log2(p) for p in shares)
    values = sum(1 for value, n in counts.items() if n and value != UNLABELLED)
    largest = max(counts.items(), key=lambda pair: (pair[1], pair[0]), default=("", 0))
    return LabelDiversity(
        label,
        values=values,
        entropy=entropy,
        evenness=entropy / math.log2(len(shares)) if len(shares) > 1 else 1.0,
        missing=max(0, target - values) if target else 0,
        largest=largest[0],
        largest_share=largest[1] / total if total else 0.0,
    )


def diversity_of(tally: LabelTally, targets: Diversity) -> tuple[LabelDiversity, ...]:
    """The diversity of every label of a tally against its target."""
    target = {"domain": targets.domains, "style": targets.styles, "length": targets.lengths}
    return tuple(label_diversity(name, tally[name], target.get(name)) for name in LABELS)
