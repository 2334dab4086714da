"""Roofs and what stands below them.

Between the skeletons and the copybook. In print 宀 is a lid with short sides, and what is below stands clear of it.
People give it sides and write the rest between them; how deep is a habit of each hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hcr.pen.running.components import box
from hcr.pen.running.dots import is_roof
from hcr.pen.skeleton import CUTS, Stroke

_LONGER = 1.0  # by how much of their length the sides grow
_LONGEST = 0.3  # of the height of what is below
_RAISED = 0.2
_CLEAR = 0.07  # sides of the box that stay free below the roof's line
_NARROWER = 0.1


def sheltered(strokes: Sequence[Stroke], written: Sequence[Stroke]) -> np.ndarray:
    """Give by how much the points of each written line move when what is below a roof is drawn into it.

    strokes: of one character, in order; written: these and the lines of their running forms.
    Returns: float[Q, CUTS, 2] for Q written lines.
    """
    moved = np.zeros((len(written), CUTS, 2))
    for first in range(len(strokes) - 2):
        if not is_roof(strokes, first) or box(strokes, first):
            continue
        left, top = strokes[first : first + 2]
        line, ends = float(top.start[1]), (left.line[:, 0].min() - 0.05, top.line[:, 0].max() + 0.05)
        last = first + 2
        for stroke in strokes[first + 2 :]:
            if not ends[0] < stroke.line[:, 0].mean() < ends[1] or stroke.line[:, 1].min() < line - 0.12:
                break
            last += 1
        if last == first + 2:
            continue
        below = np.concatenate([stroke.line for stroke in strokes[first + 2 : last]])
        high, low = below[:, 1].min(), below[:, 1].max()
        middle = 0.5 * (ends[0] + ends[1])
        raised = min(_RAISED, max(0.0, high - line - _CLEAR))
        for number, stroke in enumerate(written):
            x, y = stroke.line[:, 0], stroke.line[:, 1]
            if first <= stroke.place < first + 2:
                moved[number, :, 1] = np.minimum(_LONGER * np.maximum(0, y - line), _LONGEST * (low - line))
            elif first + 2 <= stroke.place < last:
                share = (low - y) / max(low - high, 0.05)
                moved[number] = np.stack([_NARROWER * share * (middle - x), -raised * share], 1)
    return moved
