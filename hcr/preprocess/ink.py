"""The ink on paper that is not flat, or has lines: uneven light divided out, printed lines taken off."""

from __future__ import annotations

import numpy as np

from hcr.preprocess.background import components, near, paper_light, slide, without_specks
from hcr.preprocess.lines import Line, bands, cut_out, find_lines, may_have_lines
from hcr.preprocess.sheet import COARSE

LUMA = np.array((0.299, 0.587, 0.114), np.float32)
# Cosine of the angle between the colours of ink and line from which on they are two.
SAME_HUE = np.cos(np.radians(12))
# Ink is at least this share as dark as the darkest.
INKED = 0.4
# In a smaller picture strokes are as thin as lines.
SMALL = 80
# As many times as dark as a line, a pixel is ink.
DARKER = 1.3


def ink_on_paper(grey: np.ndarray, rgb: np.ndarray | None, hidden: np.ndarray | None = None) -> list[np.ndarray]:
    """Even out the paper of uint8[H, W], take lines off it and keep what is dark enough to be ink: 255 = paper.

    rgb: the same in colour, uint8[H, W, 3], or None. hidden: bool[H, W], what lies around the sheet. Gives two readings
    where it is unsure whether lines are strokes: with and without them.
    """
    light = paper_light(grey, hidden)
    ratio = grey.astype(np.float32) / light
    if hidden is not None:
        ratio[near(hidden, 1 + max(grey.shape) // COARSE)] = 1
    paper = ratio > 0.85
    level = float(np.median(ratio[paper])) if paper.any() else 1.0
    ratio /= level
    noise = 1.4826 * float(np.median(np.abs(ratio[ratio > 0.85] - 1))) if paper.any() else 0.0
    corners = _corners(ratio < 0.5)
    if corners is not None:
        ratio[corners] = 1
    candidates = ratio[ratio < 1 - max(4 * noise, 0.1)]
    if candidates.size < 6:
        return [np.full(ratio.shape, 255, np.uint8)]
    contrast = 1 - float(np.percentile(candidates, 2))
    seen = _soft(ratio) < 1 - max(0.3 * contrast, 3 * noise)
    lines = find_lines(seen)
    if not lines:
        return [_ink(ratio, noise, INKED * contrast)]
    colours = _colours(rgb, light * level) if rgb is not None else None
    return [_ink(without, noise, least) for without, least in take_off(ratio, colours, lines, seen)]


def _corners(dark: np.ndarray) -> np.ndarray | None:
    """Find what of bool[H, W] fills a corner, as a desk beside the sheet does; None where nothing does."""
    reach = max(1, max(dark.shape) // 40)
    places = [(row, column) for row in (0, -1) for column in (0, -1)]
    if not any(dark[place] for place in places):
        return None
    # Eroded so far no stroke is left; beyond the border lies more of the same.
    core = ~near(np.pad(~dark, reach, mode="edge"), reach)[reach:-reach, reach:-reach]
    if not any(core[place] for place in places):
        return None
    labels, _ = components(core)
    found = np.isin(labels, [labels[place] for place in places if core[place]])
    found = near(found, 2 * reach + 1)
    return found if found.mean() < 0.3 else None


def without_lines(picture: np.ndarray, rgb: np.ndarray | None) -> list[np.ndarray]:
    """Take printed lines off flat paper, uint8[H, W] with 255 = paper; where there are none every byte stays.

    Gives two readings where it is unsure whether lines are strokes.
    """
    dark = picture < 200
    if not may_have_lines(dark):
        return [picture]
    lines = find_lines(dark)
    if not lines:
        return [picture]
    colours = None
    if rgb is not None:
        colours = rgb / np.maximum(np.median(rgb[picture == 255], 0), 1).astype(np.float32)
    ratio = picture.astype(np.float32) / 255
    found = []
    for without, least in take_off(ratio, colours, lines, dark):
        if without is ratio:
            found.append(picture)
            continue
        kept = (without < 0.97) & near(without < 1 - least, 2)
        if kept.any():
            found.append(np.where(kept, np.rint(without * 255).clip(0, 254), 255).astype(np.uint8))
    return found or [picture]


def _soft(ratio: np.ndarray) -> np.ndarray:
    """Average 3x3 in a large picture, where else single noisy pixels would count as ink."""
    return ratio if max(ratio.shape) < 256 else slide(ratio, 3, np.mean)


def _colours(rgb: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Divide the paper out of each colour: float32[H, W, 3], 1 = paper."""
    ratio = rgb / light[..., None]
    sample = ratio[::4, ::4].reshape(-1, 3)
    bright = sample[sample @ LUMA > 0.9]
    tint = np.median(bright, 0) if len(bright) else np.ones(3)
    even: np.ndarray = ratio / np.maximum(tint, 0.05).astype(np.float32)
    return even


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
    ratio: np.ndarray, colours: np.ndarray | None, lines: list[Line], seen: np.ndarray
) -> list[tuple[np.ndarray, float]]:
    """Take lines off float32[H, W] (1 = paper), by colour, lightness or place.

    Gives the same without them, and from what depth on (1 - ratio) a pixel is ink: a pair for each way to read the
    picture, the likeliest first; `ratio` itself where the lines may be strokes.
    """
    on = bands(lines, ratio.shape) & seen
    apart = seen & ~bands(lines, ratio.shape, 2.5)
    plain = (ratio, INKED * _contrast(ratio))
    if apart.sum() < max(12, 0.08 * seen.sum()) or not on.any():
        return [plain]
    density = -np.log(np.maximum(ratio, 0.02))
    parted = _unmixed(-np.log(np.clip(colours, 0.02, 1.2)), on, apart) if colours is not None else None
    if parted is not None:
        density = parted
    line = float(np.percentile(density[on], 60))
    # How dark the middle of the stroke is that a pixel belongs to.
    middles = _darkest(density)[apart & (density > 0.1)]
    ink = middles[middles > DARKER * line]
    lighter = len(ink) > 0.15 * len(middles) and np.percentile(ink, 20) > 1.2 * DARKER * line
    if parted is not None and lighter:
        without = np.exp(-density)
        return [(without, max(INKED * _contrast(without), float(1 - np.exp(-DARKER * line))))]
    alone = cut_out(seen, lines)
    cut = ratio.copy()
    cut[alone] = 1
    without_place = (cut, INKED * _contrast(cut))
    if lighter:
        # Diagonals and dashes of the lines' tone go with them, where no ink is near.
        dark = density > DARKER * line
        without = ratio.copy()
        without[(alone & ~dark) | ~near(dark, 3)] = 1
        by_tone = (without, INKED * _contrast(without))
        return [by_tone] if len(ink) > 0.7 * len(middles) else [by_tone, without_place]
    rest = seen & ~bands(lines, ratio.shape, 2.0)
    if max(rest.shape) >= SMALL and (_longer(lines, rest) or _finer(lines, rest)):
        return [without_place]
    return [plain, without_place]


def _contrast(ratio: np.ndarray) -> float:
    """Return how much darker than paper the darkest ink is, 0 to 1."""
    ink = ratio[ratio < 0.9]
    return 1 - float(np.percentile(ink, 2)) if ink.size else 0.0


def _darkest(density: np.ndarray) -> np.ndarray:
    """Return the largest of each 5x5 neighbourhood."""
    return slide(density, 5, np.max)


def _longer(lines: list[Line], rest: np.ndarray) -> bool:
    """Tell whether all lines go on where the rest of the ink, bool[H, W], has ended."""
    rows, columns = np.flatnonzero(rest.sum(1) > 1), np.flatnonzero(rest.sum(0) > 1)
    if not len(rows) or not len(columns):
        return False
    alone = len({line.upright for line in lines}) == len(lines)
    for line in lines:
        (first, last), (low, high) = (rows[[0, -1]], columns[[0, -1]])[:: 1 if line.upright else -1]
        room = 0.03 * (line.end - line.start)
        if first - line.start < room or line.end - last < room:
            return False
        # The long stroke of 十 lies in its middle.
        if alone and low + 0.25 * (high - low) < line.middle < high - 0.25 * (high - low):
            return False
    return True


def _finer(lines: list[Line], rest: np.ndarray) -> bool:
    """Tell whether the rest of the ink, bool[H, W], is of a pen that does not draw so fine lines."""
    reach = int(max(line.thick for line in lines) / 2) + 1
    core = rest & ~near(np.pad(~rest, 1, constant_values=True), reach)[1:-1, 1:-1]
    return bool(core.sum() > 0.1 * rest.sum())


def _unmixed(densities: np.ndarray, on: np.ndarray, apart: np.ndarray) -> np.ndarray | None:
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
    density: np.ndarray = np.maximum(amount, 0) * float(ink @ LUMA)
    return density
