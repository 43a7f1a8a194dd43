"""A card as Markdown, and as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from escultor.datasets.cards.tables import card_sentences, card_tables, removed_examples


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
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


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
