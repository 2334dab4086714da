"""curves.svg: how a run learns, from the rows of its metrics.jsonl alone.

Both axes of values are linear from 0: what a loss at the end still gains is told by the figures beside the curves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hcr.svg import dot, drawing, line, polyline, text

_WIDE, _HIGH = 320, 240
_LEFT, _TOP, _GAP, _RIGHT, _BOTTOM = 60, 100, 150, 110, 56
# More epochs than this are drawn without a dot each.
_DOTTED = 40

Row = dict[str, Any]


def best_of(rows: Sequence[Row]) -> Row | None:
    """Give the first row with the highest val_top1; None without validation."""
    return max((row for row in rows if "val_top1" in row), key=lambda row: row["val_top1"], default=None)


def curves_svg(rows: Sequence[Row], name: str) -> str:
    """Draw loss and top-1 of training and validation over the epochs `rows`, at least one, of the run `name`."""
    best = best_of(rows)
    title = f"{name}: epoch {rows[-1]['epoch']}"
    if best:
        title += f", best epoch {best['epoch']} with val top-1 {best['val_top1']:.2%} of {best['val_n']:,}"
    width = _LEFT + _WIDE + _GAP + _WIDE + _RIGHT
    train = "train: while learning, on pictures as they were distorted"
    dashed = f"dashed: learning rate, at most {max(row['lr'] for row in rows):.3g}"
    if best:
        train += "; val: averaged weights, no label smoothing"
        dashed += "; the best epoch"
    parts = [text(16, 28, title), text(16, 48, train, "soft"), text(16, 66, dashed, "soft")]
    for number, figure in enumerate(("loss", "top1")):
        parts += _Panel(rows, figure, _LEFT + number * (_WIDE + _GAP)).parts(best)
    return drawing(width, _TOP + _HIGH + _BOTTOM, title, parts)


class _Panel:
    """One figure over the epochs, its left edge at x = `left`."""

    def __init__(self, rows: Sequence[Row], figure: str, left: float) -> None:
        self.rows, self.figure, self.left = rows, figure, left
        self.first, self.last = rows[0]["epoch"], rows[-1]["epoch"]
        values = [row[key] for row in rows for key in self._keys() if key in row and math.isfinite(row[key])]
        self.ticks = _ticks(max([*values, 0.01]))

    def parts(self, best: Row | None) -> list[str]:
        shares = self.figure == "top1"
        parts = [text(self.left, _TOP - 4, "top-1" if shares else "loss (nats)")]
        for value in self.ticks:
            y = self._y(value)
            parts.append(line(self.left, y, self.left + _WIDE, y, "grid"))
            parts.append(
                text(self.left - 8, y + 5, f"{value * 100:.3g} %" if shares else f"{value:.3g}", "soft", "end")
            )
        parts += self._epochs()
        parts += self._rate()
        if best:
            x = self._x(best["epoch"])
            parts.append(line(x, self._y(0), x, _TOP, "faint"))
        ends = []
        for key, kind, label in zip(self._keys(), ("two", "one"), ("train", "val"), strict=True):
            runs = _unbroken([(row["epoch"], row.get(key, math.nan)) for row in self.rows])
            for points in [[(self._x(epoch), self._y(value)) for epoch, value in run] for run in runs]:
                parts.append(polyline(points, kind))
                # A single point is no line.
                parts += [dot(*point, kind) for point in points if len(self.rows) <= _DOTTED or len(points) == 1]
            if runs:
                value = runs[-1][-1][1]
                ends.append((self._y(value), f"{label} {f'{value:.2%}' if shares else f'{value:.3f}'}", kind))
        return parts + self._labels(ends)

    def _keys(self) -> tuple[str, str]:
        return f"train_{self.figure}", f"val_{self.figure}"

    def _x(self, epoch: int) -> float:
        return self.left + _WIDE * (epoch - self.first + 0.5) / (self.last - self.first + 1)

    def _y(self, value: float) -> float:
        return _TOP + 8 + (_HIGH - 8) * (1 - value / self.ticks[-1])

    def _epochs(self) -> list[str]:
        step = max(1, round(_ticks(self.last - self.first + 1)[1]))
        shown = [epoch for epoch in range(self.first, self.last + 1) if epoch % step == 0 or step == 1]
        parts = [text(self._x(epoch), _TOP + _HIGH + 20, str(epoch), "soft", "middle") for epoch in shown]
        return [*parts, text(self.left + _WIDE / 2, _TOP + _HIGH + 42, "epoch", "soft", "middle")]

    def _rate(self) -> list[str]:
        """The learning rate, in the loss's panel: as high as the panel where it is highest."""
        if self.figure == "top1":
            return []
        highest = max(row["lr"] for row in self.rows)
        points = [(self._x(row["epoch"]), self._y(self.ticks[-1] * row["lr"] / highest)) for row in self.rows]
        return [polyline(points, "faint")]

    def _labels(self, ends: list[tuple[float, str, str]]) -> list[str]:
        """Name the curves at their ends, moved apart where they would lie on each other."""
        parts, free = [], 0.0
        for y, words, kind in sorted(ends):
            free = max(y + 5, free)
            parts.append(text(self.left + _WIDE + 10, free, words, kind))
            free += 18
        return parts


def _unbroken(points: list[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Cut a curve where values are missing or not finite."""
    runs: list[list[tuple[int, float]]] = [[]]
    for epoch, value in points:
        if math.isfinite(value):
            runs[-1].append((epoch, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _ticks(highest: float) -> list[float]:
    """Give four to ten even, round values from 0 up to one that is not below `highest`."""
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(power * part for part in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if highest <= 8 * power * part)
    return [number * step for number in range(math.ceil(highest / step - 1e-9) + 1)]
