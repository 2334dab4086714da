"""Printed lines on paper: where ruled lines, frames and practice squares are, and how they come off the ink.

A printed line is straight, thin and of one width, and longer than a character: it runs from one edge of the picture to
the other, or between two lines that cross its ends. Slants of up to 4 degrees are found. Where a line's colour or
lightness is not the ink's, colour and lightness take it off, and with it what is not level or upright: diagonals and
dashes. Where they are the same, the line is cut out, and strokes that cross it stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

# Lines are looked for in averages of this size, cut across into so many blocks.
LONGEST = 256
BLOCKS = 16
# Tangent of the steepest slant.
STEEPEST = 0.07

# In how much of a block a line has to be, and over how much of the picture.
COVERED = 0.7
RUN = 0.6
# As far from an edge or a crossing line as this, in sides of the picture, a line still reaches it.
REACH = 0.03
# A line is at most this thick, in sides of the picture; or 2 pixels.
THICK = 0.03


@dataclass(frozen=True)
class Line:
    """A straight line in pixels: y = middle + slope * (x - W / 2) from x = start to x = end.

    upright: x and y are swapped. thick: pixels across.
    """

    upright: bool
    middle: float
    slope: float
    start: float
    end: float
    thick: float


def may_have_lines(ink: np.ndarray) -> bool:
    """Tell in a moment whether bool[H, W] can have lines.

    They have thin ends on opposite borders, or there is ink along all sides of a box.
    """
    for part in (ink, ink.T):
        drift = STEEPEST * part.shape[1] + 1
        most = max(3.0, 2 * THICK * max(ink.shape))
        starts = _thin_ends(part[:, 0], most)
        ends = _thin_ends(part[:, -1], most) if starts else []
        for first in starts:
            for last in ends:
                if abs(first - last) <= drift and _straight(part, first, last):
                    return True
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if not len(rows):
        return False
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if min(box.shape) < 0.75 * min(ink.shape):
        return False
    deep = max(2, round(STEEPEST * max(box.shape)))
    strips = (box[:deep].any(0), box[-deep:].any(0), box[:, :deep].any(1), box[:, -deep:].any(1))
    return all(strip.mean() > 0.95 for strip in strips)


def _thin_ends(border: np.ndarray, most: float) -> list[float]:
    """Return the middles of the runs of True that are no longer than `most`."""
    if not border.any():
        return []
    bounds = np.flatnonzero(np.concatenate(([border[0]], border[1:] != border[:-1], [border[-1]]))).tolist()
    return [(start + stop) / 2 for start, stop in zip(bounds[::2], bounds[1::2], strict=True) if stop - start <= most]


def _straight(part: np.ndarray, first: float, last: float) -> bool:
    """Tell whether most of 32 places between two ends have ink within a pixel."""
    high, wide = part.shape
    share = np.linspace(0.02, 0.98, 32)
    rows = (first + (last - first) * share).astype(int)
    places = np.clip(rows + np.arange(-1, 2)[:, None], 0, high - 1)
    return bool(part[places, (share * wide).astype(int)].any(0).mean() >= 0.85)


def find_lines(ink: np.ndarray) -> list[Line]:
    """Find the printed lines in bool[H, W] (True = ink or line).

    Only those are given that reach from edge to edge, or from one to another that is given.
    """
    small, scale = _reduced(ink)
    found = _runs(small, False) + _runs(small.T, True)
    shape = small.shape
    while True:
        kept = [whole for line in found if (whole := _whole(line, found, shape))]
        if len(kept) == len(found):
            break
        found = [line for line in found if _whole(line, found, shape)]
    return [
        Line(
            line.upright,
            (line.middle + 0.5) * scale,
            line.slope,
            line.start * scale,
            line.end * scale,
            line.thick * scale,
        )
        for line in kept
    ]


def _reduced(ink: np.ndarray) -> tuple[np.ndarray, float]:
    """Average bool[H, W] down to LONGEST, keeping lines thinner than a pixel. Gives bool[h, w] and the scale back."""
    longest = max(ink.shape)
    if longest <= LONGEST:
        return ink, 1.0
    scale = longest / LONGEST
    high, wide = (max(1, round(side / scale)) for side in ink.shape)
    small = Image.fromarray(ink.astype(np.uint8) * 255).resize((wide, high), Image.Resampling.BOX)
    return np.asarray(small) > 80, scale


def _runs(ink: np.ndarray, upright: bool) -> list[Line]:
    """Find straight runs of ink that are nearly level in bool[H, W], the longest first."""
    high, wide = ink.shape
    if min(high, wide) < BLOCKS:
        return []
    blocks = min(BLOCKS, wide // 2)
    cuts = np.linspace(0, wide, blocks + 1).round().astype(int)
    # The next slope differs by a pixel and a half at the ends, as much as a line may be off.
    steps = int(np.ceil(STEEPEST * wide / 3))
    slopes = np.linspace(-STEEPEST, STEEPEST, 2 * steps + 1)
    reach = int(np.ceil(STEEPEST * wide / 2)) + 10
    padded = np.pad(ink, ((reach + 1, reach + 1), (0, 0)))
    solid = np.add.reduceat(padded, cuts[:-1], 1, dtype=np.float32) / np.diff(cuts).astype(np.float32)
    near = padded[:-2] | padded[1:-1] | padded[2:]
    cover = np.add.reduceat(near, cuts[:-1], 1, dtype=np.int32) >= COVERED * np.diff(cuts)
    least = int(np.ceil(RUN * blocks))
    solid = solid[1:-1]
    centres = (cuts[:-1] + cuts[1:]) / 2 - wide / 2
    offsets = np.rint(slopes[:, None] * centres).astype(int)  # [slope, block]
    rows = np.arange(high)[None, :, None] + reach + offsets[:, None, :]
    held = cover[rows, np.arange(blocks)]  # [slope, row, block]
    if held.sum(2).max() < least - 2:
        return []
    length, last = _longest_run(held)
    if length.max() < least:
        return []
    # Where a thick line fits several slopes, the middle one is its own.
    score = length + solid[rows, np.arange(blocks)].mean(2) - 0.01 * np.abs(slopes)[:, None]
    lines: list[Line] = []
    taken = np.zeros(high, bool)
    width_most = max(2.0, THICK * max(ink.shape))
    while True:
        open_score = np.where(taken[None] | (length < least), -1, score)
        best = int(open_score.argmax())
        slope, row = divmod(best, high)
        if open_score[slope, row] < 0:
            return lines
        end = int(last[slope, row])
        run = np.arange(end - int(length[slope, row]) + 1, end + 1)
        around = np.arange(-10, 11)
        profile = solid[np.clip(row + reach + offsets[slope, run][None] + around[:, None], 0, len(solid) - 1), run]
        dense = np.median(profile, 1) >= 0.5
        middle = 10 + int(np.argmax(np.median(profile, 1)[9:12])) - 1
        low = high_edge = middle
        while low > 0 and dense[low - 1]:
            low -= 1
        while high_edge < 20 and dense[high_edge + 1]:
            high_edge += 1
        thick = high_edge - low + 1
        centre = row + (low + high_edge) / 2 - 10
        if thick <= width_most and low > 0 and high_edge < 20:
            start, stop = _ends(near, slopes[slope], centre + reach, int(cuts[run[0]]), int(cuts[run[-1] + 1]))
            lines.append(Line(upright, float(centre), float(slopes[slope]), start, stop, float(thick)))
        guard = max(3, thick // 2 + 2)
        taken[max(0, int(centre) - guard) : int(centre) + guard + 1] = True
        taken[max(0, row - guard) : row + guard + 1] = True


def _ends(near: np.ndarray, slope: float, middle: float, start: int, stop: int) -> tuple[float, float]:
    """Follow a run from whole blocks to where its ink ends: more than 2 pixels without."""
    high, wide = near.shape
    columns = np.arange(wide)
    rows = np.rint(middle + slope * (columns + 0.5 - wide / 2)).astype(int).clip(0, high - 1)
    inked = near[rows, columns].tolist()
    for step, limit in ((-1, 0), (1, wide)):
        place = start if step < 0 else stop
        blank = 0
        while place != limit and blank <= 2:
            place += step
            blank = 0 if inked[place if step < 0 else place - 1] else blank + 1
        place -= step * blank
        start, stop = (place, stop) if step < 0 else (start, place)
    return float(start), float(stop)


def _longest_run(held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return length and last place of the longest run of True along the last axis, one False within allowed."""
    count = np.zeros(held.shape[:-1], np.int32)
    since = np.zeros_like(count)  # the run without its gap, so that two gaps end it
    best, last = count.copy(), count.copy()
    for place in range(held.shape[-1]):
        true = held[..., place]
        gap = ~true & (since > 0)
        count = np.where(true, count + 1, np.where(gap, count + 1, 0))
        since = np.where(true, since + 1, 0)
        # After a gap the run may go on, but a gap does not count as its end.
        better = true & (count > best)
        best, last = np.where(better, count, best), np.where(better, place, last)
        count = np.where(~true & ~gap, 0, count)
    return best, last


