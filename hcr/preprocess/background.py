"""Polarity detection and background normalisation: which of a picture's two tones is paper, and how bright everywhere.

`paper_is_dark` detects the polarity. `whiten` makes the paper exactly 255: by its one tone where the paper is flat,
else by background estimation and flat-field correction (dividing by the estimate), then a threshold for ink. Clean
pictures keep every byte. The correction takes a hundred times as long and may cost the faintest ink.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

# Polarity and background are estimated in averages of these sizes, where noise is gone and a stroke is a few pixels
# wide.
COARSE = 64
FINE = 128

BOX = Image.Resampling.BOX
BILINEAR = Image.Resampling.BILINEAR


def paper_is_dark(grey: np.ndarray) -> bool:
    """Return whether the ink of uint8[H, W] is lighter than its paper: polarity detection.

    Paper is what lies on the border and in the corners, what has room for the larger square, and what is flat. A tight
    曰 has nothing but ink on its border, so no one of these is enough.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    border = _border(grey)
    long, short = max(grey.shape), min(grey.shape)
    for tone in (255, 0):
        # Most scans and drawings end here, before anything is resized.
        if long < 4 * short and 2 * counts[tone] > grey.size and 4 * (border == tone).sum() > 3 * border.size:
            return tone == 0
    small = _coarse(grey, COARSE)
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
    room = np.log(_largest_square(~dark) / _largest_square(dark))
    return bool((0.5 - _border(dark).mean()) + (0.5 - corners) + room + 8 * flat / 255 < 0)


def _border(picture: np.ndarray) -> np.ndarray:
    return np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])


def _ends(count: int) -> tuple[slice, slice]:
    return slice(None, count), slice(-count, None)


def _coarse(grey: np.ndarray, longest: int) -> np.ndarray:
    """Return uint8[H, W] averaged down (box filter) to at most `longest` pixels on the longer side."""
    high, wide = grey.shape
    scale = longest / max(high, wide)
    if scale >= 1:
        return grey
    return np.asarray(Image.fromarray(grey).resize((max(1, round(wide * scale)), max(1, round(high * scale))), BOX))


def _surface(small: np.ndarray) -> np.ndarray:
    """Return the background estimate float64[h, w] of uneven light: a quadratic surface through most of the pixels.

    It is fitted in least absolute deviations, by iteratively reweighted least squares, so that ink hardly moves it.
    """
    y, x = np.mgrid[-1 : 1 : small.shape[0] * 1j, -1 : 1 : small.shape[1] * 1j].reshape(2, -1)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    tones = small.ravel().astype(np.float64)
    fitted = np.full_like(tones, np.median(tones))
    for _ in range(8):
        weighted = terms / (np.abs(tones - fitted) + 2)[:, None]
        fitted = terms @ np.linalg.lstsq(weighted.T @ terms, weighted.T @ tones, rcond=None)[0]
    return fitted.reshape(small.shape)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    tones: np.ndarray = np.rint((values - values.min()) / max(1.0, np.ptp(values) / 255)).astype(np.uint8)
    return tones


