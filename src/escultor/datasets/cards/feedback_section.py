"""How a card shows its section on feedback (`card["feedback"]`): sentences and tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def feedback_lines(section: dict[str, Any]) -> Iterator[str]:
    """The section's sentences."""
    kinds = _kinds(section)
    yield from (f"{line}." for line in section.get("advice", ()))
    pair, unpaired = kinds["pair"], kinds["unpaired"]
    if pair["rows"]:
        yield (
            f"Pairs: mean flip rate {pair['mean_flip_rate']:.3f}; chosen answers are longer by "
            f"{pair['mean_length_gap_characters']:+.0f} characters in the mean, longer in "
            f"{pair['chosen_longer_share']:.0%}."
        )
    if unpaired["rows"]:
        sides = "; ".join(f"{skill}: {u:,} / {d:,}" for skill, (u, d) in unpaired["up_down_by_skill"].items())
        yield f"Good / bad by skill: {sides}."
    alpha = section["agreement_alpha"]
    agreement = "not measurable" if alpha is None else f"{alpha:.3f}"
    yield f"Agreement (Krippendorff's alpha, {section['answers_judged_by_several']:,} answers): {agreement}."
    yield from (f"Note: {note}." for note in section["notes"])
    yield f"Rules: {', '.join(section['rules'])}."


def feedback_tables(section: dict[str, Any]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, heads and rows of each table of the section."""
    kinds = _kinds(section)
    heads = ["Kind", "Rows", "Prompts", "End users", "Largest share", "Effective size", "Simulated"]
    rows = [
        [
            kind,
            *(f"{k[key]:,}" for key in ("rows", "prompts", "end_users")),
            f"{k['largest_end_user_share']:.1%}",
            *(f"{k[key]:,}" for key in ("effective_size", "simulated")),
        ]
        for kind, k in kinds.items()
    ]
    yield "From feedback", heads, rows
    rules = [[rule, kind, f"{n:,}"] for kind, k in kinds.items() for rule, n in k["rules"].items()]
    yield "Labelling rules", ["Rule", "Makes", "Rows"], rules
    counts = [[reason, f"{n:,}"] for reason, n in section["counts"].items() if n]
    yield "What made no item", ["Why", "Events or items"], counts
    if held := section["quarantine"]:
        yield "Held back", ["Rule", "Entries"], [[rule, f"{n:,}"] for rule, n in held.items()]


def _kinds(section: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The section's part on each kind; cards of earlier versions name kinds and rules otherwise."""
    return {
        "unpaired" if kind == "judged" else kind: {**part, "rules": part.get("rules", part.get("routes"))}
        for kind, part in section["kinds"].items()
    }
