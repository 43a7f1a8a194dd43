"""The card of a dataset: what is known of it, as one object, and that object as Markdown.

Every version has one of the same shape (`card/1`): name, hash, kind and rows, and a part for the way it was
made. What was curated has steps, balance and split; what feedback was made into has `feedback`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from escultor.config.curation import Curation
from escultor.datasets.curation.diversity import LabelDiversity, diversity_of
from escultor.datasets.curation.pipeline import Curated, StepDone
from escultor.datasets.curation.quality import QualityModel, as_table, by_hand
from escultor.datasets.feedback_section import feedback_lines, feedback_tables
from escultor.datasets.rows import CurationRow, full_text, target_text
from escultor.datasets.splits import LEFT_OUT
from escultor.ids import code_hash

LENGTHS = (0.0, 0.05, 0.5, 0.95, 1.0)
PRIVATE = ("email", "phone", "card", "iban", "ip", "secret")
CardTable = tuple[str, list[str], list[list[str]]]  # title, heads, rows


def card(
    hash: str,
    name: str,
    curated: Curated,
    settings: Curation,
    model: QualityModel | None,
    rows: Iterable[CurationRow],
) -> dict[str, Any]:
    """All that is known of a version, in plain values."""
    described = _described(rows)
    licences = {source: settings.licences.get(source, "not stated") for source in curated.sources}
    removed: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for step in curated.steps:
        removed.update(step.removed)
        found.update(step.notes)
    return {
        "format": "card/1",
        "name": name,
        "hash": hash,
        "kind": curated.kind,
        "rows": curated.counts["train"],
        "held_out": curated.counts["held out"],
        "sources": {
            source: {"rows": n, "licence": licences[source]} for source, n in curated.sources.items()
        },
        "steps": [_step(step, settings) for step in curated.steps],
        "duplicates": {
            reason: removed[reason] for reason in ("exact duplicate", "near duplicate") if removed[reason]
        },
        "private": {
            kind: sum(n for what, n in (found + removed).items() if kind in what.split()) for kind in PRIVATE
        },
        "balance": {label: dict(counts.most_common()) for label, counts in curated.after.items()},
        "diversity": {
            "before": [asdict(each) for each in diversity_of(curated.before, settings.diversity)],
            "after": [asdict(each) for each in diversity_of(curated.after, settings.diversity)],
        },
        "quality": _quality(model or by_hand()),
        "split": curated.split,
        "warnings": list(curated.warnings),
        "settings": settings.model_dump(mode="json"),
        "code": code_hash(),
        **described,
    }


def _step(step: StepDone, settings: Curation) -> dict[str, Any]:
    return {
        "name": step.name,
        "before": step.before,
        "left": step.left,
        "removed": step.removed,
        "notes": step.notes,
        "examples": [asdict(each) for each in step.examples],
        "diversity": [asdict(each) for each in diversity_of(step.after, settings.diversity)],
    }


def _described(rows: Iterable[CurationRow]) -> dict[str, Any]:
    """Lengths, languages and subjects, in one pass."""
    words, learnt_words = array("I"), array("I")
    languages: Counter[str] = Counter()
    subjects: Counter[str] = Counter()
    for row in rows:
        words.append(len(full_text(row.item).split()))
        learnt_words.append(len(target_text(row.item).split()))
        languages[row.labels.get("language", "not looked at")] += 1
        if row.subject is not None:
            subjects[row.subject] += 1
    known = sum(subjects.values())
    return {
        "words": _quantiles(words),
        "words_learnt": _quantiles(learnt_words),
        "languages": dict(languages.most_common()),
        "subjects": {
            "known": len(subjects),
            "rows": known,
            "largest_share": max(subjects.values()) / known if known else None,
        },
    }


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    import numpy as np

    found = np.quantile(np.asarray(values), LENGTHS, method="nearest")
    return dict(zip(("min", "p5", "p50", "p95", "max"), map(int, found), strict=True))


def _quality(model: QualityModel) -> dict[str, Any]:
    heads = ("feature", "mean", "scale", "weight")
    return {
        "ratings": model.ratings,
        "bias": model.bias,
        "weights": [dict(zip(heads, row, strict=True)) for row in as_table(model)],
        "calibration": asdict(model.calibration) if model.calibration else None,
    }


# --- as text ------------------------------------------------------------------------------------


def tables(card: dict[str, Any]) -> Iterator[CardTable]:
    """What a card shows, table by table; Markdown and HTML show the same."""
    if "feedback" in card:
        yield from feedback_tables(card["feedback"])
    else:
        yield from _curated_tables(card)


def _curated_tables(card: dict[str, Any]) -> Iterator[CardTable]:
    yield (
        "Sources",
        ["Source", "Rows", "Licence"],
        [[name, f"{s['rows']:,}", s["licence"]] for name, s in card["sources"].items()],
    )
    yield (
        "Steps",
        ["Step", "Rows in", "Rows out", "Left out, and changed"],
        [
            [s["name"], f"{s['before']:,}", f"{s['left']:,}", _counted(s["removed"] | s["notes"])]
            for s in card["steps"]
        ],
    )
    before = {each["label"]: LabelDiversity(**each) for each in card["diversity"]["before"]}
    yield (
        "Diversity",
        ["Label", "Values before", "Values", "Missing", "Entropy before", "Entropy", "Largest"],
        [_spread_row(before[each["label"]], LabelDiversity(**each)) for each in card["diversity"]["after"]],
    )
    yield (
        "Diversity after each step: values, and entropy in bits",
        ["Step", *(each["label"] for each in card["diversity"]["before"])],
        [
            [step["name"], *(f"{each['values']} ({each['entropy']:.2f})" for each in step["diversity"])]
            for step in card["steps"]
        ],
    )
    yield from _balance_tables(card["balance"])
    yield (
        "Words",
        ["Of", "min", "p5", "p50", "p95", "max"],
        [
            [what, *(f"{n:,}" for n in card[key].values())]
            for what, key in (("a row", "words"), ("what is learnt", "words_learnt"))
        ],
    )
    yield "Languages", ["Language", "Rows"], [[name, f"{n:,}"] for name, n in card["languages"].items()]
    yield (
        "Private data",
        ["Kind", "Rows it was found in"],
        [[k, f"{n:,}"] for k, n in card["private"].items()],
    )
    yield from _quality_tables(card["quality"])


def _quality_tables(quality: dict[str, Any]) -> Iterator[CardTable]:
    yield (
        "Quality score",
        ["Feature", "Mean", "Scale", "Weight"],
        [
            [w["feature"], *(f"{w[key]:.3f}" for key in ("mean", "scale", "weight"))]
            for w in quality["weights"]
        ],
    )
    if quality["calibration"]:
        yield (
            "Reliability of the score",
            ["Score from", "Rows", "Mean score", "Share good"],
            [
                [f"{b['low']:.1f}", f"{b['rows']:,}", f"{b['score']:.3f}", f"{b['good']:.3f}"]
                for b in quality["calibration"]["bins"]
            ],
        )


def _balance_tables(balance: dict[str, dict[str, int]]) -> Iterator[CardTable]:
    for label, counts in balance.items():
        total = sum(counts.values())
        shown = list(counts.items())[:20]
        rest = total - sum(n for _, n in shown)
        more = [["all others", f"{rest:,}", f"{rest / total:.1%}"]] if rest else []
        yield (
            f"By {label}",
            [label, "Rows", "Share"],
            [[value, f"{n:,}", f"{n / total:.1%}"] for value, n in shown] + more,
        )


def _spread_row(before: LabelDiversity, now: LabelDiversity) -> list[str]:
    largest = f"{now.largest} {now.largest_share:.0%}"
    entropies = (f"{before.entropy:.2f}", f"{now.entropy:.2f}")
    return [now.label, str(before.values), str(now.values), str(now.missing), *entropies, largest]


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{why}: {n:,}" for why, n in counts.items()) or "–"


def lines(card: dict[str, Any]) -> Iterator[str]:
    """What a card says in sentences."""
    yield f"{card['rows']:,} rows of kind {card['kind']} to train on, {card['held_out']:,} held out."
    if "feedback" in card:
        yield from feedback_lines(card["feedback"])
    else:
        yield from _curated_lines(card)
    yield from _review_lines(card)
    yield from (f"Warning: {text}." for text in card.get("warnings", ()))


def examples(card: dict[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    """What steps left out: a step with how much that was, and some of it as reason, source and row."""
    for step in card.get("steps", ()):
        if step["examples"]:
            rows = [[e["reason"], e["source"], e["text"]] for e in step["examples"]]
            yield f"{step['name']}: {step['before'] - step['left']:,} rows", rows


def _curated_lines(card: dict[str, Any]) -> Iterator[str]:
    split = card["split"]
    if card["held_out"]:
        tainted = split[LEFT_OUT]
        yield (
            f"Held out by {split['by']}, near-duplicate prompts together ({split['clusters']:,} clusters); "
            f"{tainted:,} rows left out because their prompt is held out."
        )
    subjects = card["subjects"]
    if subjects["known"]:
        yield f"{subjects['known']:,} subjects; the largest has {subjects['largest_share']:.1%} of rows."
    else:
        yield "No row names a subject."
    quality = card["quality"]
    if quality["calibration"] is None:
        yield "The quality score's weights were set by hand: it orders rows, and is no probability."
    else:
        c = quality["calibration"]
        yield (
            f"The quality score was fitted to {quality['ratings']:,} ratings. On ratings it had not seen: "
            f"AUC {c['auc']:.3f}, Brier {c['brier']:.3f}, expected calibration error {c['ece']:.3f}."
        )


def _review_lines(card: dict[str, Any]) -> Iterator[str]:
    """What people looked at of this version, and of the one that it was made of."""
    before, review = card.get("review_before"), card.get("review")
    if before:
        text = reviewed_line(before, before["of"])
        yield f"Made of version {card['reviewed_from'][:12]} by its review, without what was rejected. {text}"
    if not before or (review and review["rows"]):
        yield reviewed_line(review, card["rows"])


def reviewed_line(review: dict[str, Any] | None, rows: int) -> str:
    """How much a person looked at, and what follows from it."""
    if not review or not review["rows"]:
        return "No row was reviewed by a person."
    text = f"{review['rows']:,} of {rows:,} rows ({review['rows'] / rows:.1%}) were reviewed by a person."
    if not review["sampled"]:
        return f"{text} None of them was drawn by chance, so that no rate follows."
    return (
        f"{text} Defects: {review['rate']:.1%}, 95 % interval {review['low']:.1%} to {review['high']:.1%}, "
        f"from {review['sampled']:,} rows drawn by chance."
    )


def markdown(card: dict[str, Any]) -> str:
    """The card as Markdown."""
    out = [f"# {card['name']}", "", f"`{card['hash']}`", "", *(f"- {line}" for line in lines(card))]
    for title, heads, rows in tables(card):
        out += ["", f"## {title}", "", _row(heads), _row(["---"] * len(heads)), *map(_row, rows)]
    if left := list(examples(card)):
        out += ["", "## Examples of what was left out", ""]
        out += [
            f"- {step}, {reason}, {source}: {_escaped(text)}"
            for step, rows in left
            for reason, source, text in rows
        ]
    return "\n".join(out) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    for mark in "\\`*_|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")
