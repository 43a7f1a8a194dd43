"""The report's sections: nouns in, HTML out. Every text of theirs passes through `safe_text`."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from escultor.evaluate.report.charts import effect_axis, effect_bar, holds, line_chart, span
from escultor.evaluate.report.parts import (
    COLUMNS,
    MISSING,
    Curve,
    LoopStep,
    ReportCell,
    ReportColumn,
    ReportSample,
    SampleAnswer,
    VersionRow,
    cells_of,
    columns_of,
    count,
    duration,
    share,
    shown,
)
from escultor.model.heatmap import safe_text as _t
from escultor.types import Effect

_HEADLINE = ("valid", "field_accuracy", "entity", "bits_per_byte", "latency_p50_ms", "tokens_per_s")
_SHAPES = {"Promote": "↑", "Hold": "=", "Reject": "×"}


def section(anchor: str, title: str, lead: str, body: str) -> str:
    """A titled section, or nothing where there is no body."""
    if not body:
        return ""
    intro = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{_t(title)}</h2>{intro}{body}</section>'


# --- the turn ---------------------------------------------------------------------------------


def loop(steps: Sequence[LoopStep]) -> str:
    """The turn as a line of steps that leads back to its beginning."""
    if not steps:
        return ""
    spent = [s.seconds for s in steps if s.seconds is not None and not s.reused]
    total = f'<p class="caption">Run in this turn: {duration(sum(spent))}. </p>' if spent else ""
    items = "".join(_step(at, step) for at, step in enumerate(steps, 1))
    return f'<ol class="loop">{items}</ol><p class="round"><span>and round again</span></p>{total}'


def _step(at: int, step: LoopStep) -> str:
    time = shown(step.seconds, duration)
    state = "reused" if step.reused else time
    return (
        f'<li class="{"reused" if step.reused else "ran"}"><span class="node" aria-hidden="true">{at}</span>'
        f'<strong>{_t(step.name)}</strong><span class="time">{state}</span><p>{_t(step.text)}</p></li>'
    )


# --- figures ----------------------------------------------------------------------------------


def headline(rows: Sequence[VersionRow]) -> str:
    """The deployed version's main figures beside those of the first version."""
    now = next((row for row in rows if row.deployed), None)
    if now is None:
        return ""
    before = rows[0]
    new, old = cells_of([now])[0], cells_of([before])[0]
    tiles = []
    for at, column in enumerate(COLUMNS):
        if column.key not in _HEADLINE or new[at].text == MISSING or len(tiles) == 4:
            continue
        was = "" if before is now or old[at].text == MISSING else f"<span>was {_t(old[at].text)}</span>"
        name = f"{column.head} <small>{column.unit}</small>"
        tiles.append(f"<div><dt>{name}</dt><dd>{_t(new[at].text)}{was}</dd></div>")
    compared = "" if before is now else f"; its figures beside those of <strong>{_t(before.name)}</strong>"
    return (
        f'<p class="deployed"><b>{_t(now.name)}</b> answers now{compared}.</p>'
        f'<dl class="tiles">{"".join(tiles)}</dl>'
    )


def versions(rows: Sequence[VersionRow]) -> str:
    """The table of versions; on a narrow page each version becomes a card."""
    if not rows:
        return ""
    columns = columns_of(rows)
    head = "".join(
        f'<th scope="col" role="columnheader">{_t(c.head)}<small>{_t(c.unit)}</small></th>' for c in columns
    )
    lines = "".join(_version(row, columns, cells) for row, cells in zip(rows, cells_of(rows), strict=True))
    return (
        '<table class="versions" role="table"><caption class="sr">Figures by version</caption>'
        '<thead role="rowgroup"><tr role="row"><th scope="col" role="columnheader">Version'
        f'<small>parameters</small></th>{head}<th scope="col" role="columnheader">Verdict</th></tr></thead>'
        f'<tbody role="rowgroup">{lines}</tbody></table>'
    )


def _version(row: VersionRow, columns: Sequence[ReportColumn], cells: Sequence[ReportCell]) -> str:
    deployed = '<span class="tag">deployed</span>' if row.deployed else ""
    figures = "".join(_figure(column, cell) for column, cell in zip(columns, cells, strict=True))
    return (
        f'<tr role="row"{" class=now" if row.deployed else ""}><th scope="row" role="rowheader">'
        f"{_t(row.name)}{deployed}<small>{shown(row.parameters, count)}</small></th>{figures}"
        f'<td role="cell" class="judged" data-head="Verdict">{verdict(row.verdict)}</td></tr>'
    )


def _figure(column: ReportColumn, cell: ReportCell) -> str:
    text = f'<b>{_t(cell.text)}<span class="sr"> (best)</span></b>' if cell.best else _t(cell.text)
    interval = f"<small>{_t(cell.interval)}</small>" if cell.interval else ""
    name = _t(f"{column.head} {column.unit}".strip())
    return f'<td role="cell" data-head="{name}"><span>{text}{interval}</span></td>'


