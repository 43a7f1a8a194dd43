"""Attention weights as a heat map: one self-contained SVG without scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from escultor.errors import DataError

MOST = 128  # tokens; a larger map cannot be read
LABEL = 16  # characters of a label; the tooltip has the rest
TICKS = (0.0, 0.05, 0.2, 0.5, 1.0)

_LIGHT = {"paper": "#ffffff", "ink": "#1d1c1a", "soft": "#5f5b55", "line": "#e2ddd5", "heat": "#a8452b"}
_DARK = {"paper": "#1f1d1b", "ink": "#ece8e1", "soft": "#aaa49a", "line": "#3a3631", "heat": "#f0946f"}


def safe_text(text: str) -> str:
    """Text escaped for XML and HTML, attributes included, without the characters that XML forbids."""
    return escape(allowed_characters(text), quote=True)


def allowed_characters(text: str) -> str:
    """Text in which the characters that XML forbids are their control picture or U+FFFD."""
    return "".join(map(_allowed, text))


def _allowed(char: str) -> str:
    code = ord(char)
    if code < 32 and char not in "\t\n\r":
        return chr(0x2400 + code)
    return "\ufffd" if 0x7F <= code < 0xA0 or 0xD800 <= code <= 0xDFFF or code & 0xFFFE == 0xFFFE else char


def attention_svg(tokens: Sequence[str], weights: Sequence[Sequence[float]], title: str = "Attention") -> str:
    """A heat map of `weights` (T, T): row i is how much token i attends to each token.

    The shade is the square root of the weight, so that small weights can be distinguished; cells of exactly 0
    are left out. Every cell has a tooltip; colours follow the reader's light or dark scheme. Raises DataError
    unless the weights are T rows of T numbers from 0 to 1, with T from 1 to 128.
    """
    _check(tokens, weights)
    T = len(tokens)
    cell = max(13, min(44, 760 // T))
    font = max(9, min(13, cell - 4))
    labels = [token if len(token) <= LABEL else token[: LABEL - 1] + "…" for token in tokens]
    left = round(max(len(label) for label in labels) * font * 0.62) + 22
    top, side = 46, T * cell
    # Labels below lean over to the left by half their length.
    height = top + side + round(left * 0.88) + 62
    width = max(left + side + 24, 300, 36 + 9 * len(title))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="escultor-attention" role="img" '
        f'aria-label="{safe_text(title)}" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<style>{_style()}</style>",
        f'<rect class="paper" width="{width}" height="{height}" rx="10"/>',
        f'<text class="head" x="18" y="28">{safe_text(title)}</text>',
        *_cells(tokens, weights, cell, left, top),
        *_labels(tokens, labels, cell=cell, font=font, left=left, top=top),
        *_legend(18, height - 40),
        "</svg>",
    ]
    return "\n".join(parts)


def _check(tokens: Sequence[str], weights: Sequence[Sequence[float]]) -> None:
    T = len(tokens)
    if not 1 <= T <= MOST:
        raise DataError("a heat map of so many tokens cannot be read", T, f"1 to {MOST}", "show a part")
    if len(weights) != T or any(len(row) != T for row in weights):
        shape = f"{len(weights)} rows of {sorted({len(row) for row in weights})}"
        raise DataError("tokens and weights do not fit", f"{T} tokens, {shape}", f"{T} rows of {T}")
    if bad := [w for row in weights for w in row if not -1e-6 <= w <= 1 + 1e-6]:
        raise DataError(f"{len(bad)} weights are no shares", f"the first {bad[0]}", "0 to 1")


def _style() -> str:
    def rules(c: dict[str, str]) -> str:
        at = ".escultor-attention "
        return (
            f"{at}.paper,{at}.over{{fill:{c['paper']}}}{at}.head,{at}.under{{fill:{c['ink']}}}"
            f"{at}.label{{fill:{c['ink']}}}{at}.soft{{fill:{c['soft']}}}"
            f"{at}.frame{{stroke:{c['line']}}}{at}.c{{fill:{c['heat']}}}"
            f"{at}.c:hover{{stroke:{c['ink']}}}"
        )

    return (
        ".escultor-attention{max-width:100%;height:auto;"
        "font-family:ui-sans-serif,system-ui,'Segoe UI',Helvetica,Arial,sans-serif}"
        ".escultor-attention .label{font-family:ui-monospace,SFMono-Regular,Menlo,monospace}"
        ".escultor-attention .head{font-size:15px;font-weight:600}.escultor-attention .soft{font-size:11px}"
        ".escultor-attention .c:hover{stroke-width:2}.escultor-attention .frame{fill:none}"
        ".escultor-attention .over,.escultor-attention .under{pointer-events:none;text-anchor:middle}"
        f"{rules(_LIGHT)}@media (prefers-color-scheme:dark){{{rules(_DARK)}}}"
    )


def _cells(
    tokens: Sequence[str], weights: Sequence[Sequence[float]], cell: int, left: int, top: int
) -> list[str]:
    names = [safe_text(token) for token in tokens]
    elements = []
    for i, row in enumerate(weights):
        for j, weight in enumerate(row):
            if weight == 0:
                continue
            x, y, shade = left + j * cell, top + i * cell, _shade(weight)
            box = f'x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" rx="{2 if cell < 24 else 3}"'
            tip = f"<title>{names[i]} attends to {names[j]}: {weight:.4f}</title>"
            elements.append(f'<rect class="c" {box} fill-opacity="{shade:.3f}">{tip}</rect>')
            if cell >= 34 and weight >= 0.005:
                tone = "over" if shade > 0.62 else "under"
                at = f'x="{x + (cell - 1) / 2:g}" y="{y + cell / 2 + 3.5:g}"'
                short = "1" if weight >= 0.995 else f"{weight:.2f}".removeprefix("0")
                elements.append(f'<text class="{tone}" {at} font-size="11">{short}</text>')
    return elements


def _shade(weight: float) -> float:
    return math.sqrt(max(0.0, min(1.0, weight)))


def _labels(
    tokens: Sequence[str], labels: list[str], *, cell: int, font: int, left: int, top: int
) -> list[str]:
    elements, below = [], top + len(tokens) * cell + font
    for i, (token, label) in enumerate(zip(tokens, labels, strict=True)):
        middle = (i + 0.5) * cell
        text = f"<title>{safe_text(token)}</title>{safe_text(label)}"
        opening = f'<text class="label" font-size="{font}" text-anchor="end"'
        elements.append(f'{opening} x="{left - 7}" y="{top + middle + font * 0.35:g}">{text}</text>')
        x = left + middle + font * 0.3
        elements.append(f'{opening} transform="translate({x:g} {below}) rotate(-60)">{text}</text>')
    return elements


def _legend(x: int, y: int) -> list[str]:
    """The scale: 40 steps of shade, ticks at round weights."""
    step, wide = 5, 200
    elements = [
        f'<rect class="c" x="{x + k * step}" y="{y}" width="{step}" height="10" '
        f'fill-opacity="{(k + 0.5) * step / wide:.3f}"/>'
        for k in range(wide // step)
    ]
    elements.append(f'<rect class="frame" x="{x}" y="{y}" width="{wide}" height="10"/>')
    for tick in TICKS:
        at = x + _shade(tick) * wide
        elements.append(f'<text class="soft" x="{at:g}" y="{y + 24}" text-anchor="middle">{tick:g}</text>')
    elements.append(
        f'<text class="soft" x="{x}" y="{y - 7}">row attends to column: share of its attention</text>'
    )
    return elements
