"""The page of a verdict as Markdown: tables, and effects drawn in characters."""

from __future__ import annotations

import math
import re

from escultor.evaluate.gate.decision_record import Regression
from escultor.evaluate.report.charts import holds, span
from escultor.evaluate.report.decision_page import Latencies, PageTable, Plot, VerdictPage
from escultor.evaluate.report.parts import milliseconds
from escultor.types import Effect

WIDTH = 41  # characters of a drawn effect
QUANTILES = (0.5, 0.9, 0.99)  # in place of the curve of latencies


def markdown(page: VerdictPage) -> str:
    """The page as text; the same page gives the same text."""
    lines = [f"# {page.word}: {_t(page.title)}", "", *(f"{_t(line)}  " for line in page.summary)]
    for part in page.parts:
        lines += ["", f"## {part.title}", ""]
        lines += [part.lead, ""] if part.lead else []
        for body in part.body:
            lines += [*_body(body, page.names), ""]
    return "\n".join(lines).rstrip() + "\n"


def _body(body: PageTable | Plot | Latencies | Regression | str, names: tuple[str, str]) -> list[str]:
    if isinstance(body, str):
        return [_t(body)]
    if isinstance(body, PageTable):
        return _table(body)
    if isinstance(body, Plot):
        return ["```", *_plot(body.effects), "```"]
    if isinstance(body, Regression):
        return _regression(body, names)
    rows = []
    for name, values in zip(body.names, body.values, strict=True):
        ordered = sorted(values)
        times = [ordered[min(math.ceil(q * len(ordered)) - 1, len(ordered) - 1)] for q in QUANTILES]
        rows.append((name, f"{len(values):,}", *map(milliseconds, times)))
    return _table(PageTable(("Latency", "Requests", *(f"p{100 * q:.0f}" for q in QUANTILES)), tuple(rows)))


def _table(table: PageTable) -> list[str]:
    rows = [table.heads, tuple("---" for _ in table.heads), *table.rows]
    return ["| " + " | ".join(_t(cell) for cell in row) + " |" for row in rows]


def _plot(effects: tuple[Effect, ...]) -> list[str]:
    """Each effect on its own scale: `│` nothing gained or lost, `░` the margin, `●` shown, `○` not."""
    width = max((len(e.metric) for e in effects), default=0)
    return [f"{e.metric.replace('`', ' '):{width}}  {_drawn(e)}" for e in effects]


def _drawn(e: Effect) -> str:
    low, high = span([e])

    def cell(value: float) -> int:
        return round((min(max(value, low), high) - low) / (high - low) * (WIDTH - 1))

    cells = [" "] * WIDTH
    for i in range(cell(-e.margin), cell(0)):
        cells[i] = "░"
    for i in range(cell(e.low), cell(e.high) + 1):
        cells[i] = "─"
    cells[cell(0)] = "│"
    cells[cell(e.difference)] = "●" if holds(e) else "○"
    return "".join(cells).rstrip()


def _regression(r: Regression, names: tuple[str, str]) -> list[str]:
    lines = [f"**{_t(r.item)}**: {_t(r.metric)} {r.champion:.3f} to {r.candidate:.3f}"]
    for name, text in (("Prompt", r.prompt), *zip(names, r.shown, strict=False)):
        if text:
            fence = "`" * max([3, *(1 + len(run) for run in re.findall("`+", text))])
            lines += ["", f"{_t(name)}:", "", fence, text, fence]
    return lines


def _t(text: str) -> str:
    """Text that cannot end a cell, open markup or begin a block."""
    return re.sub(r"([|`<*_\[\]\\])", r"\\\1", " ".join(text.split()))
