"""The report's drawings as inline SVG: lines over a run, and the gate's effects with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from escultor.errors import DataError
from escultor.evaluate.report.parts import Curve
from escultor.model.heatmap import safe_text
from escultor.types import Effect

WIDE, HIGH = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 50, 16, 44
DRAWN = 600  # points of a line at most; beyond that its envelope is drawn
SMOOTHED = 60  # points from which on a running mean is drawn over the line

Points = list[tuple[float, float]]
ToPixel = Callable[[float, float], tuple[float, float]]


# --- lines ------------------------------------------------------------------------------------


def line_chart(curve: Curve) -> str:
    """The curve with axes and its last value written at its end. Long noisy ones get a running mean.

    Raises DataError when xs and ys differ in length.
    """
    if len(curve.xs) != len(curve.ys):
        raise DataError(
            f"curve {curve.name!r} does not fit together",
            f"{len(curve.xs)} xs, {len(curve.ys)} ys",
            "one y for each x",
        )
    points = [p for p in zip(curve.xs, curve.ys, strict=True) if all(map(math.isfinite, p))]
    if not points:
        return '<p class="none">No values were recorded.</p>'
    window = max(1, len(points) // 40) if len(points) > SMOOTHED else 1
    mean = running_mean(points, window)
    main = mean if window > 1 else points
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points), 4)
    x_low, x_high = x_ticks[0], max(x for x, _ in points)  # the line ends where the run ended
    x_high = x_high if x_high > x_low else x_ticks[-1]
    x_ticks = [x for x in x_ticks if x <= x_high]
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points), 4)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + across * (WIDE - LEFT - RIGHT), HIGH - BOTTOM - up * (HIGH - TOP - BOTTOM)

    end_x, end_y = at(*main[-1])
    last = f"{main[-1][1]:.3g}"
    unit, x_label, name = safe_text(curve.unit), safe_text(curve.x_label), safe_text(curve.name)
    said = f"{name}: from {main[0][1]:.3g} to {last} {unit} over {tick(points[-1][0])} {x_label}"
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{said}">',
        *_axes(x_ticks, y_ticks, at),
        f'<text class="soft" x="{WIDE - RIGHT}" y="{HIGH - 6}" text-anchor="end">{x_label}</text>',
    ]
    if window > 1:
        parts.append(f'<path class="raw" d="{_path(_thin(points), at)}"/>')
    parts += [
        f'<path class="line" d="{_path(_thin(main), at)}"/>',
        f'<circle class="dot" cx="{end_x:.1f}" cy="{end_y:.1f}" r="3.5"/>',
        f'<text class="value" x="{end_x + 8:.1f}" y="{end_y + 4:.1f}">{last}</text>',
        "</svg>",
    ]
    return "".join(parts) + _caption(len(points), len(curve.ys), window)


def share_chart(names: tuple[str, str], values: tuple[Sequence[float], Sequence[float]]) -> str:
    """Share of requests answered within a time, in milliseconds, for two versions; the second is accented.

    The axis ends where 99.5 % of the slower one's are answered: single stragglers would squeeze the rest.
    """
    ordered = [sorted(each) for each in values]
    far = max(each[min(math.ceil(0.995 * len(each)), len(each)) - 1] for each in ordered)
    x_ticks, y_ticks = ticks(0.0, far, 5), [0.0, 25.0, 50.0, 75.0, 100.0]
    wide = 2 * WIDE

    def at(x: float, y: float) -> tuple[float, float]:
        across = min(x, x_ticks[-1]) / x_ticks[-1]
        return LEFT + across * (wide - LEFT - RIGHT), HIGH - BOTTOM - y / 100 * (HIGH - TOP - BOTTOM)

    parts = [
        f'<svg class="chart" viewBox="0 0 {wide} {HIGH}" role="img" '
        f'aria-label="Share of requests answered in time: {safe_text(names[0])}, {safe_text(names[1])}">',
        *_axes(x_ticks, y_ticks, at, wide),
        f'<text class="soft" x="{wide - RIGHT}" y="{HIGH - 6}" text-anchor="end">milliseconds</text>',
    ]
    for kind, name, each, y in zip(("old", "line"), names, ordered, (30, 48), strict=True):
        points = [(0.0, 0.0), *((v, 100 * (i + 1) / len(each)) for i, v in enumerate(each))]
        parts.append(f'<path class="{kind}" d="{_path(_thin(points), at)}"/>')
        where = f'x="{wide - RIGHT - 8}" y="{HIGH - BOTTOM - y + 12}" text-anchor="end"'
        parts.append(f'<text class="key {kind}" {where}>{safe_text(name)}, {len(each):,} requests</text>')
    return "".join((*parts, "</svg>"))


def _axes(x_ticks: list[float], y_ticks: list[float], at: ToPixel, wide: int = WIDE) -> list[str]:
    found = []
    for y in y_ticks:
        height = at(x_ticks[0], y)[1]
        found.append(f'<path class="grid" d="M{LEFT} {height:.1f}H{wide - RIGHT}"/>')
        found.append(
            f'<text class="soft" x="{LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{tick(y)}</text>'
        )
    for x in x_ticks:
        place = f'x="{at(x, y_ticks[0])[0]:.1f}" y="{HIGH - BOTTOM + 18}"'
        found.append(f'<text class="soft" {place} text-anchor="middle">{tick(x)}</text>')
    return found


def _caption(points: int, given: int, window: int) -> str:
    words = [f"{points:,} points"] if points > 1 else ["1 point"]
    if window > 1:
        words.append(f"line: mean of the last {window}")
    if given > points:
        words.append(f"{given - points} left out, not finite")
    return f'<p class="caption">{"; ".join(words)}</p>'


def running_mean(points: Points, window: int) -> Points:
    """At each point the mean of it and the `window` - 1 before it (fewer at the beginning)."""
    found, total = [], 0.0
    for i, (x, y) in enumerate(points):
        total += y - (points[i - window][1] if i >= window else 0.0)
        found.append((x, total / min(i + 1, window)))
    return found


def _thin(points: Points) -> Points:
    """The line's envelope: of every few neighbours the lowest and the highest, in their order."""
    size = math.ceil(2 * len(points) / DRAWN)
    if len(points) <= DRAWN:
        return points
    found = points[:1]
    for start in range(1, len(points) - 1, size):
        group = points[start : min(start + size, len(points) - 1)]
        found += sorted({min(group, key=lambda p: p[1]), max(group, key=lambda p: p[1])})
    return [*found, points[-1]]


