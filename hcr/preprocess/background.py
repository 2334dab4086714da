"""Where a picture's paper is: which of its two tones, and how bright at each place.

Clean pictures keep every byte; only where the paper is not flat is it estimated and divided out, which takes a hundred
times as long and may cost the faintest ink.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

# Polarity and paper are looked for in averages of this size, where noise is gone and a stroke is a few pixels wide.
COARSE = 64
FINE = 128

# A shadow is at least this share as light as the paper that lies in the light.
SHADE = 0.3

BOX = Image.Resampling.BOX
BILINEAR = Image.Resampling.BILINEAR


def paper_is_dark(grey: np.ndarray) -> bool:
    """Tell whether the ink of uint8[H, W] is lighter than its paper.

    Paper is what lies on the border and in the corners, what has room for the larger square, and what is flat; a tight
    曰 has nothing but ink on its border, so no one of these is enough.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    border = _border(grey)
    long, short = max(grey.shape), min(grey.shape)
    for tone in (255, 0):
        # Most scans and drawings end here, before anything is resized.
        if long < 4 * short and 2 * counts[tone] > grey.size and 4 * (border == tone).sum() > 3 * border.size:
            return tone == 0
    small = coarse(grey, COARSE)
    if long < 4 * short and _half_in_shadow(small):
        return False
    even = small - _surface(small)
    even -= np.median(even)
    usual = 6 * 1.4826 * np.median(np.abs(even)) + 8
    stands_out = np.abs(even) > usual
    if long < 4 * short and 0 < stands_out.mean() < 0.15:
        # Little ink on much paper: the ink is what stands out from the paper, and the sign says how.
        return bool(even[stands_out].sum() > 0)
    dark, clear = _two_tones(small)
    evened_dark, evened_clear = _two_tones(_to_bytes(even))
    if evened_clear > clear:
        small, dark = _to_bytes(even), evened_dark
    if dark.all() or not dark.any():
        return False
    patch = max(1, min(dark.shape) // 12)
    corners = np.mean([dark[rows, columns].mean() for rows in _ends(patch) for columns in _ends(patch)])
    if long >= 4 * short:
        # So long a crop is one stroke, 一 or 丨: ink in the middle, paper in the corners that it leaves.
        high, wide = dark.shape
        across, along = (high, wide) if high < wide else (wide, high)
        lying = dark if high < wide else dark.T
        middle = lying[across // 3 : across - across // 3, along // 4 : along - along // 4].mean()
        if abs(middle - corners) > 0.3:
            return bool(middle < corners)
    flat = _spread(small[dark]) - _spread(small[~dark])
    room = np.log(largest_square(~dark) / largest_square(dark))
    return bool((0.5 - _border(dark).mean()) + (0.5 - corners) + room + 8 * flat / 255 < 0)


def _half_in_shadow(small: np.ndarray) -> bool:
    """Tell whether the darker of two tones is paper, too, in a hard shadow, with dark ink on it."""
    dark, _ = _two_tones(small)
    inner = small[dark & ~near(~dark, 2)]
    return not dark.all() and inner.size > 0.1 * small.size and is_shade(inner, float(np.median(small[~dark])))


def is_shade(tones: np.ndarray, paper: float) -> bool:
    """Tell whether tones, uint8[N], are of shaded paper, as dark as shadows are and with strokes on it."""
    middle = float(np.median(tones)) if tones.size else 0.0
    strokes = tones < middle - max(0.25 * middle, 12)
    return SHADE * paper < middle < 0.9 * paper and bool(0.005 < strokes.mean() < 0.3)


def _border(picture: np.ndarray) -> np.ndarray:
    return np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])


def _ends(count: int) -> tuple[slice, slice]:
    return slice(None, count), slice(-count, None)


def coarse(grey: np.ndarray, longest: int) -> np.ndarray:
    """Average uint8[H, W] down to at most `longest` pixels on the longer side."""
    high, wide = grey.shape
    scale = longest / max(high, wide)
    if scale >= 1:
        return grey
    return np.asarray(Image.fromarray(grey).resize((max(1, round(wide * scale)), max(1, round(high * scale))), BOX))