def _two_tones(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the split by Otsu's threshold, bool[H, W] (True = dark), and how clear the split is, 0..1."""
    threshold, clear = _otsu(np.bincount(picture.ravel(), minlength=256))
    return picture <= threshold, clear


def _otsu(counts: np.ndarray) -> tuple[int, float]:
    """Return Otsu's threshold of a histogram int[256], and the share of its variance that the split explains.

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


def _largest_square(mask: np.ndarray) -> int:
    """Return the side of the largest square of True."""
    side = 0
    while mask.any():
        side += 1
        mask = mask[1:] & mask[:-1]
        mask = mask[:, 1:] & mask[:, :-1]
    return side


def whiten(grey: np.ndarray) -> np.ndarray:
    """Return uint8[H, W] with its light paper exactly 255 and its ink kept; without ink all is 255.

    Flat paper is scaled to 255 by its one tone. Other paper is estimated and divided out (`_divide_paper`).
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
    return _divide_paper(grey)


def _is_flat(grey: np.ndarray, paper: int, threshold: int) -> bool:
    """Return whether the background is one exact tone: noise, compression and shading have others away from the ink.

    Of 10,608 scanned records one has more than 0 such pixels a pixel of ink beside `paper` (0.3, and only 44 in all);
    JPEG, even at quality 95, has at least 0.15.
    """
    few = max(48, int(0.15 * (grey <= threshold).sum()))
    other = grey != paper
    stray = other & (grey > paper - 16) & ~_near(grey <= paper - 16, 1)
    shade = other & ~_near(grey <= threshold, 3)
    return bool(stray.sum() <= few and shade.sum() <= 5 * few)


def _near(mask: np.ndarray, distance: int) -> np.ndarray:
    """Return a mask dilated by a square of `distance` (at most 7) pixels to each side."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(distance))) > 0


def _divide_paper(grey: np.ndarray) -> np.ndarray:
    """Return uint8[H, W] after flat-field correction: divided by the estimated background, and cut to ink.

    Ink is found by a hysteresis threshold: what is strongly dark, and what is darker than noise beside it.
    """
    high, wide = grey.shape
    longest = max(high, wide)
    small = _coarse(grey, FINE)
    # A grey closing (morphology) wider than any stroke shows the paper as it is under the ink. A plain one follows the
    # edge of a shadow but is too light in a dark corner; a closing of the picture divided by the surface does the
    # reverse. Neither is too dark, so the darker one is right. The erosion after it keeps the edge of a shadow from
    # looking like a stroke.
    window = max(3, max(small.shape) // 4) | 1
    surface = np.maximum(_surface(small), 16)
    paper = np.minimum(_closing(small, window), _closing(small / surface, window) * surface)
    paper = _slide(paper, 5, np.min)
    light = Image.fromarray(_slide(paper, 3, np.mean).astype(np.float32)).resize((wide, high), BILINEAR)
    ratio = grey.astype(np.float32) / np.maximum(np.asarray(light), 1)
    ratio /= np.median(ratio[ratio > 0.85]) if (ratio > 0.85).any() else 1
    noise = 1.4826 * float(np.median(np.abs(ratio[ratio > 0.85] - 1)))
    candidates = ratio[ratio < 1 - max(4 * noise, 0.1)]
    if candidates.size < 6:
        return np.full(grey.shape, 255, np.uint8)
    contrast = 1 - float(np.percentile(candidates, 2))
    # Averages of 3x3 keep single noisy pixels of a large picture from counting as ink.
    soft = ratio if longest < 256 else _slide(ratio, 3, np.mean)
    strong = _without_specks(soft < 1 - 0.4 * contrast)
    cut = 1 - max(3 * noise, 0.08 * contrast)
    ink = (ratio < cut) & _near(strong, max(2, longest // 256))
    tones = (ratio - (1 - contrast)) * (255 / max(cut - (1 - contrast), 1e-3))
    return np.where(ink, np.rint(tones).clip(0, 254), 255).astype(np.uint8)


def _without_specks(strong: np.ndarray) -> np.ndarray:
    """Return a mask without connected components of less than 1/200 of its ink: dust, and ends of ruled lines."""
    mass = _coarse(strong.astype(np.uint8) * 255, COARSE).astype(np.float64)
    labels = np.where(mass > 0, np.arange(1, mass.size + 1).reshape(mass.shape), 0)
    while True:
        spread = np.where(mass > 0, _slide(labels, 3, np.max), 0)
        if (spread == labels).all():
            break
        labels = spread
    weights = np.bincount(labels.ravel(), mass.ravel())
    kept = (weights > mass.sum() / 200)[labels] & (mass > 0)
    shape = strong.shape[::-1]
    cleaned: np.ndarray = strong & np.asarray(Image.fromarray(kept).resize(shape, Image.Resampling.NEAREST))
    return cleaned


def _closing(picture: np.ndarray, window: int) -> np.ndarray:
    """Return the grey closing of a picture by a square of `window` pixels."""
    return _slide(_slide(picture, window, np.max), window, np.min)


def _slide(picture: np.ndarray, window: int, reduce: Callable[..., np.ndarray]) -> np.ndarray:
    """Return a picture of every window × window neighbourhood reduced to one number, edges repeated."""
    padded = np.pad(picture, window // 2, mode="edge")
    across = reduce(np.lib.stride_tricks.sliding_window_view(padded, window, 1), -1)
    return reduce(np.lib.stride_tricks.sliding_window_view(across, window, 0), -1)
