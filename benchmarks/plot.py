"""Draw loading speed against workers as an SVG file, with the project's own chart drawer."""

from __future__ import annotations

import math

from hcr.svg import Box, Chart, drawing, text

# For each name its points (workers, pictures a second), and whether it is the project's own.
Lines = dict[str, tuple[list[tuple[int, float]], bool]]
WIDTH, HEIGHT = 940, 520
_BOX, FONT = Box(96, 84, 484, 376), 14


def draw(lines: Lines, subtitle: str) -> str:
    """Return the SVG file; speeds are on a logarithmic axis, and the project's own lines in colour."""
    lines = {name: line for name, line in lines.items() if line[0]}
    speeds = [speed for points, _ in lines.values() for _, speed in points]
    workers = sorted({count for points, _ in lines.values() for count, _ in points})
    low, high = math.floor(math.log10(min(speeds))), math.ceil(math.log10(max(speeds)))
    # Numbers of workers double as a rule: their places are equally far apart.
    chart = Chart((-0.25, len(workers) - 0.75), (10.0**low, 10.0**high), _BOX, log_y=True, font=FONT)
    steps = {step * 10.0**power: step for power in range(low, high) for step in (1, 2, 5)} | {10.0**high: 1}
    chart.y_axis({speed: f"{speed:,.0f}" if step == 1 else "" for speed, step in steps.items()})
    chart.x_axis(
        {place: str(count) for place, count in enumerate(workers)}, "worker processes; speeds on a logarithmic scale"
    )
    labels, ends = [], []
    for name, (points, own) in lines.items():
        kind = "one" if own else "rest"
        chart.line([workers.index(count) for count, _ in points], [speed for _, speed in points], kind, dots=True)
        labels.append((points[-1][1], f"{name}: {points[-1][1]:,.0f}", kind))
        ends.append(workers.index(points[-1][0]))
    chart.end_labels(labels, from_x=ends)
    title = "Pictures a second into shuffled batches of 512"
    return drawing(WIDTH, HEIGHT, title, [text(24, 28, title), text(24, 50, subtitle, "soft"), *chart.parts])
