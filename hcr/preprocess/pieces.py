"""What stands apart from the character: specks, and strokes of a neighbour that reach in at the picture's border."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hcr.preprocess.background import components, near

# A piece of a neighbour: no more than this share of the rest's ink, this far off it in sides of the rest, and the rest
# this far from every border.
NEIGHBOUR, APART, FREE = 0.9, 0.04, 0.06
# Specks: each of this share of the rest's ink, this long, and this far off it.
SPECK, SPECK_LONG, SPECK_APART = 0.02, 0.04, 0.12


def without_outsiders(picture: np.ndarray) -> np.ndarray:
    """Take specks and neighbours' strokes off uint8[H, W] (255 = paper) that paper parts from the rest, side by side.

    Where strokes lie on a border of the picture because it is cut tight, every byte stays.
    """
    sides = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    if sum(int(side.min()) < 255 for side in sides) > 2:
        return picture
    ink = picture < 255
    across, down = np.asarray(ink.any(0)), np.asarray(ink.any(1))
    if not across.any():
        return picture
    (left, right), (top, bottom) = _ends(across), _ends(down)
    if across[left:right].all() and down[top:bottom].all():
        return picture
    box = [top, bottom, left, right]
    while True:
        found = _outermost(ink, box)
        if found is None:
            break
        box = found
    high, wide = picture.shape
    free = FREE * max(box[1] - box[0], box[3] - box[2])
    if box == [top, bottom, left, right] or min(box[0], high - box[1], box[2], wide - box[3]) < free:
        return picture
    kept = np.full_like(picture, 255)
    inside = (slice(box[0], box[1]), slice(box[2], box[3]))
    kept[inside] = picture[inside]
    return kept


def _ends(counts: np.ndarray) -> tuple[int, int]:
    found = np.flatnonzero(counts)
    return int(found[0]), int(found[-1]) + 1


def _outermost(ink: np.ndarray, box: list[int]) -> list[int] | None:
    """Return the box top, bottom, left, right without one piece that is no part of the character, or None."""
    part = ink[box[0] : box[1], box[2] : box[3]]
    total = int(part.sum())
    for axis in (0, 1):
        counts = part.sum(1 - axis)
        empty = np.flatnonzero(counts == 0)
        if not len(empty):
            continue
        for far in (False, True):
            line = counts[::-1] if far else counts
            gap = int(np.flatnonzero(line == 0)[0])
            rest = gap + int(np.flatnonzero(line[gap:])[0])
            mass = int(line[:gap].sum())
            others = total - mass
            if mass > NEIGHBOUR * others:
                continue
            trimmed = part[::-1] if far and axis == 0 else part[:, ::-1] if far else part
            piece = trimmed[:gap] if axis == 0 else trimmed[:, :gap]
            kept = trimmed[rest:] if axis == 0 else trimmed[:, rest:]
            rows, columns = _ends(kept.sum(1)), _ends(kept.sum(0))
            side = max(rows[1] - rows[0], columns[1] - columns[0])
            edges = np.flatnonzero(np.diff(piece.any(axis), prepend=False, append=False))
            lengths = np.diff(edges)[::2]
            long = max(gap, int(lengths.max()))
            small = mass <= SPECK * others * len(lengths) and long <= SPECK_LONG * side
            speck = small and rest - gap >= SPECK_APART * side
            found = list(box)
            place = 2 * axis + int(far)
            found[place] += -rest if far else rest
            at_border = box[place] == (ink.shape[axis] if far else 0)
            if not speck and (not at_border or rest - gap < APART * side):
                continue
            inner = ink[found[0] : found[1], found[2] : found[3]]
            rows, columns = _ends(inner.sum(1)), _ends(inner.sum(0))
            return [found[0] + rows[0], found[0] + rows[1], found[2] + columns[0], found[2] + columns[1]]
    return None


def without_border_pieces(picture: np.ndarray) -> np.ndarray | None:
    """Take off uint8[H, W] the small parts that touch the border; None where there are none, or no rest."""
    scale = max(1, -(-max(picture.shape) // 128))
    ink = Image.fromarray((picture < 160).astype(np.uint8) * 255)
    small = np.asarray(ink.reduce(scale)) > 60
    labels, count = components(small)
    if count < 2:
        return None
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    few = [number for number in border.tolist() if number and areas[number] < 0.25 * areas.sum()]
    if not few or areas[few].sum() > 0.4 * areas.sum():
        return None
    mask = np.isin(labels, few)
    away, kept = (np.kron(part, np.ones((scale, scale), bool)) for part in (mask, small & ~mask))
    # Soft edges go with what they belong to.
    high, wide = picture.shape
    off = (near(away, 3 * scale) & ~near(kept, scale))[:high, :wide]
    return np.where(off, np.uint8(255), picture)
