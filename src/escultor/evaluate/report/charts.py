"""Geometry of the report's drawings: lines over a run, and effects with their intervals. The SVG markup is in
`templates/charts.html`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from escultor.errors import DataError
from escultor.evaluate.report.parts import Curve
from escultor.types import Effect

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 50, 16, 44  # margins
MAX_POINTS = 600  # of a line; beyond that its envelope is drawn
SMOOTHED_FROM = 60  # points, with which a running mean is drawn over the line

Points = list[tuple[float, float]]


class Axes(NamedTuple):
    """The ticks of a chart, and where its x axis ends."""

    x_ticks: list[float]
    y_ticks: list[float]
    x_end: float
    width: int = WIDTH

    def x(self, value: float) -> float:
        share = (min(value, self.x_end) - self.x_ticks[0]) / (self.x_end - self.x_ticks[0])
        return LEFT + share * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Points) -> str:
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in _envelope(points))


class LineChart(NamedTuple):
    label: str
    axes: Axes
    points: Points  # of the running mean where `window` is above 1
    raw: Points
    window: int  # points
    caption: str


def line_chart(curve: Curve) -> LineChart | None:
    """The drawing of a curve, with a running mean if it is long; None without finite values.

    Raises DataError when xs and ys differ in length.
    """
    if len(curve.xs) != len(curve.ys):
        got = f"{len(curve.xs)} xs, {len(curve.ys)} ys"
        raise DataError(f"curve {curve.name!r} does not fit together", got, "one y for each x")
    points = [p for p in zip(curve.xs, curve.ys, strict=True) if all(map(math.isfinite, p))]
    if not points:
        return None
    window = max(1, len(points) // 40) if len(points) > SMOOTHED_FROM else 1
    main = running_mean(points, window) if window > 1 else points
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_ticks = ticks(min(xs), max(xs), 4)
    x_end = max(xs) if max(xs) > x_ticks[0] else x_ticks[-1]  # the line ends where the run ended
    axes = Axes([x for x in x_ticks if x <= x_end], ticks(min(ys), max(ys), 4), x_end)
    first, last = f"{main[0][1]:.3g}", f"{main[-1][1]:.3g}"
    label = f"{curve.name}: from {first} to {last} {curve.unit} over {tick(points[-1][0])} {curve.x_label}"
    notes = [f"{len(points):,} points" if len(points) > 1 else "1 point"]
    notes += [f"line: mean of the last {window}"] if window > 1 else []
    left_out = len(curve.ys) - len(points)
    notes += [f"{left_out} left out, not finite"] if left_out else []
    return LineChart(label, axes, main, points, window, caption="; ".join(notes))


def share_axes(values: tuple[Sequence[float], Sequence[float]]) -> Axes:
    """Axes for the share of requests answered within a time, in milliseconds, for two versions.

    The axis ends where 99.5 % of the slower one's are answered: single stragglers would squeeze the rest.
    """
    ordered = [sorted(each) for each in values]
    end = max(each[min(math.ceil(0.995 * len(each)), len(each)) - 1] for each in ordered)
    x_ticks = ticks(0.0, end, 5)
    return Axes(x_ticks, [0.0, 25.0, 50.0, 75.0, 100.0], x_ticks[-1], 2 * WIDTH)


def share_points(values: Sequence[float]) -> Points:
    """The percentage of values up to each of them."""
    return [(0.0, 0.0), *((v, 100 * (i + 1) / len(values)) for i, v in enumerate(sorted(values)))]


def running_mean(points: Points, window: int) -> Points:
    """At each point the mean of it and the `window` - 1 before it (fewer at the beginning)."""
    means, total = [], 0.0
    for i, (x, y) in enumerate(points):
        total += y - (points[i - window][1] if i >= window else 0.0)
        means.append((x, total / min(i + 1, window)))
    return means


def _envelope(points: Points) -> Points:
    """A long line thinned out: of every few neighbours the lowest and the highest, in their order."""
    if len(points) <= MAX_POINTS:
        return points
    size, thinned = math.ceil(2 * len(points) / MAX_POINTS), points[:1]
    for start in range(1, len(points) - 1, size):
        group = points[start : min(start + size, len(points) - 1)]
        thinned += sorted({min(group, key=lambda p: p[1]), max(group, key=lambda p: p[1])})
    return [*thinned, points[-1]]


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
    """Whether the gate found the metric better, or within its margin."""
    return effect.state in ("better", "kept")


def percent(value: float, scale: tuple[float, float]) -> str:
    """The place of a value on a scale, cut at its ends."""
    low, high = scale
    return f"{100 * (max(low, min(high, value)) - low) / (high - low):.2f}%"


def axis_marks(scale: tuple[float, float]) -> list[tuple[str, str, str]]:
    """Place, alignment and text of the round numbers on a scale of effects."""
    marks = []
    for value in (v for v in ticks(*scale, 4) if scale[0] <= v <= scale[1]):
        share = (value - scale[0]) / (scale[1] - scale[0])
        anchor = "start" if share < 0.06 else "end" if share > 0.94 else "middle"
        marks.append((percent(value, scale), anchor, ("+" if value > 1e-12 else "") + tick(value)))
    return marks


def is_finite(*values: float | None) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


class RingPoint(NamedTuple):
    """A place on a ring around (0, 0): of its node, and of the text beside it."""

    x: float
    y: float
    text_x: float
    text_y: float
    anchor: str


def ring(n: int, radius: float = 100.0, gap: float = 22.0) -> list[RingPoint]:
    """`n` places on a ring, clockwise from the top."""
    points = []
    for k in range(n):
        angle = 2 * math.pi * (k + 0.5) / n - math.pi / 2
        x, y = math.cos(angle), math.sin(angle)
        anchor = "middle" if abs(x) < 0.2 else "start" if x > 0 else "end"
        beside = (radius + (gap if anchor != "middle" else 2 * gap if y < 0 else 1.5 * gap)) * y
        points.append(RingPoint(radius * x, radius * y, (radius + gap) * x, beside, anchor))
    return points