def _surface(small: np.ndarray) -> np.ndarray:
    """Fit uneven light: the quadratic surface, in least absolute deviations, through most of the pixels."""
    y, x = np.mgrid[-1 : 1 : small.shape[0] * 1j, -1 : 1 : small.shape[1] * 1j].reshape(2, -1)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    tones = small.ravel().astype(np.float64)
    fitted = np.full_like(tones, np.median(tones))
    for _ in range(8):
        weighted = terms / (np.abs(tones - fitted) + 2)[:, None]
        fitted = terms @ np.linalg.lstsq(weighted.T @ terms, weighted.T @ tones, rcond=None)[0]
    surface: np.ndarray = fitted.reshape(small.shape)
    return surface


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint((values - values.min()) / max(1.0, np.ptp(values) / 255)), np.uint8)


def _two_tones(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """Split into dark and light. Gives bool[H, W] (True = dark) and how clear the split is, 0..1."""
    threshold, clear = _otsu(np.bincount(picture.ravel(), minlength=256))
    return picture <= threshold, clear


def _otsu(counts: np.ndarray) -> tuple[int, float]:
    """Return the tone that splits a histogram best, and the share of its variance that the split explains.

    Source: Otsu 1979, "A threshold selection method from gray-level histograms".
    """
    tones = np.arange(256)
    below, total = np.cumsum(counts), counts.sum()
    moment = np.cumsum(counts * tones)
    mean = moment[-1] / total
    between = (mean * below - moment) ** 2 / np.maximum(below * (total - below), 1)
    # A gap in the histogram is a plateau of equally good thresholds: take its middle.
    best = int(np.flatnonzero(between >= between.max() * (1 - 1e-9)).mean())
    return best, float(between.max() / max((counts * (tones - mean) ** 2).sum() / total, 1e-9))


def _spread(tones: np.ndarray) -> float:
    values = tones.astype(np.float64)
    return float(np.abs(values - np.median(values)).mean())


def largest_square(mask: np.ndarray) -> int:
    """Return the side of the largest square of True."""
    side = 0
    while mask.any():
        side += 1
        mask = mask[1:] & mask[:-1]
        mask = mask[:, 1:] & mask[:, :-1]
    return side


def flat_paper(grey: np.ndarray) -> np.ndarray | None:
    """Make light flat paper of uint8[H, W] exactly 255 and leave the ink; None where the paper is not flat.

    Without ink all is 255.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    present = np.flatnonzero(counts)
    if present[-1] - present[0] < 16:
        return np.full(grey.shape, 255, np.uint8)
    threshold, _ = _otsu(counts)
    # The lightest tone first: in a tight crop the commonest light one is the soft edge of the stroke.
    for paper in (int(present[-1]), threshold + 1 + int(counts[threshold + 1 :].argmax())):
        if counts[paper] * 500 >= grey.size and _is_flat(grey, paper, threshold):
            return np.rint(grey * np.float32(255 / paper)).clip(0, 255).astype(np.uint8) if paper < 255 else grey
    return None


def _is_flat(grey: np.ndarray, paper: int, threshold: int) -> bool:
    """Tell exact paper from paper with noise, compression or shading, which has other tones away from the ink.

    Of 10,608 scanned records one has more than 0 such pixels a pixel of ink beside `paper` (0.3, and only 44 in all);
    JPEG, even at quality 95, has at least 0.15.
    """
    dark, other = grey <= threshold, grey != paper
    # In a picture of few pixels all is near the ink.
    if paper < 255 and np.count_nonzero(~other) < 0.2 * np.count_nonzero(~dark):
        return False
    few = max(48, int(0.15 * np.count_nonzero(dark)))
    soft = other & ~dark
    # Soft edges of strokes count only where they are too many to be strays, which is seldom.
    if np.count_nonzero(soft) <= few:
        return True
    stray = other & (grey > paper - 16)
    if np.count_nonzero(stray) > few:
        stray &= ~near(grey <= paper - 16, 1)
        if np.count_nonzero(stray) > few:
            return False
    if np.count_nonzero(soft) > 5 * few:
        soft &= ~near(dark, 3)
    return bool(np.count_nonzero(soft) <= 5 * few)


def stretched(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring bool[h, w] to another size."""
    high, wide = shape
    return np.asarray(Image.fromarray(mask).resize((wide, high), Image.Resampling.NEAREST))


def near(mask: np.ndarray, distance: int) -> np.ndarray:
    """Tell which pixels of bool[H, W] have a True within a square of `distance` pixels to each side."""
    for axis in (0, 1):
        done = 0
        while done < distance:
            step = min(distance - done, max(1, done))
            wider = mask.copy()
            to, back = (wider[step:], wider[:-step]) if axis == 0 else (wider[:, step:], wider[:, :-step])
            to |= mask[:-step] if axis == 0 else mask[:, :-step]
            back |= mask[step:] if axis == 0 else mask[:, step:]
            mask, done = wider, done + step
    return mask


def paper_light(grey: np.ndarray, hidden: np.ndarray | None = None) -> np.ndarray:
    """Estimate the light paper under the ink of uint8[H, W]: float32[H, W], its tone at each place.

    hidden: bool[H, W], what is no paper at all.
    """
    high, wide = grey.shape
    small = coarse(grey, FINE)
    if hidden is not None:
        away = stretched(hidden, small.shape)
        small = np.where(away, np.uint8(np.median(small[~away])), small) if not away.all() else small
    # A grey closing wider than any stroke shows the paper as it is under the ink. Plain, it follows the edge of a
    # shadow but is too light in a dark corner; on light divided by a surface it is the other way round. Neither is too
    # dark, so the darker one is right. The erosion keeps the edge of a shadow from looking like a stroke.
    window = max(3, max(small.shape) // 4) | 1
    surface = np.maximum(_surface(small), 16)
    paper = np.minimum(_closing(small, window), _closing(small / surface, window) * surface)
    # A finger's shadow is narrower than that window, but wider than a stroke, and lighter than the ink.
    narrow = _closing(small, max(3, max(small.shape) // 10) | 1)
    seen, left = small / np.maximum(paper, 1), narrow / np.maximum(paper, 1)
    marks = seen[seen < 0.8]
    if len(marks) and max(small.shape) > 90:
        darkest = float(np.percentile(marks, 2))
        shade = (left < 0.85) & (left > max(SHADE, darkest + 0.2))
        paper = np.where(shade, narrow, paper)
    paper = slide(paper, 3, np.min)
    soft = Image.fromarray(slide(paper, 3, np.mean).astype(np.float32)).resize((wide, high), BILINEAR)
    light: np.ndarray = np.maximum(np.asarray(soft), 1)
    return light


def without_specks(strong: np.ndarray) -> np.ndarray:
    """Drop connected patches with less than 1/200 of the ink: dust, and the stubs of ruled lines."""
    mass = coarse(strong.astype(np.uint8) * 255, COARSE).astype(np.float64)
    labels, _ = components(mass > 0)
    weights = np.bincount(labels.ravel(), mass.ravel())
    kept = (weights > mass.sum() / 200)[labels] & (mass > 0)
    return np.asarray(strong & stretched(kept, strong.shape))


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the 8-connected parts of bool[h, w]: int[h, w] from 1, 0 where False, and their number."""
    high, wide = mask.shape
    flat = np.zeros((high, wide + 2), np.int8)
    flat[:, 1:-1] = mask
    steps = np.diff(flat, axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    parent = list(range(len(rows)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first = np.searchsorted(rows, np.arange(high + 1)).tolist()
    start_list, end_list = starts.tolist(), ends.tolist()
    for row in range(1, high):
        above, here = first[row - 1], first[row]
        stop_above, stop = first[row], first[row + 1]
        while above < stop_above and here < stop:
            if end_list[above] >= start_list[here] and end_list[here] >= start_list[above]:
                parent[root(above)] = root(here)
            if end_list[above] < end_list[here]:
                above += 1
            else:
                here += 1
    roots = np.array([root(node) for node in range(len(rows))], np.int64)
    _, numbers = np.unique(roots, return_inverse=True)
    change = np.zeros((high, wide + 1), np.int64)
    np.add.at(change, (rows, starts), numbers + 1)
    np.add.at(change, (rows, ends), -(numbers + 1))
    return np.cumsum(change, 1)[:, :-1], int(numbers.max()) + 1 if len(rows) else 0


def _closing(picture: np.ndarray, window: int) -> np.ndarray:
    return slide(slide(picture, window, np.max), window, np.min)


def slide(picture: np.ndarray, window: int, reduce: Callable[..., np.ndarray]) -> np.ndarray:
    """Reduce every window x window neighbourhood to one number, edges repeated."""
    padded = np.pad(picture, window // 2, mode="edge")
    across = reduce(np.lib.stride_tricks.sliding_window_view(padded, window, 1), -1)
    return reduce(np.lib.stride_tricks.sliding_window_view(across, window, 0), -1)
