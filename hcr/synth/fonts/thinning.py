"""From the shapes of characters to their centre lines: thinned, traced, freed of what brushes leave.

Between a font and the writer (`glyphs.py`, `retrace.py`). What a brush draws as an area a pen writes as a line: the
shapes are thinned to lines of one pixel, these are followed from fork to fork, and forks that come only from a brush's
corners and crossings are taken away. All glyphs of a batch at once in numpy: about 1,000 a second, which spares a
library of image processing. The price is that a crossing is four lines that meet, not two strokes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_REACH = 24  # pixels; no brush is wider than twice that
_SPUR = 1.5  # radii of the fork; a line that ends less far from it is a brush's corner
_BRIDGE = 1.2  # radii; two forks nearer than that are one crossing
_UNSURE = 0.9  # radii around a fork in which a thinned line is bent by the other lines
_STEP = 4.0  # pixels between two points of a line, about
_FINE = 1024  # steps of a pixel in which the way along a line is counted
_TIP = 0.8  # radii by which thinning has shortened an open end


class Lines(NamedTuple):
    """Centre lines of n shapes, flat: P points.

    points: float64[P, 2], x and y in pixels. radius: float64[P], to the shape's edge, in pixels.
    line: int64[P], ascending; lines that meet share a point's place. glyph: int64[P], ascending, 0 to n - 1.
    open: bool[P], whether the line ends here and touches no other.
    """

    points: np.ndarray
    radius: np.ndarray
    line: np.ndarray
    glyph: np.ndarray
    open: np.ndarray


class _Chains(NamedTuple):
    """Lines from fork to fork, flat over their pixels; `begin` and `end` (exclusive) of each in `pixel`."""

    pixel: np.ndarray
    begin: np.ndarray
    end: np.ndarray


def centre_lines(shapes: np.ndarray) -> Lines:
    """Find the centre lines of shapes bool[n, R, R], whose rim is empty; a shape may have none."""
    side = shapes.shape[1]
    flat = _thinned(shapes)
    at = np.flatnonzero(flat)
    if not len(at):
        whole, numbers = np.empty((0, 2)), np.empty(0, np.int64)
        return Lines(whole, whole[:, 0], numbers, numbers, numbers > 0)
    number = np.full(flat.size, -1)
    number[at] = np.arange(len(at))
    source, target = _neighbours(at, number, side)
    degree = np.bincount(source, minlength=len(at))
    radius = _radii(shapes, at)
    place = np.stack([at % side, at // side % side], 1).astype(float)
    chains = _chains(source, target, degree, at // side**2)
    return _cleaned(chains, place, radius, at // side**2)


def _thinned(shapes: np.ndarray) -> np.ndarray:
    """Thin to lines of one pixel: uint8, flat.

    Source: Zhang and Suen, A fast parallel algorithm for thinning digital patterns, Communications of the ACM 27, 1984.
    """
    side = shapes.shape[1]
    flat = shapes.astype(np.uint8).ravel()
    around = (-side, 1 - side, 1, side + 1, side, side - 1, -1, -side - 1)  # from above, clockwise
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    count, rises = bits.sum(1), ((bits == 0) & (np.roll(bits, -1, 1) == 1)).sum(1)
    may = (count >= 2) & (count <= 6) & (rises == 1)
    up, right, down, left = (bits[:, k] for k in (0, 2, 4, 6))
    first = may & (up * right * down == 0) & (right * down * left == 0)
    second = may & (up * right * left == 0) & (up * down * left == 0)
    at = np.flatnonzero(flat)
    changed = True
    while changed:
        changed = False
        for erased in (first, second):
            code = np.zeros(len(at), np.uint8)
            for bit, offset in enumerate(around):
                code |= flat[at + offset] << bit
            removed = erased[code]
            if removed.any():
                changed = True
                flat[at[removed]] = 0
                at = at[~removed]
    return flat


def _neighbours(at: np.ndarray, number: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each pair of neighbouring pixels both ways, sorted; corners count where no side joins the two anyway."""
    right, down, left = number[at + 1], number[at + side], number[at - 1]
    pixel = np.arange(len(at))
    pairs = []
    for neighbour, joined in (
        (right, right >= 0),
        (down, down >= 0),
        (number[at + side + 1], (right < 0) & (down < 0)),
        (number[at + side - 1], (left < 0) & (down < 0)),
    ):
        joined = joined & (neighbour >= 0)
        pairs.append(np.stack([pixel[joined], neighbour[joined]]))
    pair = np.concatenate(pairs, 1)
    both = np.concatenate([pair, pair[::-1]], 1)
    source, target = both[:, np.lexsort(both[::-1])]
    return source, target


