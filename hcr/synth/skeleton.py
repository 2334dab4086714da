"""The strokes of characters, from their medians: what each is, and what they have to do with each other.

Between the stroke table and the rules of running script. Medians are cut evenly, freed of serifs, split at corners and
named by direction. The medians are those of a printed book hand: the small bends with which its strokes set in and end,
which no ballpoint makes, are cut off here. All strokes of a charset are treated at once.

Of a character then follow its parts, the ends that stick out beyond the rest (`overhangs`), and which strokes touch
(`contacts`). The last two look for the nearest points of other strokes, coarsely: a character has some two hundred.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

CUTS = 48
"""Points of each line, evenly spaced."""

HENG, SHU, PIE, NA, DOT, TI, BENT = range(7)
"""Kinds of strokes: level, upright, falling left, falling right, short, rising, and those with corners."""

_WINDOW = 0.075  # sides of the box: a corner turns within this much
_CORNER = np.radians(48)
_SERIF = 0.085  # a first or last piece below this that turns less than a hook was made by a brush
_FEW = 12  # knots; a line of more was copied from strokes
_HOOK_TURN = np.radians(82)
_HOOK = 0.2
_SHORT = 0.2
_MET = 0.11  # sides of the box: a box is closed where its strokes come this near
_COARSE = 4  # every so many points of a line are looked at
_NEAR = 0.06  # sides of the box: closer strokes hold each other
_TOUCH = 0.08
_BASE = 0.15  # from the lowest ink
_OVERLAP = 0.095  # by how much two parts may reach into each other: 宀 and what stands below it, 钅 and its neighbour


@dataclass
class Stroke:
    """One line of the pen, and when it is written.

    line: float[CUTS, 2] in the unit box. corners: positions in it, 0 and CUTS - 1 among them, ascending.
    kind: of HENG …; hooked: whether the last piece is a hook.
    place: number of the stroke in its character, from which its random numbers come.
    low, high: it is written where the hand's liking for its site falls between the two, 0 to 1; `high` may be inf.
    site: number of the site within the character, 0 for what is always written; rule: which rule made the site.
    tie: how much likelier than others it is joined to the next, 0-1; 2: always.
    """

    line: np.ndarray
    corners: list[int]
    kind: int
    hooked: bool
    place: int = 0
    low: float = 0.0
    high: float = np.inf
    site: int = 0
    rule: int = 0
    tie: float = 0.0

    def at(self, corner: int) -> np.ndarray:
        """Return the place of a corner, counted as lists are; 0 is the start, -1 the end."""
        point: np.ndarray = self.line[self.corners[corner]]
        return point

    @property
    def start(self) -> np.ndarray:
        return self.at(0)

    @property
    def end(self) -> np.ndarray:
        return self.at(-1)

    @property
    def body_end(self) -> np.ndarray:
        """Where the stroke ends without its hook."""
        return self.at(-2) if self.hooked else self.end

    def direction(self, piece: int) -> float:
        """Return the angle of a piece in degrees: 0 to the right, 90 down, 180 or -180 to the left."""
        x, y = self.line[self.corners[piece]].tolist()
        next_x, next_y = self.line[self.corners[piece + 1]].tolist()
        return math.degrees(math.atan2(next_y - y, next_x - x))

    @property
    def pieces(self) -> int:
        return len(self.corners) - 1


def strokes_of(lines: Sequence[np.ndarray]) -> list[Stroke]:
    """Cut each median, float[K, 2], evenly, and find its corners, its kind, and whether it has a hook."""
    cut, length = _cut(lines)
    corners = _corners(cut, length)
    starts, ends = _without_serifs(cut, length, corners)
    trimmed, length = _between(cut, starts, ends)
    return [
        _named(line, float(size), _listed(turns))
        for line, size, turns in zip(trimmed, length, _corners(trimmed, length), strict=True)
    ]


def strokes_through(lines: Sequence[np.ndarray]) -> list[Stroke]:
    """Return the strokes of lines that the rules of running script made; a line of few knots has its corners there.

    Such a line has no hook: its end is needed as much as the rest.
    """
    if not lines:
        return []
    cut, length = _cut(lines)
    strokes = []
    for line, even, size, turns in zip(lines, cut, length, _corners(cut, length), strict=True):
        corners = _listed(turns)
        if len(line) <= _FEW:
            along = np.cumsum(np.hypot(*np.diff(line, axis=0).T)) / size * (CUTS - 1)
            corners = sorted({0, *np.round(along).astype(int).tolist()})
        stroke = _named(even, float(size), corners)
        stroke.hooked &= len(line) > _FEW
        strokes.append(stroke)
    return strokes


def _listed(turns: np.ndarray) -> list[int]:
    return [0, *np.flatnonzero(turns).tolist(), CUTS - 1]


def _cut(lines: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return CUTS points of each line, float[Q, CUTS, 2], and its length."""
    knots = np.concatenate(lines).astype(float)
    starts = np.cumsum([0] + [len(line) for line in lines[:-1]])
    # All lines lie on one ruler, one unit apart, so that a single interpolation cuts them all.
    steps = np.hypot(*np.diff(knots, axis=0, prepend=knots[:1]).T)
    steps[starts] = 1
    ruler = np.cumsum(steps)
    first = ruler[starts]
    length = np.append(first[1:] - 1, ruler[-1]) - first
    at = first[:, None] + np.linspace(0, 1, CUTS) * length[:, None]
    return np.stack([np.interp(at, ruler, knots[:, axis]) for axis in (0, 1)], -1), length


