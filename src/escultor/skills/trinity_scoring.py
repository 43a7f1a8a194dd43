"""Scores of a Trinity against the one that the document's author wrote, each in [0, 1]."""

from __future__ import annotations

import re

from escultor.errors import DataError
from escultor.skills.metrics import exact_match, rouge_l, set_f1
from escultor.skills.trinity import Trinity, parse_trinity

EXACT = ("valid", "entity", "domain", "purpose")  # 0 or 1
METRICS = ("valid", "entity", "domain", "purpose", "entities_f1", "rouge_l", "field_accuracy", "quality")


def score_trinity(answer: str, gold: Trinity) -> dict[str, float]:
    """One number per metric for one answer; an answer that is no Trinity scores 0 in all of them.

    valid: it parses, strictly. entity, domain, purpose: exactly right. entities_f1: set F1 of the
    names. rouge_l: of the summary. field_accuracy: mean of the four fields that have a right answer.
    quality: mean of those four and the summary.
    """
    try:
        trinity = parse_trinity(answer)
    except DataError:
        return dict.fromkeys(METRICS, 0.0)
    fields = {
        "entity": exact_match(trinity.entity, gold.entity),
        "domain": exact_match(trinity.domain, gold.domain),
        "purpose": exact_match(trinity.purpose, gold.purpose),
        "entities_f1": set_f1(trinity.entities, gold.entities),
    }
    rouge = rouge_l(trinity.summary, gold.summary)
    accuracy = sum(fields.values()) / len(fields)
    quality = (sum(fields.values()) + rouge) / (len(fields) + 1)
    return {"valid": 1.0, **fields, "rouge_l": rouge, "field_accuracy": accuracy, "quality": quality}


def lead_sentence(document: str) -> str:
    """The first sentence below the signature: the baseline summary that any model should beat."""
    body = document.split("\n\n", 1)[-1]
    return re.split(r"(?<=[.!?])\s|\n\n", " ".join(body.split()), maxsplit=1)[0]
