"""What a card shows: sentences and tables, as Markdown and as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from escultor.datasets.splits import LEFT_OUT

MAX_VALUES = 20  # of a label that are shown


class CardTable(NamedTuple):
    """A title, the heads of the columns, and rows of cells."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def card_markdown(card: dict[str, Any]) -> str:
    """The card as Markdown."""
    out = [f"# {card['name']}", "", f"`{card['hash']}`", "", *(f"- {text}" for text in card_sentences(card))]
    for title, heads, rows in card_tables(card):
        out += ["", f"## {title}", "", _row(heads), _row(["---"] * len(heads)), *map(_row, rows)]
    if examples := list(removed_examples(card)):
        out += ["", "## Examples of dropped rows", ""]
        out += [
            f"- {step}, {reason}, {source}: {_escape(text)}"
            for step, rows in examples
            for reason, source, text in rows
        ]
    return "\n".join(out) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escape, cells)) + " |"


def _escape(text: str) -> str:
    for mark in "\\`*_|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")


def card_page(card: dict[str, Any]) -> str:
    """The card as HTML. All text is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("escultor.datasets.cards")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("card.html").render(
        name=card["name"],
        hash=card["hash"],
        sentences=card_sentences(card),
        tables=card_tables(card),
        examples=list(removed_examples(card)),
    )


def removed_examples(card: dict[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    """Examples of dropped rows: a step with its number of them; reason, source and text of some."""
    for step in card.get("steps", ()):
        if step["examples"]:
            rows = [[e["reason"], e["source"], e["text"]] for e in step["examples"]]
            yield f"{step['name']}: {step['before'] - step['left']:,} rows", rows


# --- tables -------------------------------------------------------------------------------------


def card_tables(card: dict[str, Any]) -> Iterator[CardTable]:
    """The tables of a card."""
    if "feedback" in card:
        yield from feedback_tables(card["feedback"])
    elif "steps" in card:
        yield from _curation_tables(card)
        yield from _quality_tables(card["quality"])
    elif counts := {reason: n for reason, n in card.get("counts", {}).items() if n}:
        yield CardTable("Counts", ["What", "Rows"], _pairs(counts))


def _curation_tables(card: dict[str, Any]) -> Iterator[CardTable]:
    sources = [[name, f"{s['rows']:,}", s["licence"]] for name, s in card["sources"].items()]
    yield CardTable("Sources", ["Source", "Rows", "Licence"], sources)
    steps = [
        [s["name"], f"{s['before']:,}", f"{s['left']:,}", _counts(s["removed"] | s["notes"])]
        for s in card["steps"]
    ]
    yield CardTable("Steps", ["Step", "Rows in", "Rows out", "Dropped and changed"], steps)
    yield from _diversity_tables(card)
    for label, counts in card["balance"].items():
        total = sum(counts.values())
        values = list(counts.items())[:MAX_VALUES]
        if rest := total - sum(n for _, n in values):
            values.append(("all others", rest))
        rows = [[value, f"{n:,}", f"{n / total:.1%}"] for value, n in values]
        yield CardTable(f"By {label}", [label, "Rows", "Share"], rows)
    words = [
        [what, *(f"{n:,}" for n in card[key].values())]
        for what, key in (("the whole row", "words"), ("the target text", "words_learnt"))
    ]
    yield CardTable("Words", ["Of", "min", "p5", "p50", "p95", "max"], words)
    yield CardTable("Languages", ["Language", "Rows"], _pairs(card["languages"]))
    yield CardTable("Private data", ["Kind", "Rows in which it was found"], _pairs(card["private"]))


def _diversity_tables(card: dict[str, Any]) -> Iterator[CardTable]:
    diversity = card["diversity"]
    rows = [
        [
            new["label"],
            *(str(n) for n in (old["values"], new["values"], new["missing"])),
            *(f"{each['entropy']:.2f}" for each in (old, new)),
            f"{new['largest']} {new['largest_share']:.0%}",
        ]
        for old, new in zip(diversity["before"], diversity["after"], strict=True)
    ]
    heads = ["Label", "Values before", "Values", "Missing", "Entropy before", "Entropy", "Largest"]
    yield CardTable("Diversity", heads, rows)
    steps = [
        [step["name"], *(f"{each['values']} ({each['entropy']:.2f})" for each in step["diversity"])]
        for step in card["steps"]
    ]
    heads = ["Step", *(each["label"] for each in diversity["before"])]
    yield CardTable("Diversity after each step: values, and entropy in bits", heads, steps)


def _quality_tables(quality: dict[str, Any]) -> Iterator[CardTable]:
    keys = ("mean", "scale", "weight")
    rows = [[w["feature"], *(f"{w[key]:.3f}" for key in keys)] for w in quality["weights"]]
    yield CardTable("Quality score", ["Feature", "Mean", "Scale", "Weight"], rows)
    if quality["calibration"]:
        rows = [
            [f"{b['low']:.1f}", f"{b['rows']:,}", f"{b['score']:.3f}", f"{b['good']:.3f}"]
            for b in quality["calibration"]["bins"]
        ]
        heads = ["Score from", "Rows", "Mean score", "Share good"]
        yield CardTable("Reliability of the score", heads, rows)


def feedback_tables(section: dict[str, Any]) -> Iterator[CardTable]:
    """The tables of a card's section on feedback."""
    kinds = _feedback_kinds(section)
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
    yield CardTable("From feedback", heads, rows)
    rules = [[rule, kind, f"{n:,}"] for kind, k in kinds.items() for rule, n in k["rules"].items()]
    yield CardTable("Labelling rules", ["Rule", "Makes", "Rows"], rules)
    counts = {reason: n for reason, n in section["counts"].items() if n}
    yield CardTable("What made no item", ["Why", "Events or items"], _pairs(counts))
    if section["quarantine"]:
        yield CardTable("Held back", ["Rule", "Entries"], _pairs(section["quarantine"]))


