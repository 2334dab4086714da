"""Where the sheet is: what lies around it or along its sides comes off before ink and paper are told apart.

A frame, a scanner's dark edge, a toolbar or a desk covers a side of the picture from end to end, which no stroke does.
"""

from __future__ import annotations

import numpy as np

from hcr.preprocess.background import components, is_shade, largest_square, near

COARSE = 128
# A smaller picture is a character cut out, whose strokes are as wide as a desk.
LEAST = 40
# Share of a side's pixels that are not paper where something lies along it.
WHOLE = 0.98
# A sheet has at least this share of the picture.
SMALLEST = 0.04
# Of a sheet at least this share is paper: what is drawn with a pen, 国 with a wide one, has less.
SOLID = 0.7
# A square of this side, in sides of the sheet, has room beside the ink. A dark board has this share of the picture.
ROOM, BOARD = 0.15, 0.4
# Share of the difference between sheet and surround that lies within a few pixels of the edge.
SHARP = 0.6

Box = tuple[slice, slice]


def peel(grey: np.ndarray) -> Box | None:
    """Find the sheet of flat paper within level bars along the sides of uint8[H, W]: frames, edges, toolbars.

    Gives None where there are none, or where what they hold touches them or is nothing: 口 and 田 cropped tight.
    """
    high, wide = grey.shape
    if min(high, wide) < 16:
        return None
    sides = (grey[0], grey[-1], grey[:, 0], grey[:, -1])
    for tone in (255, 0):
        # Most scans and drawings end here: there is paper on each side.
        if all(np.count_nonzero(side == tone) > (1 - WHOLE) * len(side) for side in sides):
            return None
    paper = int(np.bincount(grey.ravel(), minlength=256).argmax())
    if not any(_bar(side, paper) for side in sides) or (grey == paper).mean() < 0.25:
        return None
    other = np.abs(grey.astype(np.int16) - paper) > 16
    top, bottom, left, right = 0, high, 0, wide
    peeled = np.zeros(4, int)
    for _ in range(2):
        while bottom - top > 8 and other[top, left:right].mean() >= WHOLE:
            top += 1
        while bottom - top > 8 and other[bottom - 1, left:right].mean() >= WHOLE:
            bottom -= 1
        while right - left > 8 and other[top:bottom, left].mean() >= WHOLE:
            left += 1
        while right - left > 8 and other[top:bottom, right - 1].mean() >= WHOLE:
            right -= 1
    peeled = np.array([top, high - bottom, left, wide - right])
    if peeled.max() > 0.3 * min(high, wide):
        return None
    # A bar's soft edge.
    inner = other[top + 1 : bottom - 1, left + 1 : right - 1]
    edges = (inner[0], inner[-1], inner[:, 0], inner[:, -1])
    if any(edge.any() for edge, depth in zip(edges, peeled, strict=True) if depth):
        return None
    rows, columns = np.flatnonzero(inner.any(1)), np.flatnonzero(inner.any(0))
    if not len(rows) or max(rows[-1] - rows[0], columns[-1] - columns[0]) < 0.15 * max(inner.shape):
        return None
    soft = [int(depth > 0) for depth in peeled]
    return slice(top + soft[0], bottom - soft[1]), slice(left + soft[2], right - soft[3])


def _bar(side: np.ndarray, paper: int) -> bool:
    return bool((np.abs(side.astype(np.int16) - paper) > 16).mean() >= WHOLE)


def surround(small: np.ndarray) -> np.ndarray | None:
    """Find what lies around a sheet in a coarse picture uint8[h, w]: bool[h, w], or None where nothing does.

    Of two tones, one covers a side from end to end and has nothing on it, a hard shadow has ink; the other is solid and
    has ink on it, and paper all along its edge.
    """
    threshold = _otsu(small)
    light = small > threshold
    for tone in (light, ~light):
        found = _around(tone, small)
        if found is not None:
            return found
    return None


def _otsu(small: np.ndarray) -> float:
    counts = np.bincount(small.ravel(), minlength=256).astype(np.float64)
    below, moment = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    between = (moment[-1] / below[-1] * below - moment) ** 2 / np.maximum(below * (below[-1] - below), 1)
    return float(np.flatnonzero(between >= between.max() * (1 - 1e-9)).mean())


def _around(sheet_tone: np.ndarray, small: np.ndarray) -> np.ndarray | None:
    high, wide = small.shape
    sides = (sheet_tone[0], sheet_tone[-1], sheet_tone[:, 0], sheet_tone[:, -1])
    if min(high, wide) < LEAST or not any(side.mean() <= 1 - WHOLE for side in sides):
        return None
    # Ink and lines on the sheet are closed, what reaches the picture's border is not.
    reach = max(2, max(high, wide) // 10)
    padded = np.pad(sheet_tone, 2 * reach, mode="edge")
    closed = ~near(~near(padded, reach), reach)[2 * reach : -2 * reach, 2 * reach : -2 * reach]
    closed |= sheet_tone
    labels, count = components(closed)
    if not count:
        return None
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    sheet = labels == int(areas.argmax())
    other = reached(~sheet)
    sheet = ~other
    area = int(sheet.sum())
    covers = any(side.mean() >= WHOLE for side in (other[0], other[-1], other[:, 0], other[:, -1]))
    if not covers or area < SMALLEST * small.size or other.sum() < 0.01 * small.size:
        return None
    if sheet_tone[sheet].mean() < SOLID:
        return None
    rim = sheet & near(other, 2)
    if sheet_tone[rim].mean() < 0.85:
        return None
    # Within the sheet there is something that is no part of its surround.
    ink = sheet & ~near(other, 3) & ~sheet_tone
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if not len(rows):
        return None
    across = np.sqrt(area)
    if max(rows[-1] - rows[0], columns[-1] - columns[0]) < 0.15 * across:
        return None
    paper, desk = (float(np.median(small[part])) for part in (sheet & sheet_tone, other))
    # Strokes close together, as of 儿, have no room between them that is of their tone; a board is large.
    if largest_square(sheet & sheet_tone) < ROOM * across or (paper < desk and area < BOARD * small.size):
        return None
    # Light that falls off has no edge.
    beside = other & near(sheet, 3) & ~near(sheet, 1)
    outer = float(np.median(small[beside])) if beside.any() else desk
    inner = float(np.median(small[near(other, 3) & sheet & sheet_tone & ~near(other, 1)]))
    if abs(inner - outer) < max(24, SHARP * abs(paper - desk)):
        return None
    # What has dark strokes on it is paper in a shadow.
    shade, lit = (other & ~near(sheet, 2), paper) if paper > desk else (sheet & ~near(other, 2), desk)
    return None if is_shade(small[shade], lit) else other


def reached(mask: np.ndarray) -> np.ndarray:
    """Tell which True pixels of bool[h, w] are connected with its border."""
    labels, count = components(mask)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    touched = np.zeros(count + 1, bool)
    touched[border] = True
    touched[0] = False
    found: np.ndarray = touched[labels]
    return found
