"""What strokes have to do with each other: where one sticks out beyond the rest, and where one touches another.

Between the skeletons and the copybook. Both look for the nearest points of other strokes, coarsely: a character has
some two hundred.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from hcr.pen.skeleton import CUTS, HENG, NA, PIE, SHU, Stroke

_COARSE = 4  # every so many points of a line are looked at
_NEAR = 0.06  # sides of the box: closer strokes hold each other
_TOUCH = 0.08
_BASE = 0.15  # from the lowest ink


def overhangs(strokes: Sequence[Stroke], lines: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Give by how much the points of lines, float[Q, CUTS, 2], move when what sticks out is halved.

    The printed hand lets a stroke or two reach far beyond the rest, 寸's level one, the sweeps of 寒; people hardly do.
    What sticks out is an end beyond the last place where another stroke comes near, of a stroke without corners; where
    none comes near, the half. The level stroke on which a character stands stays long.

    bounds: int[C + 1], the first line of each character.
    """
    moved = np.zeros_like(lines)
    across, down = np.ascontiguousarray(lines[:, ::_COARSE].astype(np.float32).transpose(2, 0, 1))
    for first, end in itertools.pairwise(bounds):
        plain = [place for place in range(first, end) if strokes[place].high == np.inf]
        places = np.array([strokes[place].place for place in plain])
        floor = lines[plain, :, 1].max() - _BASE
        for place in range(first, end):
            stroke, line = strokes[place], lines[place]
            if stroke.pieces > 1 or stroke.kind not in (HENG, SHU, PIE, NA):
                continue
            if stroke.kind == HENG and line[:, 1].min() > floor:
                continue
            others = np.array(plain)[places != stroke.place]
            gaps = np.abs(across[others].ravel()[:, None] - across[place])
            np.maximum(gaps, np.abs(down[others].ravel()[:, None] - down[place]), out=gaps)
            near = np.flatnonzero((gaps < _NEAR).any(0)) * _COARSE
            head, tail = near.min(initial=CUTS // 2), near.max(initial=CUTS // 2)
            moved[place, :head] = 0.5 * (line[head] - line[:head])
            moved[place, tail + 1 :] = 0.5 * (line[tail] - line[tail + 1 :])
    return moved


def contacts(
    strokes: Sequence[Stroke], points: np.ndarray, bounds: np.ndarray, opened: np.ndarray, ended: np.ndarray
) -> np.ndarray:
    """Find what the ends of each stroke touch among the strokes written before it in the printed order.

    points: float[R, K, 2], of rows; opened, ended: int[Q], the first and last row of each stroke.
    Returns int[Q, 4]: the row of the character that the start touches (-1: none), and its point; the same of the end.
    The end of a hook touches nothing.
    """
    touched = np.full((len(strokes), 4), -1)
    last = points.shape[1] - 1
    for first, end in itertools.pairwise(bounds):
        flat = points[opened[first] : ended[end - 1] + 1].reshape(-1, 2)
        across, down = np.ascontiguousarray(flat.T)
        never = len(strokes)
        numbers = [stroke.place if stroke.high == np.inf else never for stroke in strokes[first:end]]
        of_point = np.repeat(numbers, (ended - opened + 1)[first:end] * (last + 1))
        for place in range(first, end):
            stroke = strokes[place]
            for column, here in ((0, points[opened[place], 0]), (2, points[ended[place], last])):
                if column == 2 and stroke.hooked:
                    continue
                gap = np.maximum(np.abs(across - here[0]), np.abs(down - here[1])) + (of_point >= stroke.place)
                nearest = int(gap.argmin())
                if gap[nearest] < _TOUCH:
                    touched[place, column : column + 2] = divmod(nearest, last + 1)
    return touched
