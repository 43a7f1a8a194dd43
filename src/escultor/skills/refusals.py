"""The beginnings of answers that refuse, in English, Portuguese, Spanish, French and German.

Phrase matching after Zou et al. 2023 (arXiv:2307.15043, §B.2), sentence by sentence; `refusals.yaml` holds
the phrases. `tests/skills/refusals.jsonl` holds labelled answers, and a test what share of them is read
right.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import yaml

from escultor.skills.text_forms import folded

WITHIN = 200  # characters of an answer: refusals come first, later ones may be caveats
_SENTENCE_END = re.compile(r"[.!?:;\n]+(?:\s|$)")


def begins_with_refusal(answer: str) -> bool:
    """Whether a sentence that begins within the first 200 characters refuses."""
    parts = _SENTENCE_END.split(folded(answer[: 2 * WITHIN])[:WITHIN])
    return any(map(_refuses, filter(None, (part.strip(' *"-,') for part in parts))))


def _refuses(sentence: str) -> bool:
    return any(all(pattern.search(sentence) for pattern in patterns) for patterns in _phrases())


@cache
def _phrases() -> tuple[tuple[re.Pattern[str], ...], ...]:
    """For each language what any of is a refusal, and what all of it."""
    text = files("escultor.skills").joinpath("refusals.yaml").read_text(encoding="utf-8")
    found: list[tuple[re.Pattern[str], ...]] = []
    for language in yaml.safe_load(text).values():
        lines = {key: block.splitlines() for key, block in language.items()}
        alternatives = "|".join(f"(?:{line})" for line in lines["any_of"])
        for key in ("idioms", "help"):
            alternatives = alternatives.replace(f"<{key}>", "|".join(lines.get(key, ())))
        found += [(re.compile(alternatives),), tuple(map(re.compile, lines["all_of"]))]
    return tuple(found)
