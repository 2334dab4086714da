"""Plots that open anywhere: SVG written by hand, no plot library, one palette for light and for dark.

The few marks that the project's plots share; what a plot says is its own module's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from math import ceil, floor, isfinite, log10

# .one and .two are the colours of data.
_STYLE = """
svg { background: #fffdf9; font: 14px system-ui, sans-serif; }
text { fill: #1f1b16; } text.soft { fill: #665e52; } .grid { stroke: #ddd4c4; }
.faint { fill: none; stroke: #665e52; stroke-dasharray: 4 4; }
.one { fill: none; stroke: #a6301f; stroke-width: 2; } text.one, circle.one { fill: #a6301f; stroke: none; }
.two { fill: none; stroke: #2f5d8a; stroke-width: 2; } text.two, circle.two { fill: #2f5d8a; stroke: none; }
@media (prefers-color-scheme: dark) {
  svg { background: #1d1a17; } text { fill: #ece6da; } text.soft { fill: #aca394; } .grid { stroke: #3b352e; }
  .faint { stroke: #aca394; }
  .one { stroke: #f28b78; } text.one, circle.one { fill: #f28b78; }
  .two { stroke: #8fb8e0; } text.two, circle.two { fill: #8fb8e0; }
}
"""


def drawing(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """Return the whole file: `parts` on the project's paper."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title><style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Return words that begin, or by `anchor` are centred ("middle") or end, at x, y."""
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Return a line from point to point."""
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def dot(x: float, y: float, kind: str) -> str:
    """Return a filled point."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


# Charts as inline SVG, drawn by hand: no plot library, no font, sharp at any size, in the page's own colours.
#
# What a plot library would choose (ticks, margins) is chosen here once, for small charts of a known kind.
#
_WIDTH, _HEIGHT = 380, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 18, 26, 34


Form = Callable[[float], str]


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers within [low, high], about `wanted` of them."""
    span = (high - low) or 1.0
    step = 10.0 ** floor(log10(span / wanted))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= wanted + 1)
    return [number * step for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


class Chart:
    """One chart: axes first, then marks in data coordinates, then `svg`.

    x, y: (low, high), widened where they are equal. Points with nan are left out.
    """

    def __init__(self, x: tuple[float, float], y: tuple[float, float], x_title: str, y_title: str) -> None:
        self._x, self._y = _spread(x), _spread(y)
        self._parts: list[str] = []
        self._write(_WIDTH - _RIGHT, _HEIGHT - 2, x_title, "end")
        self._write(0, 8, y_title, "start")

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_form: Form, y_form: Form) -> None:
        """Draw a line and a label for each tick."""
        for value in y_ticks:
            y = self._at_y(value)
            self._parts.append(f'<path class="axis" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
            self._write(_LEFT - 6, y + 4, y_form(value), "end")
        for value in x_ticks:
            self._write(self._at_x(value), _HEIGHT - _BOTTOM + 15, x_form(value), "middle")

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str) -> None:
        """Join points by a line of class `kind`."""
        points = [(x, y) for x, y in zip(xs, ys, strict=True) if isfinite(x) and isfinite(y)]
        if points:
            joined = "L".join(f"{self._at_x(x):.1f} {self._at_y(y):.1f}" for x, y in points)
            self._parts.append(f'<path class="{kind}" d="M{joined}"/>')

    def dot(self, x: float, y: float, says: str, radius: float = 3.5) -> None:
        """Draw a point that says `says` when pointed at."""
        if isfinite(x) and isfinite(y):
            place = f'cx="{self._at_x(x):.1f}" cy="{self._at_y(y):.1f}" r="{radius:.1f}"'
            self._parts.append(f'<circle class="dot" {place}><title>{escape(says)}</title></circle>')

    def bar(self, left: float, right: float, height: float, says: str, kind: str = "bar") -> None:
        """Draw a bar from the bottom; one above 0 is always visible."""
        x, wide = self._at_x(left), self._at_x(right) - self._at_x(left)
        tall = max(self._at_y(self._y[0]) - self._at_y(height), 1.5 if height > 0 else 0)
        place = f'x="{x + 0.75:.1f}" y="{_HEIGHT - _BOTTOM - tall:.1f}" width="{wide - 1.5:.1f}" height="{tall:.1f}"'
        self._parts.append(f'<rect class="{kind}" {place}><title>{escape(says)}</title></rect>')

    def note(self, x: float, y: float, text: str, kind: str, anchor: str = "start", dy: float = -7) -> None:
        """Write beside a point."""
        self._write(self._at_x(x), self._at_y(y) + dy, text, anchor, kind)

    def svg(self, label: str) -> str:
        """Return the chart; `label` is what a screen reader says of it."""
        head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">'
        return head + "".join(self._parts) + "</svg>"

    def _at_x(self, value: float) -> float:
        return _LEFT + (value - self._x[0]) / (self._x[1] - self._x[0]) * (_WIDTH - _LEFT - _RIGHT)

    def _at_y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self._y[0]) / (self._y[1] - self._y[0]) * (_HEIGHT - _TOP - _BOTTOM)

    def _write(self, x: float, y: float, text: str, anchor: str, kind: str = "") -> None:
        style = f' class="{kind}"' if kind else ""
        self._parts.append(f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')


def _spread(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    return (low, high) if high > low else (low - 0.5, low + 0.5)