def verdict(word: str) -> str:
    """A verdict as a badge: its word, with a shape that does not rest on colour."""
    if not word:
        return f'<span class="none">{MISSING}</span>'
    kind = word.lower() if word in _SHAPES else "other"
    shape = f'<span aria-hidden="true">{_SHAPES[word]}</span> ' if word in _SHAPES else ""
    return f'<span class="verdict {kind}">{shape}{_t(word)}</span>'


# --- the gate ---------------------------------------------------------------------------------


def gate(rows: Sequence[VersionRow]) -> str:
    """Each verdict with its words and its effects."""
    return "".join(_judged(row) for row in rows if row.verdict or row.effects)


def _judged(row: VersionRow) -> str:
    reason = f'<p class="reason">{_t(row.reason)}</p>' if row.reason else ""
    whole = f'<p><a href="{quote(row.page)}">The whole verdict</a></p>' if row.page else ""
    return (
        f'<article class="judged"><h3>{_t(row.name)} {verdict(row.verdict) if row.verdict else ""}</h3>'
        f"{reason}{effects(row.name, row.effects)}{whole}</article>"
    )


def effects(name: str, effects: Sequence[Effect]) -> str:
    """Effects on one scale per unit: shares together, every other metric on its own."""
    panels: dict[str, list[Effect]] = {}
    for effect in effects:
        panels.setdefault(effect.metric if _own_scale(effect.metric) else "", []).append(effect)
    body = ""
    for panel in panels.values():
        scale = span(panel)
        body += "".join(_effect(effect, scale) for effect in panel)
        body += (
            '<tr role="row" class="scale"><td role="cell"></td>'
            f'<td role="cell">{effect_axis(scale)}</td><td role="cell"></td></tr>'
        )
    if not body:
        return ""
    head = "".join(
        f'<th scope="col" role="columnheader">{text}</th>'
        for text in ("Metric", '<span class="ends"><i>worse</i><i>better</i></span>', "Difference")
    )
    return (
        f'<table class="effects" role="table"><caption class="sr">Effects on {_t(name)}</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table>'
    )


def _own_scale(metric: str) -> bool:
    by_key = {column.key: column for column in COLUMNS}
    return metric in ("perplexity", "nll", "latency", "latency_ms", "ttft_ms", "cost_usd") or (
        metric in by_key and by_key[metric].write is not share
    )


def _effect(effect: Effect, scale: tuple[float, float]) -> str:
    role = f"guard, margin {effect.margin:g}" if effect.role == "guard" else effect.role
    state = "shown" if holds(effect) else "not shown"
    interval = f"[{shown(effect.low, _signed)}, {shown(effect.high, _signed)}]"
    path = f"{shown(effect.champion, _number)} → {shown(effect.candidate, _number)}, n = {effect.n:,}"
    difference = f'{shown(effect.difference, _signed)} <span class="soft">{interval}</span>'
    return (
        f'<tr role="row"><th scope="row" role="rowheader">{_t(effect.metric)}'
        f'<small>{role}</small></th><td role="cell">{effect_bar(effect, scale)}</td>'
        f'<td role="cell"><span>{difference}</span>'
        f'<small>{path}<span class="sr">, {state}</span></small></td></tr>'
    )


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "−") + _number(abs(value))


# --- curves, samples, notes -------------------------------------------------------------------


def curves(lines: Sequence[Curve]) -> str:
    """Small charts side by side, each on its own scale."""
    charts = "".join(
        f"<figure><figcaption>{_t(c.name)}<small>{_t(c.unit)}</small></figcaption>{line_chart(c)}</figure>"
        for c in lines
    )
    return f'<div class="curves">{charts}</div>' if charts else ""


def samples(items: Sequence[ReportSample]) -> str:
    """Each document, its gold answer, and the versions' answers side by side."""
    return "".join(_sample(at, sample) for at, sample in enumerate(items, 1))


def _sample(at: int, sample: ReportSample) -> str:
    gold = f'<div class="answer gold"><h4>Gold answer</h4><pre>{_t(sample.gold)}</pre></div>'
    answers = "".join(map(_answer, sample.answers))
    return (
        f'<article class="sample"><h3>Document {at}</h3><div class="given">'
        f'<pre class="document" role="region" tabindex="0" aria-label="Document {at}">'
        f'{_t(sample.prompt)}</pre>{gold}</div><div class="answers">{answers}</div></article>'
    )


def _answer(given: SampleAnswer | tuple[str, str, bool, float | None]) -> str:
    answer = SampleAnswer(*given)
    state = '<span class="ok">valid</span>' if answer.valid else '<span class="bad">not valid</span>'
    text = _t(answer.text) if answer.text else '<span class="none">(nothing)</span>'
    return (
        f'<div class="answer"><h4>{_t(answer.version)}</h4><pre>{text}</pre>'
        f'<p class="marks">{state}<span>score {shown(answer.score, share)}</span></p></div>'
    )


def notes(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{_t(line)}</li>" for line in lines)
    return f'<ul class="notes">{items}</ul>' if items else ""