def _radii(shapes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the distance from each pixel of a shape to the nearest one outside, in pixels less a half."""
    side = shapes.shape[1]
    place = np.arange(side, dtype=np.int16)
    before = np.maximum.accumulate(np.where(shapes, np.int16(-1), place), 2)
    after = np.minimum.accumulate(np.where(shapes, np.int16(side), place)[:, :, ::-1], 2)[:, :, ::-1]
    aside = np.minimum(place - before, after - place).ravel()
    row = at // side % side
    nearest = np.full(len(at), _REACH**2)
    for step in range(-_REACH, _REACH + 1):
        inside = (row + step >= 0) & (row + step < side)
        across = aside[np.where(inside, at + step * side, at)].astype(np.int64)
        nearest = np.where(inside, np.minimum(nearest, across * across + step * step), nearest)
    radius: np.ndarray = np.sqrt(nearest) - 0.5
    return radius


def _chains(source: np.ndarray, target: np.ndarray, degree: np.ndarray, glyph: np.ndarray) -> _Chains:
    """Follow the pixels from each fork or end to the next, and once round each ring; single pixels stand alone."""
    first = np.cumsum(degree) - degree
    both = np.zeros(len(degree), np.int64)
    np.add.at(both, source, target)
    stops = degree != 2
    visited = stops.copy()
    pixels, owners, total = [], [], 0
    start = np.flatnonzero(stops[source])
    while True:
        found, owner = _walks(source[start], target[start], both, stops)
        visited[found] = True
        pixels.append(found)
        owners.append(owner + total)
        total += len(start)
        left = np.flatnonzero(~visited)
        if not len(left):
            break
        # A ring has no fork: it is begun at its first pixel, one ring of each glyph at a time.
        rings = left[np.unique(glyph[left], return_index=True)[1]]
        stops[rings] = visited[rings] = True
        start = np.concatenate([first[rings], first[rings] + 1])
    alone = np.flatnonzero(degree == 0)
    pixel = np.concatenate([*pixels, alone])
    owner = np.concatenate([*owners, total + np.arange(len(alone))])
    order = np.argsort(owner, kind="stable")
    pixel, owner = pixel[order], owner[order]
    begin = np.flatnonzero(np.diff(owner, prepend=-1))
    end = np.append(begin[1:], len(owner))
    # Each was found from both of its ends.
    last = np.maximum(end - 1, begin)
    second, before = pixel[np.minimum(begin + 1, last)], pixel[np.maximum(end - 2, begin)]
    forward, backward = pixel[begin] * len(degree) + second, pixel[last] * len(degree) + before
    kept = forward <= backward
    kept_pixels = np.repeat(kept, end - begin)
    sizes = (end - begin)[kept]
    return _Chains(pixel[kept_pixels], np.cumsum(sizes) - sizes, np.cumsum(sizes))


def _walks(start: np.ndarray, second: np.ndarray, both: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walk from each `start` over `second` to the next stop: all pixels passed, and whose walk each is of, in turns."""
    walk = np.arange(len(start))
    pixels, owners = [start], [walk]
    before, pixel = start, second
    while len(walk):
        pixels.append(pixel)
        owners.append(walk)
        inner = ~stops[pixel]
        before, pixel, walk = pixel[inner], (both[pixel] - before)[inner], walk[inner]
    return np.concatenate(pixels), np.concatenate(owners)


def _cleaned(chains: _Chains, place: np.ndarray, radius: np.ndarray, glyph: np.ndarray) -> Lines:
    """Take away spurs, pull the forks of a crossing together, lengthen open ends, and space the points evenly."""
    ends = np.stack([chains.pixel[chains.begin], chains.pixel[chains.end - 1]], 1)
    steps = chains.end - chains.begin - 1
    kept = ~_spurs(ends, steps, radius)
    # Crossings.
    lines = np.bincount(ends[kept].ravel(), minlength=len(place))
    fork = lines >= 3
    near = steps < _BRIDGE * radius[ends].max(1)
    bridge = kept & near & fork[ends].all(1)
    node = np.arange(len(place))
    while True:
        least = node[ends[bridge]].min(1)
        before = node.copy()
        for side in (0, 1):
            np.minimum.at(node, ends[bridge, side], least)
        node = node[node]
        if np.array_equal(node, before):
            break
    members = np.bincount(node, minlength=len(place)).clip(1)
    middle = np.stack([np.bincount(node, place[:, axis], len(place)) for axis in (0, 1)], 1) / members[:, None]
    wide = np.zeros(len(place))
    np.maximum.at(wide, node, radius)
    ends = node[ends]
    kept &= ~(bridge | ((ends[:, 0] == ends[:, 1]) & (steps > 0) & (steps < 2 * wide[ends[:, 0]])))
    lines = np.bincount(ends[kept].ravel(), minlength=len(place))

    begin, sizes, ends = chains.begin[kept], (chains.end - chains.begin)[kept], ends[kept]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    pixel = chains.pixel[np.repeat(begin, sizes) + within]
    until = np.repeat(sizes, sizes) - 1 - within
    line = np.repeat(np.arange(len(begin)), sizes)
    points, broad = place[pixel], radius[pixel]
    first, last = within == 0, until == 0
    points[first], points[last] = middle[ends[:, 0]], middle[ends[:, 1]]
    points = _even(points, first | last)
    unsure = np.zeros(len(points), bool)
    for side, away in ((0, within), (1, until)):
        fork_of = ends[line, side]
        unsure |= (lines[fork_of] >= 2) & (away < _UNSURE * wide[fork_of])
    used = ~unsure | first | last
    points, broad, line = points[used], broad[used], line[used]
    return _spaced(points, broad, line, glyph[ends[:, 0]], lines[ends] == 1)


def _spurs(ends: np.ndarray, steps: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Tell which lines are only a brush's corner: bool[L]; where a fork has no other, its two longest stay."""
    lines = np.bincount(ends.ravel(), minlength=len(radius))
    free = lines[ends] == 1
    one = free[:, 0] ^ free[:, 1]
    fork = np.where(free[:, 0], ends[:, 1], ends[:, 0])
    tip = np.where(free[:, 0], ends[:, 0], ends[:, 1])
    spur: np.ndarray = one & (lines[fork] >= 3) & (steps + radius[tip] < _SPUR * radius[fork])
    others = lines - np.bincount(fork[spur], minlength=len(radius))
    rows = np.flatnonzero(spur & (others[fork] == 0))
    order = rows[np.lexsort([-steps[rows], fork[rows]])]
    rank = np.arange(len(order)) - np.searchsorted(fork[order], fork[order])
    spur[order[rank < 2]] = False
    return spur


def _even(points: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Take the pixels' stairs from lines; `fixed` points stay."""
    for _ in range(6):
        moved = points.copy()
        moved[1:-1] += 0.25 * (points[:-2] - 2 * points[1:-1] + points[2:])
        points = np.where(fixed[:, None], points, moved)
    return points


def _spaced(points: np.ndarray, radius: np.ndarray, line: np.ndarray, glyph: np.ndarray, free: np.ndarray) -> Lines:
    """Return each line points of about _STEP pixels, open ends lengthened by what thinning took.

    glyph: of each line. free: bool[L, 2], whether the line is open where it begins, where it ends.
    """
    count = len(glyph)
    sizes = np.bincount(line, minlength=count)
    begin = np.cumsum(sizes) - sizes
    end = begin + sizes - 1
    # A dot is a short line.
    single = sizes == 1
    free = free | single[:, None]
    for tip, direction in ((begin, 1), (end, -1)):
        inner = np.clip(tip + direction * 4, begin, end)
        aside = points[tip] - points[inner]
        long = np.hypot(*aside.T)
        short = long < 0.5
        sign = -direction
        aside = np.where(short[:, None], sign * np.array([0.6, 0.8]), aside / np.maximum(long, 0.5)[:, None])
        where = free[:, 0 if direction == 1 else 1]
        tips = tip[where]
        shift = np.zeros_like(points)
        shift[tips] = (_TIP * radius[tips])[:, None] * aside[where]
        if direction == 1:
            opening = shift
        else:
            closing = shift
    # Positions along all lines in a row, in whole steps: sums of these are the same whatever comes before.
    step = np.hypot(*np.diff(points, axis=0, prepend=points[:1]).T)
    step[begin] = 1.0
    along = np.cumsum(np.maximum(1, np.round(step * _FINE)).astype(np.int64))
    number = np.maximum(1, np.round((along[end] - along[begin]) / (_STEP * _FINE))).astype(int) + 1
    line_of = np.repeat(np.arange(count), number)
    within = np.arange(len(line_of)) - np.repeat(np.cumsum(number) - number, number)
    share = within / (number - 1)[line_of]
    target = along[begin][line_of] + np.round(share * (along[end] - along[begin])[line_of]).astype(np.int64)
    first, last = share == 0, share == 1
    spaced = np.stack([np.interp(target, along, points[:, axis]) for axis in (0, 1)], 1)
    spaced[first] = (points + opening)[begin]
    spaced[last] = (points + closing)[end]
    broad = np.interp(target, along, radius)
    is_open = (first & free[line_of, 0]) | (last & free[line_of, 1])
    order = np.argsort(glyph[line_of], kind="stable")
    new = np.cumsum(np.diff(line_of[order], prepend=-1) != 0) - 1
    return Lines(spaced[order], broad[order], new, glyph[line_of][order], is_open[order])