def _whole(line: Line, lines: list[Line], shape: tuple[int, ...]) -> Line | None:
    """Lengthen a line to the edges or crossing lines that it all but reaches; None where an end reaches neither."""
    high, wide = shape if not line.upright else shape[::-1]
    near = max(2.0, REACH * wide)
    ends = []
    for end, edge, out in ((line.start, 0, -1), (line.end, wide, 1)):
        along = line.middle + line.slope * (end - wide / 2)
        met = [
            other.middle + other.slope * (along - high / 2) + out * (other.thick / 2 + 1)
            for other in lines
            if other.upright != line.upright
            and abs(other.middle + other.slope * (along - high / 2) - end) <= near
            and other.start - near <= along <= other.end + near
        ]
        if abs(end - edge) <= near:
            ends.append(float(edge))
        elif met:
            ends.append(max(met) if out > 0 else min(met))
        else:
            return None
    return Line(line.upright, line.middle, line.slope, ends[0], ends[1], line.thick)


def bands(lines: list[Line], shape: tuple[int, ...], wider: float = 0.0) -> np.ndarray:
    """Tell which pixels of a picture of this shape lie on a line: bool[H, W]."""
    covered = np.zeros(shape, bool)
    for line in lines:
        on = covered.T if line.upright else covered
        high, wide = on.shape
        columns = np.arange(max(0, int(line.start)), min(wide, int(np.ceil(line.end))))
        reach = line.thick / 2 + wider
        middle = line.middle + line.slope * (columns - wide / 2)
        rows = np.arange(high)[:, None]
        low, top = max(0, int(middle.min() - reach) - 1), int(middle.max() + reach) + 2
        on[low:top, columns] |= np.abs(rows[low:top] + 0.5 - middle) <= reach
    return covered


