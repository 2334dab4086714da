"""The ink on paper that is not flat, or has lines: uneven light divided out, printed lines taken off."""

from __future__ import annotations

import numpy as np

from hcr.preprocess.background import near, paper_light, slide, without_specks
from hcr.preprocess.lines import Line, bands, cut_out, find_lines, may_have_lines

LUMA = np.float32((0.299, 0.587, 0.114))
# Cosine of the angle between the colours of ink and line from which on they are two.
SAME_HUE = np.cos(np.radians(12))
# As many times as dark as a line, a pixel is ink.
DARKER = 1.3


def ink_on_paper(grey: np.ndarray, rgb: np.ndarray | None, hidden: np.ndarray | None = None) -> list[np.ndarray]:
    """Even out the paper of uint8[H, W], take lines off it and keep what is dark enough to be ink: 255 = paper.

    rgb: the same in colour, uint8[H, W, 3], or None. hidden: bool[h, w], what lies around the sheet. Gives two readings
    where it is unsure whether lines are strokes: with and without them.
    """
    light = paper_light(grey, hidden)
    ratio = grey.astype(np.float32) / light
    if hidden is not None:
        ratio[_enlarged(hidden, grey.shape)] = 1
    paper = ratio > 0.85
    level = float(np.median(ratio[paper])) if paper.any() else 1.0
    ratio /= level
    noise = 1.4826 * float(np.median(np.abs(ratio[ratio > 0.85] - 1))) if paper.any() else 0.0
    candidates = ratio[ratio < 1 - max(4 * noise, 0.1)]
    if candidates.size < 6:
        return [np.full(ratio.shape, 255, np.uint8)]
    contrast = 1 - float(np.percentile(candidates, 2))
    seen = _soft(ratio) < 1 - max(0.3 * contrast, 3 * noise)
    lines = find_lines(seen)
    least = 0.4 * contrast
    if not lines:
        return [_ink(ratio, noise, least)]
    colours = _colours(rgb, light * level) if rgb is not None else None
    without, sure, bare = take_off(ratio, colours, lines, seen, least)
    read = _ink(without, noise, bare)
    return [read] if sure else [_ink(ratio, noise, least), read]


def without_lines(picture: np.ndarray, rgb: np.ndarray | None) -> np.ndarray:
    """Take printed lines off flat paper, uint8[H, W] with 255 = paper; where there are none every byte stays."""
    dark = picture < 200
    if not may_have_lines(dark):
        return picture
    lines = find_lines(dark)
    if not lines:
        return picture
    colours = None
    if rgb is not None:
        tone = np.maximum(np.median(rgb[picture == 255], 0), 1).astype(np.float32)
        colours = rgb / tone
    ratio = picture.astype(np.float32) / 255
    contrast = 1 - float(np.percentile(ratio[dark], 2))
    without, sure, least = take_off(ratio, colours, lines, dark, 0.4 * contrast)
    strong = without < 1 - least
    if not sure or strong.sum() < 6:
        return picture
    return np.where((without < 0.97) & near(strong, 2), np.rint(without * 255).clip(0, 254), 255).astype(np.uint8)


def _soft(ratio: np.ndarray) -> np.ndarray:
    """Average 3x3 in a large picture, where else single noisy pixels would count as ink."""
    return ratio if max(ratio.shape) < 256 else slide(ratio, 3, np.mean)


