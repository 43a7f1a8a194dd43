"""The page of a verdict as HTML: self-contained, nothing to load, the same bytes for the same page."""

from __future__ import annotations

from escultor.evaluate.gate.decision_record import Regression
from escultor.evaluate.report import sections
from escultor.evaluate.report.charts import share_chart
from escultor.evaluate.report.decision_page import Latencies, PagePart, PageTable, Plot, VerdictPage
from escultor.evaluate.report.page import document
from escultor.model.heatmap import safe_text as _t


def html(page: VerdictPage) -> str:
    """The page, as HTML text to be written in UTF-8."""
    first, *rest = page.summary
    more = "".join(f"<li>{_t(line)}</li>" for line in rest)
    head = (
        f'<p class="said">{sections.verdict(page.word)} <b>{_t(first)}</b></p>'
        f"{f'<ul class=notes>{more}</ul>' if more else ''}"
    )
    body = "".join(
        sections.section(part.anchor, part.title, _t(part.lead), _part(part, page.names))
        for part in page.parts
    )
    return document(page.title, "", head, body)


def _part(part: PagePart, names: tuple[str, str]) -> str:
    return "".join(_body(body, part.title, names) for body in part.body)


def _body(body: PageTable | Plot | Latencies | Regression | str, title: str, names: tuple[str, str]) -> str:
    if isinstance(body, str):
        return f'<p class="lead">{_t(body)}</p>'
    if isinstance(body, Plot):
        return sections.effects(title, body.effects)
    if isinstance(body, PageTable):
        return _table(body, title)
    if isinstance(body, Regression):
        return _regression(body, names)
    return f'<figure class="wide">{share_chart(body.names, body.values)}</figure>'


def _table(table: PageTable, title: str) -> str:
    head = "".join(f'<th scope="col">{_t(h)}</th>' for h in table.heads)
    rows = "".join(
        f'<tr><th scope="row">{_t(first)}</th>'
        + "".join(
            f'<td data-head="{_t(h)}">{_t(cell)}</td>' for h, cell in zip(table.heads[1:], cells, strict=True)
        )
        + "</tr>"
        for first, *cells in table.rows
    )
    kind = "plain pairs" if len(table.heads) == 2 else "plain"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_t(title)}"><table class="{kind}">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _regression(r: Regression, names: tuple[str, str]) -> str:
    prompt = f'<pre class="document" tabindex="0">{_t(r.prompt)}</pre>' if r.prompt else ""
    answers = "".join(
        f'<div class="answer"><h4>{_t(name)}</h4><pre>{_t(text)}</pre>'
        f'<p class="marks"><span>{_t(r.metric)} {value:.3f}</span></p></div>'
        for name, text, value in zip(names, r.shown, (r.champion, r.candidate), strict=False)
    )
    lost = f'<p class="caption">{_t(r.metric)} {r.champion:.3f} to {r.candidate:.3f}</p>'
    return (
        f'<article class="sample"><h3>{_t(r.item)}</h3>{lost}{prompt}'
        f'<div class="answers">{answers}</div></article>'
    )