def cut_out(ink: np.ndarray, lines: list[Line]) -> np.ndarray:
    """Tell which pixels of bool[H, W] belong to lines alone: on a line, and no stroke on both sides of it."""
    alone = np.zeros(ink.shape, bool)
    every = bands(lines, ink.shape, 1.5)
    for line in lines:
        on, dark, lined = (part.T if line.upright else part for part in (alone, ink, every))
        high, wide = on.shape
        columns = np.arange(max(0, int(line.start)), min(wide, int(np.ceil(line.end))))
        middle = line.middle + line.slope * (columns - wide / 2)
        reach = int(np.ceil(line.thick / 2 + 1))
        stroke = dark & ~lined
        crossing = np.ones(len(columns), bool)
        for side in (-1, 1):
            beside = np.zeros(len(columns), bool)
            for step in range(1, 4):
                rows = np.floor(middle).astype(int) + side * (reach + step)
                beside |= np.where((rows >= 0) & (rows < high), stroke[np.clip(rows, 0, high - 1), columns], False)
            crossing &= _wider(beside, reach)
        for step in range(-reach, reach + 1):
            rows = np.floor(middle).astype(int) + step
            good = (rows >= 0) & (rows < high) & ~crossing
            on[rows[good], columns[good]] = True
    return alone


def _wider(mask: np.ndarray, reach: int) -> np.ndarray:
    padded = np.pad(mask, reach)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).any(1))