def _path(points: Points, at: ToPixel) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*p) for p in points))


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers at equal steps that enclose [low, high]; at least two."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * k for k in (1, 2, 2.5, 5, 10) if size * k >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def tick(value: float) -> str:
    """A round number as an axis writes it, with a true minus sign."""
    if abs(value) < 1e-12:
        return "0"
    size, unit = next((s for s in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if abs(value) >= s[0]), (1.0, ""))
    return f"{value / size:.3g}{unit}".replace("-", "−")


# --- effects ----------------------------------------------------------------------------------


def span(effects: Sequence[Effect]) -> tuple[float, float]:
    """The common scale of these effects: all intervals, margins and 0, with a little room."""
    values = [0.0]
    for e in effects:
        bound = e.difference if e.bound is None else e.bound
        values += [v for v in (e.low, e.high, e.difference, -e.margin, bound) if math.isfinite(v)]
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def holds(effect: Effect) -> bool:
    """Whether the gate found what the metric is asked for: better, or within its margin."""
    return effect.state in ("better", "kept")


def effect_bar(effect: Effect, scale: tuple[float, float]) -> str:
    """One effect on a common scale: the interval as a bar, the loss that a guard allows as a band, and the
    worst that its bound leaves possible as a mark below."""

    def at(value: float) -> str:
        return f"{100 * (max(scale[0], min(scale[1], value)) - scale[0]) / (scale[1] - scale[0]):.2f}%"

    parts = ['<svg class="effect" width="100%" height="30" aria-hidden="true" focusable="false">']
    if effect.margin > 0:
        wide = f"{100 * effect.margin / (scale[1] - scale[0]):.2f}%"
        parts.append(f'<rect class="allowed" x="{at(-effect.margin)}" y="4" width="{wide}" height="22"/>')
        parts.append(
            f'<line class="margin" x1="{at(-effect.margin)}" x2="{at(-effect.margin)}" y1="4" y2="26"/>'
        )
    parts.append(f'<line class="zero" x1="{at(0)}" x2="{at(0)}" y1="0" y2="30"/>')
    if all(map(math.isfinite, (effect.low, effect.high, effect.difference))):
        kind = "shown" if holds(effect) else "open"
        ends = (f'<line x1="{at(v)}" x2="{at(v)}" y1="10" y2="20"/>' for v in (effect.low, effect.high))
        parts.append(
            f'<g class="{kind}"><line x1="{at(effect.low)}" x2="{at(effect.high)}" y1="15" y2="15"/>'
        )
        parts += [*ends, f'<circle cx="{at(effect.difference)}" cy="15" r="5"/></g>']
    if effect.bound is not None and math.isfinite(effect.bound):
        parts.append(f'<circle class="bound" cx="{at(effect.bound)}" cy="26" r="2.5"/>')
    return "".join((*parts, "</svg>"))


def effect_axis(scale: tuple[float, float]) -> str:
    """The scale's round numbers under its effects."""
    low, high = scale
    marks = [v for v in ticks(low, high, 4) if low <= v <= high]
    parts = ['<svg class="effect axis" width="100%" height="20" aria-hidden="true" focusable="false">']
    for value in marks:
        share = (value - low) / (high - low)
        anchor = "start" if share < 0.06 else "end" if share > 0.94 else "middle"
        text = f"+{tick(value)}" if value > 1e-12 else tick(value)
        parts.append(f'<text x="{100 * share:.2f}%" y="14" text-anchor="{anchor}">{text}</text>')
    return "".join((*parts, "</svg>"))