def _turns(cut: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much each line turns at each point, float[Q, CUTS], and how many points its window holds."""
    window = np.maximum(1, np.round(_WINDOW / np.maximum(length, 1e-3) * (CUTS - 1))).astype(int)
    places = np.arange(CUTS)
    rows = np.arange(len(cut))[:, None]
    back = cut - cut[rows, np.maximum(places - window[:, None], 0)]
    ahead = cut[rows, np.minimum(places + window[:, None], CUTS - 1)] - cut
    across = back[..., 0] * ahead[..., 1] - back[..., 1] * ahead[..., 0]
    angle: np.ndarray = np.abs(np.arctan2(across, (back * ahead).sum(-1)))
    return angle, window


def _corners(cut: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Mark the corners: bool[Q, CUTS], where a line turns sharply and more than anywhere near."""
    turn, window = _turns(cut, length)
    inner = (np.arange(CUTS) >= 2) & (np.arange(CUTS) < CUTS - 2)
    corner: np.ndarray = (turn > _CORNER) & inner & (length > 0.1)[:, None]
    place = np.arange(CUTS)
    for line in np.flatnonzero(corner.any(1)):
        found = np.flatnonzero(corner[line])
        near = np.abs(found[:, None] - place) <= 1.3 * window[line]
        later = place > found[:, None]
        turned, others = turn[line, found][:, None], turn[line]
        sharpest = ~near | (turned > others) | (later & (turned == others)) | (place == found[:, None])
        corner[line, found] = sharpest.all(1)
    return corner


def _without_serifs(cut: np.ndarray, length: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each line begins and ends without its serifs, as positions among its points."""
    turn, _ = _turns(cut, length)
    unit = length / (CUTS - 1)
    starts, ends = np.zeros(len(cut)), np.full(len(cut), CUTS - 1.0)
    for line in np.flatnonzero(corners.any(1)):
        found = np.flatnonzero(corners[line])
        first, last = found[0], found[-1]
        if first * unit[line] < min(_SERIF, 0.3 * length[line]) and turn[line, first] < _HOOK_TURN:
            starts[line] = first
        rest = (CUTS - 1 - last) * unit[line]
        if rest < min(_SERIF, 0.3 * length[line]) and turn[line, last] < _HOOK_TURN and last > starts[line]:
            ends[line] = last
    return starts, ends


def _between(cut: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut each line anew between two positions; return it and its length."""
    at = starts[:, None] + np.linspace(0, 1, CUTS) * (ends - starts)[:, None]
    lines = interpolate(cut, np.arange(len(cut))[:, None], at)
    return lines, np.hypot(*np.moveaxis(np.diff(lines, axis=1), -1, 0)).sum(1)


def interpolate(lines: np.ndarray, which: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the points of lines[which] at positions `at`, 0 to CUTS - 1, which may lie between two points."""
    below = np.minimum(at.astype(int), CUTS - 2)
    share = (at - below)[..., None]
    points: np.ndarray = lines[which, below] * (1 - share) + lines[which, below + 1] * share
    return points


def _named(line: np.ndarray, length: float, corners: list[int]) -> Stroke:
    stroke = Stroke(line, corners, BENT, False)
    angle = stroke.direction(0)
    if stroke.pieces == 1:
        if length > 1.2 * math.dist(line[0], line[-1]):
            return stroke
        if abs(angle) < 28:
            stroke.kind = HENG
        elif angle < 0:
            stroke.kind = TI
        elif length < _SHORT:
            stroke.kind = DOT
        else:
            stroke.kind = NA if angle < 65 else SHU if angle < 102 else PIE
    else:
        last = math.dist(stroke.at(-2), stroke.end)
        before, after = (stroke.direction(piece) for piece in (stroke.pieces - 2, stroke.pieces - 1))
        turn = abs((after - before + 180) % 360 - 180)
        # A short upright after a level piece is the side of a small box, 口; a hook there falls to the left, as in 宀.
        box = abs(before) < 28 and 60 < after < 117
        stroke.hooked = last < _HOOK and last < 0.45 * length and turn > 75 and not box
        if stroke.hooked and stroke.pieces == 2:
            stroke.kind = HENG if abs(angle) < 28 else SHU if 65 < angle < 110 else BENT
    return stroke


def without_false_hooks(strokes: Sequence[Stroke]) -> list[Stroke]:
    """Return the strokes of a character with the right sides of low boxes, 虫 in 独, no longer taken for hooks."""
    found = list(strokes)
    for place in range(1, len(strokes) - 1):
        left, top = strokes[place - 1 : place + 1]
        if not top.hooked or top.kind != HENG or top.pieces != 2 or not 55 < left.direction(0) < 92:
            continue
        for floor in strokes[place + 1 : place + 4]:
            met = max(math.dist(floor.start, left.end), math.dist(floor.end, top.end))
            below = floor.end[0] > top.end[0] - 0.02 and floor.start[0] < left.end[0] + 0.08
            if floor.kind == HENG and below and met < _MET and math.dist(left.start, top.start) < _MET:
                found[place] = replace(top, kind=BENT, hooked=False)
                break
    return found


def parts_of(strokes: Sequence[Stroke], around: int = 0) -> list[tuple[int, int]]:
    """Number the parts of a character: of each stroke the half it belongs to, and the smallest part.

    The strokes are cut, in writing order, where those before lie clear of those after: left against right or above
    against below, each side of two strokes or more. Blind to parts that enclose others, except where told.

    around: so many strokes at the end go around all others, as 辶 does, and are a half of their own.
    """
    if around:
        inner = [(0, part) for _, part in parts_of(strokes[:-around])]
        return inner + [(1, inner[-1][1] + 1)] * around
    boxes = np.stack([np.concatenate([stroke.line.min(0), stroke.line.max(0)]) for stroke in strokes])
    cut = _clear_cut(boxes)
    small = _parts(boxes)
    return [(int(number >= cut), part) for number, part in enumerate(small)]


def _clear_cut(boxes: np.ndarray) -> int:
    """Return how many strokes stand before the best cut; all where there is none."""
    count = len(boxes)
    if count < 4:
        return count
    before = np.concatenate([np.minimum.accumulate(boxes[:, :2]), np.maximum.accumulate(boxes[:, 2:])], axis=1)
    after = np.minimum.accumulate(boxes[::-1, :2])[::-1]
    clear = (after[2 : count - 1] - before[1 : count - 2, 2:]).max(axis=1)
    best = int(clear.argmax())
    return best + 2 if clear[best] > -_OVERLAP else count


def _parts(boxes: np.ndarray) -> list[int]:
    cut = _clear_cut(boxes)
    if cut == len(boxes):
        return [0] * cut
    first, second = _parts(boxes[:cut]), _parts(boxes[cut:])
    return first + [part + first[-1] + 1 for part in second]


def overhangs(strokes: Sequence[Stroke], lines: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return by how much the points of lines, float[Q, CUTS, 2], move when what sticks out is halved.

    The printed hand lets a stroke or two reach far beyond the rest, 寸's level one, the sweeps of 寒; people hardly do.
    What sticks out is an end beyond the last place where another stroke comes near, of a stroke without corners; where
    none comes near, the half. The level stroke on which a character stands stays long.

    bounds: int[C + 1], the first line of each character.
    """
    moved = np.zeros_like(lines)
    across, down = np.ascontiguousarray(lines[:, ::_COARSE].astype(np.float32).transpose(2, 0, 1))
    for first, end in itertools.pairwise(bounds):
        plain = [place for place in range(first, end) if strokes[place].high == np.inf]
        places = np.array([strokes[place].place for place in plain])
        floor = lines[plain, :, 1].max() - _BASE
        for place in range(first, end):
            stroke, line = strokes[place], lines[place]
            if stroke.pieces > 1 or stroke.kind not in (HENG, SHU, PIE, NA):
                continue
            if stroke.kind == HENG and line[:, 1].min() > floor:
                continue
            others = np.array(plain)[places != stroke.place]
            gaps = np.abs(across[others].ravel()[:, None] - across[place])
            np.maximum(gaps, np.abs(down[others].ravel()[:, None] - down[place]), out=gaps)
            near = np.flatnonzero((gaps < _NEAR).any(0)) * _COARSE
            head, tail = near.min(initial=CUTS // 2), near.max(initial=CUTS // 2)
            moved[place, :head] = 0.5 * (line[head] - line[:head])
            moved[place, tail + 1 :] = 0.5 * (line[tail] - line[tail + 1 :])
    return moved


def contacts(
    strokes: Sequence[Stroke], points: np.ndarray, bounds: np.ndarray, opened: np.ndarray, ended: np.ndarray
) -> np.ndarray:
    """Find what the ends of each stroke touch among the strokes written before it in the printed order.

    points: float[R, K, 2], of rows; opened, ended: int[Q], the first and last row of each stroke.
    Returns int[Q, 4]: the row of the character that the start touches (-1: none), and its point; the same of the end.
    The end of a hook touches nothing.
    """
    touched = np.full((len(strokes), 4), -1)
    last = points.shape[1] - 1
    for first, end in itertools.pairwise(bounds):
        flat = points[opened[first] : ended[end - 1] + 1].reshape(-1, 2)
        across, down = np.ascontiguousarray(flat.T)
        never = len(strokes)
        numbers = [stroke.place if stroke.high == np.inf else never for stroke in strokes[first:end]]
        of_point = np.repeat(numbers, (ended - opened + 1)[first:end] * (last + 1))
        for place in range(first, end):
            stroke = strokes[place]
            for column, tip in ((0, points[opened[place], 0]), (2, points[ended[place], last])):
                if column == 2 and stroke.hooked:
                    continue
                gap = np.maximum(np.abs(across - tip[0]), np.abs(down - tip[1])) + (of_point >= stroke.place)
                nearest = int(gap.argmin())
                if gap[nearest] < _TOUCH:
                    touched[place, column : column + 2] = divmod(nearest, last + 1)
    return touched
