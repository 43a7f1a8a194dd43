"""The pages of a cycle run and of a verdict as HTML: self-contained, without scripts.

The same report gives the same page, byte for byte. The templates are in `templates/`; every text in them is
escaped, and characters that XML forbids are replaced (`escultor.model.heatmap.allowed_characters`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from escultor.evaluate.report import charts
from escultor.evaluate.report.decision_page import VerdictPage
from escultor.evaluate.report.parts import (
    COLUMNS,
    MISSING,
    Report,
    SampleAnswer,
    VersionRow,
    cells_of,
    columns_of,
    count,
    duration,
    share,
    shown,
)
from escultor.model.heatmap import allowed_characters
from escultor.types import Effect

_HEADLINE = ("brief", "valid", "field_accuracy", "entity", "bits_per_byte", "latency_p50_ms", "tokens_per_s")
_TILES = 4
_OWN_SCALE = frozenset(("perplexity", "nll", "latency", "latency_ms", "ttft_ms", "cost_usd")) | {
    column.key for column in COLUMNS if column.write is not share
}


class Panel(NamedTuple):
    """Effects that are drawn on one scale."""

    effects: list[Effect]
    scale: tuple[float, float]


def render(report: Report) -> str:
    """The page of a cycle run, as HTML text to be written in UTF-8.

    Raises DataError for a curve whose xs and ys differ in length.
    """
    columns, versions = columns_of(report.versions), report.versions
    rows = [
        (row, list(zip(columns, cells, strict=True)))
        for row, cells in zip(versions, cells_of(versions), strict=True)
    ]
    computed = [s.seconds for s in report.loop if s.seconds is not None and not s.reused]
    samples = [
        {"prompt": s.prompt, "gold": s.gold, "answers": [SampleAnswer(*answer) for answer in s.answers]}
        for s in report.samples
    ]
    return _template("report.html").render(
        title=report.title,
        generated=report.generated,
        report={"loop": report.loop, "versions": versions, "curves": report.curves, "samples": samples}
        | {"notes": report.notes, "gain": report.gain},
        headline=_headline(versions),
        seconds=sum(computed) if computed else None,
        columns=columns,
        rows=rows,
        gate=[(row, panels(row.effects)) for row in versions if row.verdict or row.effects],
    )


def render_verdict(page: VerdictPage) -> str:
    """The page of a verdict, as HTML text to be written in UTF-8."""
    return _template("verdict.html").render(title=page.title, generated="", page=page)


def panels(effects: Sequence[Effect]) -> list[Panel]:
    """Effects by their scale: shares together, every other metric on its own."""
    by_scale: dict[str, list[Effect]] = {}
    for effect in effects:
        by_scale.setdefault(effect.metric if effect.metric in _OWN_SCALE else "", []).append(effect)
    return [Panel(each, charts.span(each)) for each in by_scale.values()]


def _headline(rows: Sequence[VersionRow]) -> dict[str, Any] | None:
    """The deployed version's main figures next to those of the first version."""
    now = next((row for row in rows if row.deployed), None)
    if now is None:
        return None
    before = None if rows[0] is now else rows[0]
    new, old = cells_of([now])[0], cells_of([rows[0]])[0]
    tiles = [
        {"column": column, "new": new[i].text, "old": old[i].text if before else ""}
        for i, column in enumerate(COLUMNS)
        if column.key in _HEADLINE and new[i].text != MISSING
    ]
    for tile in tiles:
        tile["old"] = "" if tile["old"] == MISSING else tile["old"]
    return {"now": now, "before": before, "tiles": tiles[:_TILES]}


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "−") + _number(abs(value))


@cache
def _template(name: str) -> Any:
    def finalize(value: Any) -> Any:
        return (
            allowed_characters(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        )

    environment = Environment(
        loader=PackageLoader("escultor.evaluate.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=finalize,
    )
    environment.globals |= {
        write.__name__: lambda value, write=write: shown(value, write) for write in (count, duration, share)
    }
    environment.globals |= {
        "charts": charts,
        "number": lambda value: shown(value, _number),
        "signed": lambda value: shown(value, _signed),
        "panels": panels,
        "kind": lambda value: type(value).__name__,
        "MISSING": MISSING,
    }
    return environment.get_template(name)
