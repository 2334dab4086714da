"""What the rules of running script are made of: lines with the knots of other strokes.

Below all the rules; what a rule is stands in `rules.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hcr.synth.skeleton import Stroke

Point = np.ndarray
Line = list[Point]


class New(NamedTuple):
    """A line of an alternative: its knots, and how likely it is joined to the next (2: always)."""

    knots: Line
    tie: float = 0.0


Found = tuple[int, list[tuple[float, list[New]]]]
Rule = Callable[[Sequence[Stroke], int], Found | None]


def between(one: Point, two: Point, share: float = 0.5) -> Point:
    """Return the point at `share` of the way from one to another."""
    point: Point = one + (two - one) * share
    return point


def moved(point: Point, x: float, y: float) -> Point:
    """Return a point further right and down, in sides of the box."""
    shifted: Point = point + np.array([x, y])
    return shifted


def knots(stroke: Stroke) -> Line:
    """Return the knots of a stroke."""
    return list(stroke.line)


def body(stroke: Stroke) -> Line:
    """Return the knots of a stroke without its hook."""
    return list(stroke.line[: stroke.corners[-2] + 1]) if stroke.hooked else list(stroke.line)
