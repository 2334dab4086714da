"""Draw loading speed against workers as an SVG of plain text: no plotting library, light and dark from one file."""

from __future__ import annotations

import math
from html import escape

Lines = dict[str, tuple[list[tuple[int, float]], bool]]
WIDTH, HEIGHT = 920, 520
LEFT, RIGHT, TOP, BOTTOM = 96, 580, 64, 460
LABEL_HEIGHT = 17

STYLE = """
  .paper { fill: #ffffff } text { fill: #24292f; font: 13px system-ui, sans-serif } .small { font-size: 11px }
  .title { font-size: 16px; font-weight: 600 } .grid { stroke: #d0d7de; stroke-width: 1 }
  .line { fill: none; stroke: #8c959f; stroke-width: 1.5 } .dot { fill: #8c959f }
  .lead { stroke: #8c959f; stroke-width: 0.7 } .ours .line { stroke: #0a58ca; stroke-width: 3 }
  .ours .dot { fill: #0a58ca } .ours text { fill: #0a58ca; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #30363d } .line { stroke: #7d8590 }
    .dot { fill: #7d8590 } .lead { stroke: #7d8590 } .ours .line { stroke: #6cb6ff } .ours .dot { fill: #6cb6ff }
    .ours text { fill: #6cb6ff }
  }"""


def draw(lines: Lines, subtitle: str) -> str:
    """Return the SVG; each name has its points (workers, pictures a second), and whether it is the project's own."""
    lines = {name: found for name, found in lines.items() if found[0]}
    speeds = [speed for points, _ in lines.values() for _, speed in points]
    workers = sorted({number for points, _ in lines.values() for number, _ in points})
    low, high = math.floor(math.log10(min(speeds))), math.ceil(math.log10(max(speeds)))

    def x(number: int) -> float:
        return LEFT + 24 + (RIGHT - LEFT - 48) * workers.index(number) / max(1, len(workers) - 1)

    def y(speed: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (math.log10(speed) - low) / max(1, high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Loading speed against worker processes, logarithmic">',
        f"<style>{STYLE}\n</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        '<text class="title" x="24" y="28">Pictures a second into shuffled batches of 512</text>',
        f'<text class="small" x="24" y="47">{escape(subtitle)}</text>',
    ]
    for power in range(low, high + 1):
        for step in (1, 2, 5) if power < high else (1,):
            speed = step * 10.0**power
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y(speed):.1f}" y2="{y(speed):.1f}"/>')
            if step == 1:
                parts.append(f'<text x="{LEFT - 8}" y="{y(speed) + 4:.1f}" text-anchor="end">{speed:,.0f}</text>')
    for number in workers:
        parts.append(f'<text x="{x(number):.1f}" y="{BOTTOM + 22}" text-anchor="middle">{number}</text>')
    middle = (LEFT + RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{BOTTOM + 44}" text-anchor="middle">worker processes (log scale)</text>')
    places = _apart({name: y(points[-1][1]) for name, (points, _) in lines.items()})
    for name, (points, ours) in lines.items():
        path = " ".join(f"{x(number):.1f},{y(speed):.1f}" for number, speed in points)
        end = points[-1]
        parts.append('<g class="ours">' if ours else "<g>")
        parts.append(f'<polyline class="line" points="{path}"/>')
        parts += [f'<circle class="dot" cx="{x(n):.1f}" cy="{y(speed):.1f}" r="3"/>' for n, speed in points]
        parts.append(
            f'<line class="lead" x1="{x(end[0]) + 6:.1f}" y1="{y(end[1]):.1f}" x2="{RIGHT + 10}" '
            f'y2="{places[name]:.1f}"/>'
            f'<text x="{RIGHT + 14}" y="{places[name] + 4:.1f}">{escape(name)}: {end[1]:,.0f}</text>'
        )
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _apart(wanted: dict[str, float]) -> dict[str, float]:
    """Move labels apart that would lie on each other, as little as the order from top to bottom allows."""
    names = sorted(wanted, key=lambda name: wanted[name])
    places: list[float] = []
    for name in names:
        places.append(max(wanted[name], places[-1] + LABEL_HEIGHT if places else TOP - 40.0))
    limit = float(HEIGHT - 16)
    for number in reversed(range(len(places))):
        places[number] = min(places[number], limit)
        limit = places[number] - LABEL_HEIGHT
    return dict(zip(names, places, strict=True))