def _enlarged(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    big = np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST))
    return near(big, min(7, 1 + max(shape) // max(mask.shape)))


def _colours(rgb: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Divide the paper out of each colour: float32[H, W, 3], 1 = paper."""
    ratio = rgb / light[..., None]
    sample = ratio[::4, ::4].reshape(-1, 3)
    bright = sample[sample @ LUMA > 0.9]
    tint = np.median(bright, 0) if len(bright) else np.ones(3)
    return ratio / np.maximum(tint, 0.05).astype(np.float32)


def _ink(ratio: np.ndarray, noise: float, least: float) -> np.ndarray:
    """Keep what is `least` deep in float32[H, W] (1 = paper), and its soft edges: uint8[H, W]."""
    candidates = ratio[ratio < 1 - max(4 * noise, 0.1)]
    if candidates.size < 6:
        return np.full(ratio.shape, 255, np.uint8)
    contrast = 1 - float(np.percentile(candidates, 2))
    strong = without_specks(_soft(ratio) < 1 - least)
    cut = 1 - max(3 * noise, 0.08 * contrast)
    ink = (ratio < cut) & near(strong, max(2, max(ratio.shape) // 256))
    tones = (ratio - (1 - contrast)) * (255 / max(cut - (1 - contrast), 1e-3))
    return np.where(ink, np.rint(tones).clip(0, 254), 255).astype(np.uint8)


def take_off(
    ratio: np.ndarray, colours: np.ndarray | None, lines: list[Line], seen: np.ndarray, least: float
) -> tuple[np.ndarray, bool, float]:
    """Take lines off float32[H, W] (1 = paper), by colour, lightness or place.

    Gives the same without them, whether they are lines for sure, and from what depth on (1 - ratio) a pixel is ink.
    """
    on = bands(lines, ratio.shape) & seen
    apart = seen & ~bands(lines, ratio.shape, 2.5)
    if apart.sum() < 12 or not on.any():
        return ratio, False, least
    density = -np.log(np.maximum(ratio, 0.02))
    parted = False
    if colours is not None:
        unmixed = _unmixed(-np.log(np.clip(colours, 0.02, 1.2)), density, on, apart)
        if unmixed is not None:
            density, parted = unmixed, True
    line = float(np.percentile(density[on], 60))
    # How dark the middle of the stroke is that a pixel belongs to.
    middles = _darkest(density)[apart & (density > 0.1)]
    ink = middles[middles > DARKER * line]
    lighter = len(ink) > 0.15 * len(middles) and np.percentile(ink, 20) > 1.2 * DARKER * line
    if parted and lighter:
        return np.exp(-density), True, max(least, float(1 - np.exp(-DARKER * line)))
    alone = cut_out(seen, lines)
    without = ratio.copy()
    if lighter:
        # Diagonals and dashes of the lines' tone go with them, where no ink is near.
        dark = density > DARKER * line
        without[(alone & ~dark) | ~near(dark, 3)] = 1
        return without, True, least
    without[alone] = 1
    return without, _longer(lines, seen & ~bands(lines, ratio.shape, 2.0)), least


def _darkest(density: np.ndarray) -> np.ndarray:
    """Return the largest of each 5x5 neighbourhood."""
    return slide(density, 5, np.max)


def _longer(lines: list[Line], rest: np.ndarray) -> bool:
    """Tell whether all lines go on where the rest of the ink, bool[H, W], has ended."""
    rows, columns = np.flatnonzero(rest.sum(1) > 1), np.flatnonzero(rest.sum(0) > 1)
    if not len(rows) or not len(columns):
        return False
    for line in lines:
        first, last = (rows[0], rows[-1]) if line.upright else (columns[0], columns[-1])
        room = 0.03 * (line.end - line.start)
        if first - line.start < room or line.end - last < room:
            return False
    return True


def _unmixed(
    densities: np.ndarray, density: np.ndarray, on: np.ndarray, apart: np.ndarray
) -> np.ndarray | None:
    """Part the densities of colours, float32[H, W, 3], into ink and line: the ink's float32[H, W], None where alike.

    Source: Ruifrok and Johnston 2001, "Quantification of histochemical staining by color deconvolution".
    """
    line = np.median(densities[on], 0)
    line = line / max(float(np.linalg.norm(line)), 1e-6)
    others = densities[apart]
    length = np.linalg.norm(others, axis=1)
    angle = (others @ line) / np.maximum(length, 1e-6)
    differ = (angle < SAME_HUE) & (length > 0.3)
    if differ.sum() < max(12, 0.15 * len(others)):
        return None
    dark = length[differ] >= np.percentile(length[differ], 50)
    ink = np.median(others[differ][dark], 0)
    ink = ink / max(float(np.linalg.norm(ink)), 1e-6)
    alike = float(ink @ line)
    if alike > SAME_HUE:
        return None
    on_ink, on_line = densities @ ink, densities @ line
    amount = (on_ink - alike * on_line) / (1 - alike * alike)
    # Where the line's share would be negative there is none.
    amount = np.where(on_line - alike * on_ink < 0, on_ink, amount)
    return np.maximum(amount, 0) * float(ink @ LUMA)
