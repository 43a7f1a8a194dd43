"""The parts of a report, and how its figures are written, on the page and in the terminal alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from escultor.types import Effect

MISSING = "–"


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version. `figures` are keyed as `COLUMNS` (shares from 0 to 1; `win_rate` with `win_rate_low` and
    `win_rate_high`); None or a number that is not finite is missing."""

    name: str
    parameters: int | None
    figures: Mapping[str, float | None] = field(default_factory=dict)
    verdict: str = ""  # Promote, Hold, Reject; empty without a comparison
    reason: str = ""
    deployed: bool = False
    effects: tuple[Effect, ...] = ()  # the evidence of the verdict
    page: str = ""  # the verdict's own page, relative to the report's folder; empty: none


@dataclass(frozen=True, slots=True)
class Curve:
    """A line over a run, such as the training loss by tokens; `unit` is that of ys."""

    name: str
    unit: str
    x_label: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]


class SampleAnswer(NamedTuple):
    version: str
    text: str
    valid: bool
    score: float | None  # 0 to 1


@dataclass(frozen=True, slots=True)
class ReportSample:
    """A held-out document, its gold answer, and the answer of each version."""

    prompt: str
    gold: str
    answers: tuple[SampleAnswer, ...]


@dataclass(frozen=True, slots=True)
class LoopStep:
    """One stage of the demo; `reused`: taken from an earlier run of the same inputs."""

    name: str
    text: str
    seconds: float | None
    reused: bool = False


class CycleTurn(NamedTuple):
    """What one cycle run changed, in words; `kept`: it was deployed."""

    name: str
    change: str
    text: str
    kept: bool


class BeforeAfter(NamedTuple):
    """One answer before and after, in a line each."""

    about: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class LoopGain:
    """What the loop gained: the first screen of the page."""

    measure: str  # what the figures are of, in one sentence
    before: str
    after: str
    change: str  # with its interval
    names: tuple[str, str]  # of the versions before and after
    turns: tuple[CycleTurn, ...]
    answers: tuple[BeforeAfter, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    title: str
    generated: str  # when and by what, in words
    versions: tuple[VersionRow, ...] = ()
    curves: tuple[Curve, ...] = ()
    samples: tuple[ReportSample, ...] = ()
    notes: tuple[str, ...] = ()
    loop: tuple[LoopStep, ...] = ()
    gain: LoopGain | None = None


# --- figures ----------------------------------------------------------------------------------


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def milliseconds(value: float) -> str:
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"


def dollars(value: float) -> str:
    """Two significant digits below a dollar, without an exponent."""
    if value >= 1 or value <= 0:
        return f"${value:,.2f}"
    return f"${value:.{1 - math.floor(math.log10(value))}f}"


def count(value: float) -> str:
    """A count in about three digits: 950, 4.2 M, 1.1 B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.0f} {unit}" if abs(scaled) >= 99.95 else f"{scaled:.3g} {unit}"
    return f"{value:g}"


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def shown(value: float | None, write: Callable[[float], str]) -> str:
    """The figure as text, or an en dash where there is none."""
    return MISSING if value is None or not math.isfinite(value) else write(value)


@dataclass(frozen=True, slots=True)
class ReportColumn:
    key: str
    head: str
    unit: str
    better: Literal["higher", "lower"] | None
    write: Callable[[float], str]


COLUMNS = (
    ReportColumn("brief", "Liked", "of answers", "higher", share),
    ReportColumn("valid", "Valid", "of answers", "higher", share),
    ReportColumn("field_accuracy", "Fields", "right", "higher", share),
    ReportColumn("entity", "Entity", "exact", "higher", share),
    ReportColumn("rouge_l", "ROUGE-L", "of summary", "higher", share),
    ReportColumn("bits_per_byte", "Bits", "per byte", "lower", lambda v: f"{v:.3f}"),
    ReportColumn("win_rate", "Wins", "of comparisons", "higher", share),
    ReportColumn("latency_p50_ms", "Latency", "median", "lower", milliseconds),
    ReportColumn("latency_p99_ms", "Latency", "p99", "lower", milliseconds),
    ReportColumn(
        "tokens_per_s", "Speed", "tokens/s", "higher", lambda v: f"{v:,.0f}" if v >= 100 else f"{v:.1f}"
    ),
    ReportColumn("cost_usd_per_1k_tokens", "Cost", "per 1k tokens", "lower", dollars),
)
_INTERVAL = ("win_rate_low", "win_rate_high")


@dataclass(frozen=True, slots=True)
class ReportCell:
    text: str
    interval: str = ""
    best: bool = False


def columns_of(rows: Sequence[VersionRow]) -> tuple[ReportColumn, ...]:
    """The standard columns, then one for every other figure of a row, in order of appearance."""
    known = {*(column.key for column in COLUMNS), *_INTERVAL}
    more = dict.fromkeys(key for row in rows for key in row.figures if key not in known)
    return *COLUMNS, *(ReportColumn(k, k.replace("_", " "), "", None, lambda v: f"{v:.4g}") for k in more)


def cells_of(rows: Sequence[VersionRow]) -> list[list[ReportCell]]:
    """Per row, one cell per column. The best of a column is marked where versions differ as written."""
    table = [[_cell(column, row) for column in columns_of(rows)] for row in rows]
    for index, column in enumerate(columns_of(rows)):
        figures = [row.figures.get(column.key) for row in rows]
        figures = [value for value in figures if value is not None and math.isfinite(value)]
        if column.better is None or len({line[index].text for line in table} - {MISSING}) < 2:
            continue
        best = column.write(max(figures) if column.better == "higher" else min(figures))
        for line in table:
            if line[index].text == best:
                line[index] = replace(line[index], best=True)
    return table


def _cell(column: ReportColumn, row: VersionRow) -> ReportCell:
    text = shown(row.figures.get(column.key), column.write)
    interval = ""
    if column.key == "win_rate" and text != MISSING:
        low, high = (shown(row.figures.get(key), lambda v: f"{100 * v:.1f}") for key in _INTERVAL)
        interval = "" if MISSING in (low, high) else f"[{low}, {high}]"
    return ReportCell(text, interval)


def text_table(rows: Sequence[VersionRow], transposed: bool = False) -> list[list[str]]:
    """The report's table as text: a line of headings, then one line per version; the best of a column
    begins with `* `. `transposed` exchanges lines and columns, for narrow terminals."""
    heads = ["Version", "Parameters", *(f"{c.head} {c.unit}".strip() for c in columns_of(rows)), "Verdict"]
    lines = [heads]
    for row, cells in zip(rows, cells_of(rows), strict=True):
        figures = [("* " if c.best else "") + f"{c.text} {c.interval}".strip() for c in cells]
        name = f"{row.name} (deployed)" if row.deployed else row.name
        lines.append([name, shown(row.parameters, count), *figures, row.verdict or MISSING])
    return [list(line) for line in zip(*lines, strict=True)] if transposed else lines
