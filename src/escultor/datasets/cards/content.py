"""The card of a curated dataset: all that is known of a version, in plain values.

Every card has one format (`card/1`): name, hash, kind and rows, and a part for the way the version was made.
A curated version has steps, balance and split; one made of feedback has `feedback`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from escultor.config.curation import Curation
from escultor.datasets.cards.head import card_head
from escultor.datasets.curation.labels import LabelTally, diversity_of
from escultor.datasets.curation.pipeline import Curated, StepDone
from escultor.datasets.curation.quality import QualityModel, default_model
from escultor.datasets.rows import CurationRow, full_text, target_text
from escultor.ids import code_hash

QUANTILES = {"min": 0.0, "p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}
PRIVATE_KINDS = ("email", "phone", "card", "iban", "ip", "secret")


def curated_card(
    hash: str,
    *,
    name: str,
    curated: Curated,
    settings: Curation,
    model: QualityModel | None,
    rows: Iterable[CurationRow],
) -> dict[str, Any]:
    """The card of a curated version. `rows` are its training rows, read once."""
    removed = sum((Counter(step.removed) for step in curated.steps), Counter())
    found = sum((Counter(step.notes) for step in curated.steps), removed)

    def diversity(tally: LabelTally) -> list[dict[str, Any]]:
        return [asdict(each) for each in diversity_of(tally, settings.diversity)]

    def account(step: StepDone) -> dict[str, Any]:
        fields = asdict(replace(step, after={}))
        del fields["after"]
        return fields | {"left": step.left, "diversity": diversity(step.after)}

    head = card_head(
        hash,
        name=name,
        kind=curated.kind,
        rows=curated.counts["train"],
        held_out=curated.counts["held out"],
    )
    return head | {
        "sources": {
            source: {"rows": n, "licence": settings.licences.get(source, "not stated")}
            for source, n in curated.sources.items()
        },
        "steps": [account(step) for step in curated.steps],
        "duplicates": {
            reason: removed[reason] for reason in ("exact duplicate", "near duplicate") if removed[reason]
        },
        "private": {
            kind: sum(n for what, n in found.items() if kind in what.split()) for kind in PRIVATE_KINDS
        },
        "balance": {label: dict(counts.most_common()) for label, counts in curated.after.items()},
        "diversity": {"before": diversity(curated.before), "after": diversity(curated.after)},
        "quality": _describe_quality(model or default_model()),
        "split": curated.split,
        "warnings": list(curated.warnings),
        "settings": settings.model_dump(mode="json"),
        "code": code_hash(),
        **_describe(rows),
    }


def _describe(rows: Iterable[CurationRow]) -> dict[str, Any]:
    """Lengths, languages and subjects of rows, in one pass."""
    words, target_words = array("I"), array("I")
    languages: Counter[str] = Counter()
    subjects: Counter[str] = Counter()
    for row in rows:
        words.append(len(full_text(row.item).split()))
        target_words.append(len(target_text(row.item).split()))
        languages[row.labels.get("language", "not looked at")] += 1
        if row.subject is not None:
            subjects[row.subject] += 1
    known = subjects.total()
    return {
        "words": _quantiles(words),
        "words_learnt": _quantiles(target_words),
        "languages": dict(languages.most_common()),
        "subjects": {
            "known": len(subjects),
            "rows": known,
            "largest_share": max(subjects.values()) / known if known else None,
        },
    }


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    quantiles = np.quantile(np.asarray(values), list(QUANTILES.values()), method="nearest")
    return dict(zip(QUANTILES, map(int, quantiles), strict=True))


def _describe_quality(model: QualityModel) -> dict[str, Any]:
    """Ratings, bias, calibration, and the weights of the features, the largest first."""
    rows = zip(model.names, model.mean, model.scale, model.weights, strict=True)
    heads = ("feature", "mean", "scale", "weight")
    weights = sorted(rows, key=lambda row: (-abs(row[3]), row[0]))
    return {
        "ratings": model.ratings,
        "bias": model.bias,
        "weights": [dict(zip(heads, row, strict=True)) for row in weights],
        "calibration": asdict(model.calibration) if model.calibration else None,
    }
