"""One self-contained page about a turn of the loop. Pure: a `Report` in, HTML out.

No script, no request, no clock: the same report gives the same page, byte for byte.
"""

from __future__ import annotations

from escultor.evaluate.report import sections
from escultor.evaluate.report.parts import (
    Curve,
    LoopStep,
    Report,
    ReportSample,
    SampleAnswer,
    VersionRow,
    text_table,
)
from escultor.evaluate.report.style import STYLESHEET
from escultor.model.heatmap import safe_text

__all__ = [
    "Curve",
    "LoopStep",
    "Report",
    "ReportSample",
    "SampleAnswer",
    "VersionRow",
    "document",
    "render",
    "text_table",
]

_LEADS = {
    "loop": "One turn, step by step. A hollow number was taken from an earlier run of the same inputs.",
    "versions": "The best figure of each column is set in the accent colour.",
    "gate": "Candidate minus champion, in the direction in which more is better, with 95 % intervals. A "
    "filled point: shown better, or of a guard shown within the margin that the grey band allows; the small "
    "dot is the worst that its bound leaves possible.",
    "curves": "Each curve on its own scale.",
    "samples": "Held-out documents, with every version’s answer as it wrote it.",
}


def render(report: Report) -> str:
    """The page, as HTML text to be written in UTF-8. Raises DataError for a curve whose xs and ys differ
    in length."""
    parts = (
        sections.section("loop", "The turn", _LEADS["loop"], sections.loop(report.loop)),
        sections.section("versions", "Versions", _LEADS["versions"], sections.versions(report.versions)),
        sections.section("gate", "The gate", _LEADS["gate"], sections.gate(report.versions)),
        sections.section("curves", "Training", _LEADS["curves"], sections.curves(report.curves)),
        sections.section("samples", "Answers", _LEADS["samples"], sections.samples(report.samples)),
        sections.section("notes", "Notes", "", sections.notes(report.notes)),
    )
    body = "".join(part for part in parts if part)
    return document(report.title, report.generated, sections.headline(report.versions), body)


def document(title: str, generated: str, head: str, body: str) -> str:
    """A whole HTML document that loads nothing; `head` and `body` are HTML, the others plain text."""
    said = f'<p class="generated">{safe_text(generated)}</p>' if generated else ""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # The page may load nothing at all, whatever a text in it should manage to say.
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{safe_text(title)}</title>",
            f"<style>{STYLESHEET}</style></head>",
            "<body>",
            f"<header><h1>{safe_text(title)}</h1>{said}{head}</header>",
            f"<main>{body}</main>",
            "<footer>Made by Escultor. This page holds all its data and loads nothing.</footer>",
            "</body>",
            "</html>",
            "",
        ]
    )
