"""A character made ready to be bent: centre lines as evenly spaced points, and the parts they form.

Between the stroke table and the hand. The parts are found by geometry, not taken from a dictionary of radicals: good
enough to move 氵 apart from the rest, blind to parts that enclose others.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from hcr.pen.table import StrokeTable

STEP = 0.025
"""Distance of points along a stroke, in sides of the box."""

_OVERLAP = 0.095  # by how much two parts may reach into each other: 宀 and what stands below it, 钅 and its neighbour


class Skeleton(NamedTuple):
    """A character of S strokes and N points.

    points: float32[N, 2] in the unit box, about STEP apart along each stroke.
    bow: float32[N, 2], how far each point moves when its stroke bows by its length.
    counts: int64[S], points of each stroke.
    part: int64[S], ascending from 0, the part of the character that a stroke belongs to.
    """

    points: np.ndarray
    bow: np.ndarray
    counts: np.ndarray
    part: np.ndarray


@cache
def skeleton_of(char: str) -> Skeleton:
    """Give the skeleton of a character, made once a process (about 5 KB).

    Raises: DataError for a character without strokes.
    """
    lines = StrokeTable.load().medians(char)
    knots = np.concatenate(lines).astype(float)
    starts = np.cumsum([0] + [len(line) for line in lines[:-1]])
    # All strokes lie on one ruler, one unit apart, so that a single interpolation cuts them all.
    steps = np.hypot(*np.diff(knots, axis=0, prepend=knots[:1]).T)
    steps[starts] = 1
    ruler = np.cumsum(steps)
    first = ruler[starts]
    length = np.append(first[1:] - 1, ruler[-1]) - first
    counts = np.maximum(3, np.round(length / STEP).astype(np.int64) + 1)
    stroke = np.repeat(np.arange(len(lines)), counts)
    begin = np.cumsum(counts) - counts
    along = (np.arange(len(stroke)) - begin[stroke]) / (counts - 1)[stroke]
    at = first[stroke] + along * length[stroke]
    points = np.stack([np.interp(at, ruler, knots[:, axis]) for axis in (0, 1)], 1)

    across = (points[begin + counts - 1] - points[begin])[:, ::-1] * [-1, 1]
    bow = (4 * along * (1 - along))[:, None] * across[stroke]
    boxes = np.concatenate([np.minimum.reduceat(points, begin), np.maximum.reduceat(points, begin)], 1)
    return Skeleton(points.astype(np.float32), bow.astype(np.float32), counts, _parts(boxes))


def _parts(boxes: np.ndarray) -> np.ndarray:
    """Number the parts of a character: cut the strokes, in writing order, where those before lie clear of those after.

    Clear means left against right or above against below; each side has two strokes or more.

    boxes: float[S, 4], left, top, right, bottom of each stroke.
    """
    count = len(boxes)
    if count >= 4:
        before = np.concatenate([np.minimum.accumulate(boxes[:, :2]), np.maximum.accumulate(boxes[:, 2:])], axis=1)[
            1 : count - 2
        ]
        after = np.minimum.accumulate(boxes[::-1, :2])[::-1][2 : count - 1]
        clear = (after - before[:, 2:]).max(axis=1)
        best = int(clear.argmax())
        if clear[best] > -_OVERLAP:
            first, second = _parts(boxes[: best + 2]), _parts(boxes[best + 2 :])
            return np.concatenate([first, second + first[-1] + 1])
    return np.zeros(count, np.int64)
