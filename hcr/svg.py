"""Plots that open anywhere: SVG written by hand, no plot library, one palette for light and for dark.

The few marks that the project's plots share; what a plot says is its own module's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

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
    """Give the whole file: `parts` on the project's paper."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title><style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Give words that begin, or by `anchor` are centred ("middle") or end, at x, y."""
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Give a straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Give a line from point to point."""
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def dot(x: float, y: float, kind: str) -> str:
    """Give a filled point."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
