"""A plot that opens anywhere: SVG of its own, no plot library, readable on light and on dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import floor

from hcr.evaluation.groups import Row

_STYLE = """
svg { background: #fffdf9; font: 14px system-ui, sans-serif; }
text { fill: #1f1b16; } .soft { fill: #665e52; } .grid { stroke: #ddd4c4; }
.plain { stroke: #665e52; stroke-dasharray: 4 4; } .span { stroke: #a6301f; stroke-width: 2; } circle { fill: #a6301f; }
@media (prefers-color-scheme: dark) {
  svg { background: #1d1a17; } text { fill: #ece6da; } .soft { fill: #aca394; } .grid { stroke: #3b352e; }
  .plain { stroke: #aca394; } .span { stroke: #f28b78; } circle { fill: #f28b78; }
}
"""
_LEFT, _WIDE, _RIGHT = 210, 430, 80
_TOP, _ROW, _BOTTOM = 56, 26, 30


def robustness_svg(rows: Sequence[Row], seen: str) -> str:
    """Draw each condition's share of right answers with its 95 % interval; the dashed line is the first row's."""
    low = floor(min(row.low for row in rows) * 10) / 10
    bottom = _TOP + _ROW * len(rows)
    size = f"{_LEFT + _WIDE + _RIGHT} {bottom + _BOTTOM}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img">',
        f"<title>Top-1 under changed conditions</title><style>{_STYLE}</style>",
        _text(16, 24, "Top-1 under changed conditions, with 95 % intervals"),
        _text(16, 42, f"n = {rows[0].n:,} each{f'; {seen}: no test' if seen else ''}", "soft"),
    ]

    def place(share: float) -> float:
        return _LEFT + _WIDE * (share - low) / (1 - low)

    for tenth in range(round(low * 10), 11, 1 if low >= 0.5 else 2):
        x = place(tenth / 10)
        parts.append(_line(x, _TOP, x, bottom, "grid"))
        parts.append(_text(x, bottom + 20, f"{tenth * 10} %", "soft", "middle"))
    plain = place(rows[0].recall)
    parts.append(_line(plain, _TOP, plain, bottom, "plain"))
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number + _ROW / 2
        parts.append(_text(_LEFT - 14, y + 5, row.name, "", "end"))
        parts.append(_line(place(row.low), y, place(row.high), y, "span"))
        parts.append(f'<circle cx="{place(row.recall):.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(_text(_LEFT + _WIDE + 14, y + 5, f"{row.recall:.2%}"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