def _feedback_kinds(section: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The section's part on each kind; cards of earlier versions name kinds and rules otherwise."""
    return {
        "unpaired" if kind == "judged" else kind: {**part, "rules": part.get("rules", part.get("routes"))}
        for kind, part in section["kinds"].items()
    }


def _pairs(counts: dict[str, int]) -> list[list[str]]:
    return [[name, f"{n:,}"] for name, n in counts.items()]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {n:,}" for reason, n in counts.items()) or "–"


# --- sentences ----------------------------------------------------------------------------------


def card_sentences(card: dict[str, Any]) -> Iterator[str]:
    """The sentences of a card."""
    yield f"{card['rows']:,} training rows of kind {card['kind']}, {card['held_out']:,} held out."
    if "feedback" in card:
        yield from feedback_lines(card["feedback"])
    elif "steps" in card:
        yield from _curation_sentences(card)
    yield from _review_sentences(card)
    yield from (f"Warning: {text}." for text in card.get("warnings", ()))


def _curation_sentences(card: dict[str, Any]) -> Iterable[str]:
    split, subjects, quality = card["split"], card["subjects"], card["quality"]
    if card["held_out"]:
        yield (
            f"Held out by {split['by']}, near-duplicate prompts together ({split['clusters']:,} clusters); "
            f"{split[LEFT_OUT]:,} rows left out because their prompt is held out."
        )
    if subjects["known"]:
        yield f"{subjects['known']:,} subjects; the largest has {subjects['largest_share']:.1%} of rows."
    else:
        yield "No row has a subject."
    if (c := quality["calibration"]) is None:
        yield "The quality score's weights were set by hand: it orders rows and is not a probability."
    else:
        yield (
            f"The quality score was fitted to {quality['ratings']:,} ratings. On ratings it had not seen: "
            f"AUC {c['auc']:.3f}, Brier {c['brier']:.3f}, expected calibration error {c['ece']:.3f}."
        )


def feedback_lines(section: dict[str, Any]) -> Iterator[str]:
    """The sentences of a card's section on feedback."""
    kinds = _feedback_kinds(section)
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


def _review_sentences(card: dict[str, Any]) -> Iterator[str]:
    """The review of this version, and that of the version it was made of."""
    before, review = card.get("review_before"), card.get("review")
    if before:
        text = review_sentence(before, before["of"])
        yield f"Made of version {card['reviewed_from'][:12]} by its review, without rejected rows. {text}"
    if not before or (review and review["rows"]):
        yield review_sentence(review, card["rows"])


def review_sentence(review: dict[str, Any] | None, rows: int) -> str:
    """How many rows a person reviewed, and the defect rate that follows."""
    if not review or not review["rows"]:
        return "No row was reviewed by a person."
    text = f"{review['rows']:,} of {rows:,} rows ({review['rows'] / rows:.1%}) were reviewed by a person."
    if not review["sampled"]:
        return f"{text} None of them was drawn at random, so that no rate follows."
    return (
        f"{text} Defects: {review['rate']:.1%}, 95 % interval {review['low']:.1%} to {review['high']:.1%}, "
        f"from {review['sampled']:,} rows drawn at random."
    )
