"""The robustness plot, beside the page for papers and slides: conditions as rows, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

from hcr.evaluation.groups import Row
from hcr.svg import dot, drawing, line, text

_LEFT, _WIDE, _RIGHT = 210, 430, 80
_TOP, _ROW, _BOTTOM = 56, 26, 30


def robustness_svg(rows: Sequence[Row], seen: str) -> str:
    """Draw each condition's share of right answers with its 95 % interval; the dashed line is the first row's."""
    low = floor(min(row.low for row in rows) * 10) / 10
    bottom = _TOP + _ROW * len(rows)
    parts = [
        text(16, 24, "Top-1 under changed conditions, with 95 % intervals"),
        text(16, 42, f"n = {rows[0].n:,} each{f'; {seen}: no test' if seen else ''}", "soft"),
    ]

    def place(share: float) -> float:
        return _LEFT + _WIDE * (share - low) / (1 - low)

    for tenth in range(round(low * 10), 11, 1 if low >= 0.5 else 2):
        x = place(tenth / 10)
        parts.append(line(x, _TOP, x, bottom, "grid"))
        parts.append(text(x, bottom + 20, f"{tenth * 10} %", "soft", "middle"))
    plain = place(rows[0].recall)
    parts.append(line(plain, _TOP, plain, bottom, "faint"))
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number + _ROW / 2
        parts.append(text(_LEFT - 14, y + 5, row.name, "", "end"))
        parts.append(line(place(row.low), y, place(row.high), y, "one"))
        parts.append(dot(place(row.recall), y, "one"))
        parts.append(text(_LEFT + _WIDE + 14, y + 5, f"{row.recall:.2%}"))
    return drawing(_LEFT + _WIDE + _RIGHT, bottom + _BOTTOM, "Top-1 under changed conditions", parts)
