"""Charts as SVG: the one place where axes, ticks, lines and labels are drawn, for files and for the report.

There is no plot library and no font: a chart opens anywhere, is sharp at any size, and follows light and dark mode.
A chart is drawn in data coordinates inside a `Box`; one drawing may hold several charts and free text. What a chart
says is the business of the module that makes it, except for learning curves, which two rooms draw.

A mark's `kind` is its CSS class: "one" and "two" are the colours of data, "rest" is grey data, "grid" and "faint"
(dashed) are lines behind it, "soft" is quiet text. `drawing` brings the style along; `inline` takes the page's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10, nan
from typing import Any, Literal

from hcr.records import MetricsRow

_STYLE = """
svg { background: #fffdf9; font: 14px system-ui, sans-serif; }
text { fill: #1f1b16; } text.soft { fill: #665e52; } .grid { stroke: #ddd4c4; }
.faint { fill: none; stroke: #665e52; stroke-dasharray: 4 4; }
.rest { fill: none; stroke: #8c8478; stroke-width: 1.5; } .lead { stroke: #8c8478; stroke-width: 0.7; }
.one { fill: none; stroke: #a6301f; stroke-width: 2; } text.one, circle.one { fill: #a6301f; stroke: none; }
.two { fill: none; stroke: #2f5d8a; stroke-width: 2; } text.two, circle.two { fill: #2f5d8a; stroke: none; }
circle.rest { fill: #8c8478; stroke: none; } text.rest { fill: #1f1b16; stroke: none; }
@media (prefers-color-scheme: dark) {
  svg { background: #1d1a17; } text, text.rest { fill: #ece6da; } text.soft { fill: #aca394; }
  .grid { stroke: #3b352e; }
  .faint { stroke: #aca394; }
  .one { stroke: #f28b78; } text.one, circle.one { fill: #f28b78; }
  .two { stroke: #8fb8e0; } text.two, circle.two { fill: #8fb8e0; }
}
"""
# With more points than this a learning curve is a line without dots.
_DOTTED = 40


def drawing(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """Return an SVG file that holds `parts` and the style of their kinds."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title><style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"


def inline(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    """Return an SVG element for an HTML page, which styles the kinds; a screen reader says `label`."""
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Return words at x, y in the drawing; `anchor` says which part of them is there: "start", "middle" or "end"."""
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def ticks(low: float, high: float, target: int = 5, *, whole: bool = False) -> list[float]:
    """Return round numbers within [low, high], about `target` of them; `whole` leaves out fractions."""
    span = (high - low) or 1.0
    step = 10.0 ** floor(log10(span / target))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= target + 1)
    if whole:
        step = max(step, 1.0)
    return [number * step for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def ticks_to(highest: float) -> list[float]:
    """Return round numbers from 0 to the first that is not below `highest`, which must be above 0."""
    values = ticks(0, highest)
    return values if values[-1] >= highest else [*values, values[-1] + values[1]]


@dataclass(frozen=True)
class Box:
    """Where a chart's data lies in its drawing, in pixels; tick labels and titles stand outside of it."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height


class Chart:
    """One chart: axes first, then marks in data coordinates; `parts` are its SVG elements so far.

    x, y: the values at the left and right, and at the lower and upper edge of `box`. Equal values are widened by 0.5;
    y may fall upwards. log_y: the vertical axis is logarithmic. font: the text's height in pixels, as the style has
    it, for the distances of labels. A point with nan or an infinite value is left out.
    """

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], box: Box, *, log_y: bool = False, font: float = 14
    ) -> None:
        self._log_y = log_y
        self._x, self._y = _widened(x), _widened((self._scaled(y[0]), self._scaled(y[1])))
        self._box, self._font = box, font
        self.parts: list[str] = []

    def x_axis(self, labels: Mapping[float, str], title: str = "", *, lines: bool = False) -> None:
        """Write the labels of values below the box, and the title below them; `lines` draws a grid line for each."""
        for value, words in labels.items():
            if lines:
                self.vertical(value, "grid")
            self._write(self._at_x(value), self._box.bottom + 1.4 * self._font, words, "soft", "middle")
        if title:
            middle = self._box.left + self._box.width / 2
            self._write(middle, self._box.bottom + 2.9 * self._font, title, "soft", "middle")

    def y_axis(self, labels: Mapping[float, str], title: str = "", *, lines: bool = True) -> None:
        """Write the labels of values left of the box, and the title above it; `lines` draws a grid line for each."""
        for value, words in labels.items():
            y = self._at_y(value)
            if lines:
                self.parts.append(_line(self._box.left, y, self._box.right, y, "grid"))
            if words:
                self._write(self._box.left - 0.6 * self._font, y + 0.36 * self._font, words, "soft", "end")
        if title:
            self._write(self._box.left, self._box.top - self._font, title)

    def vertical(self, x: float, kind: str) -> None:
        """Draw a line from the lower to the upper edge."""
        self.parts.append(_line(self._at_x(x), self._box.bottom, self._at_x(x), self._box.top, kind))

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str, *, dots: bool = False) -> None:
        """Join points by a line, with a gap where one is not finite; `dots` marks each, and a lone one always is."""
        for run in _unbroken(xs, ys):
            points = " ".join(f"{self._at_x(x):.1f},{self._at_y(y):.1f}" for x, y in run)
            self.parts.append(f'<polyline class="{kind}" points="{points}"/>')
            if dots or len(run) == 1:
                for x, y in run:
                    self.dot(x, y, kind)

    def dot(self, x: float, y: float, kind: str = "one", says: str = "", radius: float = 3.5) -> None:
        """Draw a point that says `says` when pointed at."""
        if isfinite(x) and isfinite(y):
            place = f'cx="{self._at_x(x):.1f}" cy="{self._at_y(y):.1f}" r="{radius:.1f}"'
            self.parts.append(_with_title("circle", f'class="{kind}" {place}', says))

    def bar(self, left: float, right: float, height: float, kind: str, says: str = "") -> None:
        """Draw a bar from the lower edge, between two values of x; one above 0 is always visible."""
        x, width = self._at_x(left), self._at_x(right) - self._at_x(left)
        tall = max(self._box.bottom - self._at_y(height), 1.5 if height > 0 else 0)
        place = f'x="{x + 0.75:.1f}" y="{self._box.bottom - tall:.1f}" width="{width - 1.5:.1f}" height="{tall:.1f}"'
        self.parts.append(_with_title("rect", f'class="{kind}" {place}', says))

    def end_labels(self, labels: Sequence[tuple[float, str, str]], *, from_x: Sequence[float] = ()) -> None:
        """Write labels right of the box, each (y, words, kind) at its value.

        They are moved apart where they would lie on each other, but stay within the height of the box and its margins.
        from_x: for each the x of its point, from which a thin line then leads to the label, since it may be far.
        """
        targets = [self._at_y(y) for y, _, _ in labels]
        places = _apart(targets, 1.25 * self._font, self._box.top - self._font, self._box.bottom + 2 * self._font)
        x = self._box.right + self._font
        for start, y, place in zip(from_x, targets, places, strict=False):
            self.parts.append(_line(self._at_x(start) + 6, y, x - 4, place, "lead"))
        for (_, words, kind), place in zip(labels, places, strict=True):
            self._write(x, place + 0.36 * self._font, words, kind)

    def _at_x(self, value: float) -> float:
        return self._box.left + (value - self._x[0]) / (self._x[1] - self._x[0]) * self._box.width

    def _at_y(self, value: float) -> float:
        share = (self._scaled(value) - self._y[0]) / (self._y[1] - self._y[0])
        return self._box.bottom - share * self._box.height

    def _scaled(self, value: float) -> float:
        return log10(value) if self._log_y else value

    def _write(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        self.parts.append(text(x, y, words, kind, anchor))


def best_epoch(rows: Sequence[MetricsRow]) -> MetricsRow | None:
    """Return the first row of metrics.jsonl with the highest val_top1; None without validation."""
    return max((row for row in rows if "val_top1" in row), key=lambda row: float(row["val_top1"]), default=None)


def learning_chart(rows: Sequence[MetricsRow], figure: Literal["loss", "top1"], box: Box, font: float = 14) -> Chart:
    """Draw one figure of training and validation over the epochs of metrics.jsonl, at least one row.

    The axis of values is linear from 0: the numbers beside the curves tell what the end still gains. A dashed line is
    at the best epoch; the chart of the loss has the learning rate, as high as the box where it is highest.
    """
    epochs = [float(row["epoch"]) for row in rows]
    by_key: Sequence[Mapping[str, Any]] = rows
    curves = {part: [float(row.get(f"{part}_{figure}", nan)) for row in by_key] for part in ("train", "val")}
    finite = [value for values in curves.values() for value in values if isfinite(value)]
    shares = figure == "top1"
    values = ticks_to(max([*finite, 0.01]))
    chart = Chart((epochs[0] - 0.5, epochs[-1] + 0.5), (0, values[-1]), box, font=font)
    form: Callable[[float], str] = (lambda value: f"{100 * value:.3g}%") if shares else (lambda value: f"{value:.3g}")
    chart.y_axis({value: form(value) for value in values}, "top-1" if shares else "loss")
    chart.x_axis({value: f"{value:.0f}" for value in ticks(epochs[0], epochs[-1], whole=True)}, "epoch")
    if not shares and "lr" in rows[0] and len(rows) > 1:
        highest = max(row["lr"] for row in rows)
        chart.line(epochs, [values[-1] * row["lr"] / highest for row in rows], "faint")
    if best := best_epoch(rows):
        chart.vertical(best["epoch"], "faint")
    labels = []
    for part, kind in (("train", "two"), ("val", "one")):
        chart.line(epochs, curves[part], kind, dots=len(rows) <= _DOTTED)
        known = [value for value in curves[part] if isfinite(value)]
        if known:
            labels.append((known[-1], f"{part} {f'{known[-1]:.2%}' if shares else f'{known[-1]:.3f}'}", kind))
    chart.end_labels(labels)
    return chart


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _with_title(name: str, attributes: str, says: str) -> str:
    return f"<{name} {attributes}><title>{escape(says)}</title></{name}>" if says else f"<{name} {attributes}/>"


def _widened(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    return (low, high) if high != low else (low - 0.5, low + 0.5)


def _unbroken(xs: Sequence[float], ys: Sequence[float]) -> list[list[tuple[float, float]]]:
    """Return the points in runs, cut where one is not finite."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if isfinite(x) and isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _apart(targets: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Return places at least `distance` apart, in the order of the targets and as near to them as that allows.

    They lie within [low, high] as far as there is room; what does not fit goes below `low`.
    """
    order = sorted(range(len(targets)), key=lambda number: targets[number])
    places = [0.0] * len(targets)
    free = low
    for number in order:
        places[number] = max(targets[number], free)
        free = places[number] + distance
    limit = high
    for number in reversed(order):
        places[number] = min(places[number], limit)
        limit = places[number] - distance
    return places
