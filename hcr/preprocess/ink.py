"""The ink on paper that is not flat, or has lines: uneven light divided out, printed lines taken off."""

from __future__ import annotations

import numpy as np

from hcr.preprocess.background import near, paper_light, slide, without_specks
from hcr.preprocess.lines import Line, bands, cut_out, find_lines

LUMA = np.float32((0.299, 0.587, 0.114))
# Cosine of the angle between the colours of ink and line from which on they are two.
SAME_HUE = np.cos(np.radians(12))
# As many times as dark as a line, a pixel is ink.
DARKER = 1.3


def ink_on_paper(grey: np.ndarray, rgb: np.ndarray | None, hidden: np.ndarray | None = None) -> np.ndarray:
    """Even out the paper of uint8[H, W], take lines off it and keep what is dark enough to be ink: 255 = paper.

    rgb: the same in colour, uint8[H, W, 3], or None. hidden: bool[h, w], what lies around the sheet.
    """
    light = paper_light(grey, hidden)
    ratio = grey.astype(np.float32) / light
    if hidden is not None:
        ratio[_enlarged(hidden, grey.shape)] = 1
    paper = ratio > 0.85
    level = float(np.median(ratio[paper])) if paper.any() else 1.0
    ratio /= level
    noise = 1.4826 * float(np.median(np.abs(ratio[ratio > 0.85] - 1))) if paper.any() else 0.0
    return _ink(ratio, noise, lambda: _colours(rgb, light * level) if rgb is not None else None)


def without_lines(picture: np.ndarray, rgb: np.ndarray | None) -> np.ndarray:
    """Take printed lines off flat paper, uint8[H, W] with 255 = paper; where there are none every byte stays."""
    lines = find_lines(picture < 200)
    if not lines:
        return picture
    colours = None
    if rgb is not None:
        tone = np.maximum(np.median(rgb[picture == 255], 0), 1).astype(np.float32)
        colours = rgb / tone
    ratio = picture.astype(np.float32) / 255
    contrast = 1 - float(np.percentile(ratio[ratio < 0.9], 2))
    ratio, least = take_off(ratio, colours, lines, ratio < 0.8, 0.4 * contrast)
    strong = ratio < 1 - least
    if strong.sum() < 6:
        return picture
    return np.where((ratio < 0.97) & near(strong, 2), np.rint(ratio * 255).clip(0, 254), 255).astype(np.uint8)


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


def _ink(ratio: np.ndarray, noise: float, colours: object) -> np.ndarray:
    longest = max(ratio.shape)
    candidates = ratio[ratio < 1 - max(4 * noise, 0.1)]
    if candidates.size < 6:
        return np.full(ratio.shape, 255, np.uint8)
    contrast = 1 - float(np.percentile(candidates, 2))
    # Averages of 3x3 keep single noisy pixels of a large picture from counting as ink.
    soft = ratio if longest < 256 else slide(ratio, 3, np.mean)
    seen = soft < 1 - max(0.3 * contrast, 3 * noise)
    lines = find_lines(seen)
    least, reach = 0.4 * contrast, max(2, longest // 256)
    if lines:
        ratio, least = take_off(ratio, colours(), lines, seen, least)
        soft = ratio if longest < 256 else slide(ratio, 3, np.mean)
        candidates = ratio[ratio < 1 - least]
        if candidates.size < 6:
            return np.full(ratio.shape, 255, np.uint8)
        contrast = 1 - float(np.percentile(candidates, 2))
    strong = without_specks(soft < 1 - least)
    cut = 1 - max(3 * noise, 0.08 * contrast)
    ink = (ratio < cut) & near(strong, reach)
    tones = (ratio - (1 - contrast)) * (255 / max(cut - (1 - contrast), 1e-3))
    return np.where(ink, np.rint(tones).clip(0, 254), 255).astype(np.uint8)


def take_off(
    ratio: np.ndarray, colours: np.ndarray | None, lines: list[Line], seen: np.ndarray, least: float
) -> tuple[np.ndarray, float]:
    """Take lines off float32[H, W] (1 = paper), by colour, lightness or place.

    Gives the same without them, and from what depth on (1 - ratio) a pixel is surely ink.
    """
    on = bands(lines, ratio.shape, -0.2) & seen
    apart = seen & ~bands(lines, ratio.shape, 2.5)
    if apart.sum() < 12 or not on.any():
        return ratio, least
    density = -np.log(np.maximum(ratio, 0.02))
    if colours is not None:
        unmixed = _unmixed(-np.log(np.clip(colours, 0.02, 1.2)), density, on, apart)
        if unmixed is not None:
            density = unmixed
    ratio_without = np.exp(-density)
    line = float(np.percentile(density[on], 60))
    ink = density[apart & (density > max(0.1, DARKER * line))]
    if len(ink) > 0.15 * (density[apart] > 0.1).sum() and np.percentile(ink, 75) > 1.6 * line:
        return ratio_without, max(least, float(1 - np.exp(-DARKER * line)))
    ratio_without = ratio.copy()
    ratio_without[cut_out(seen, lines)] = 1
    return ratio_without, least


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
