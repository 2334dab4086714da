"""A drawn writer: from centre lines to the path that one person's pen takes.

Between the stroke table and the renderer. Everything is a pure function of (seed, writer, character, n), each sample
with a random generator of its own, so that no picture depends on which others are drawn beside it; that costs 15 µs a
picture, and everything after the random numbers is computed for all characters of a call at once.

How a character is written: its parts are moved and scaled, its strokes turned, stretched, shifted and bowed, all within
the writer's habits; a fast writer then joins strokes; the pen, a thing with mass, cuts the corners of the whole path
(a low-pass filter along its length); last, the page is slanted and warped, and pressure makes width and ink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hcr.pen.skeleton import STEP, skeleton_of


@dataclass(frozen=True)
class Hand:
    """The habits of one writer. Lengths are in sides of the character's box, angles in radians."""

    slant: float  # shear of the verticals, positive leans right
    rise: float  # shear of the horizontals, positive rises to the right
    aspect: float  # log of width over height
    warp: float  # sd of the bends of the whole character
    part_shift: float  # sd
    part_size: float  # sd, log
    turn: float  # sd, of a stroke
    size: float  # sd, log, of a stroke
    shift: float  # sd, of a stroke
    bow: float  # sd, of a stroke, in its lengths
    join: float  # probability that two close strokes of one part are joined
    smooth: float  # sd of the low-pass filter along the path
    join_pressure: float  # of the movement between joined strokes, 0-1
    width: float  # of the pen
    width_spread: float  # sd, log, between strokes
    taper: float  # how much of the width a stroke loses towards its end, 0-1
    attack: float  # the same at its beginning
    ink: float  # of full pressure, 0-1
    ink_spread: float  # sd of the pressure between strokes and along them
    grain: float  # how unevenly the paper takes the ink, 0-0.5
    height: float  # of the box on the writer's page, in pixels at 300 dpi


@lru_cache(maxsize=4096)
def hand_of(seed: int, writer: int) -> Hand:
    """Give the habits of writer number `writer` of the population `seed` (both 0 or more)."""
    draw = np.random.default_rng([seed, writer])
    normal, uniform = draw.standard_normal, draw.random
    speed = draw.beta(1.2, 1.6)
    care = float(np.clip(np.exp(0.35 * normal()) * (0.75 + 0.5 * speed), 0.4, 1.7))
    return Hand(
        slant=0.03 + 0.11 * normal(),
        rise=0.07 + 0.06 * normal(),
        aspect=-0.14 + 0.12 * normal(),
        warp=0.025 * care,
        part_shift=0.02 * care,
        part_size=0.07 * care,
        turn=0.065 * care,
        size=0.085 * care,
        shift=0.004 + 0.012 * uniform() * care,
        bow=0.04 * care,
        join=0.03 + 0.85 * speed**1.3,
        smooth=0.008 + 0.042 * speed**1.5 * (0.5 + 0.5 * uniform()),
        join_pressure=0.3 + 0.6 * uniform(),
        width=float(np.clip(0.036 * np.exp(0.26 * normal()), 0.018, 0.095)),
        width_spread=0.05 + 0.1 * uniform(),
        taper=0.15 + 0.55 * uniform(),
        attack=0.05 + 0.35 * uniform(),
        ink=1 - 0.5 * uniform() ** 2.5,
        ink_spread=0.03 + 0.17 * uniform(),
        grain=0.05 + 0.45 * uniform(),
        height=float(np.clip(94 * np.exp(0.13 * normal()), 72, 128)),
    )


@lru_cache(maxsize=4096)
def _row(seed: int, writer: int) -> np.ndarray:
    return np.array(astuple(hand_of(seed, writer)), np.float32)


class Path(NamedTuple):
    """What the pens of a batch do, flat: N points of B pictures.

    points: float32[N, 2] in the unit box, x right and y down; it may stick out by a few tenths.
    width: float32[N], full width of the line in sides of the box.
    ink: float32[N], 0-1.
    path: int64[N], ascending; points of one path, and only those, are joined by a line.
    picture: int64[N], ascending, the picture of each point.
    grain: float32[B], how unevenly the paper takes the ink, 0-0.5.
    spot: int64[B], which spot of the paper each picture lies on.
    """

    points: np.ndarray
    width: np.ndarray
    ink: np.ndarray
    path: np.ndarray
    picture: np.ndarray
    grain: np.ndarray
    spot: np.ndarray


# Normal random numbers of one sample: for its picture 0-5 warp, 6 slant, 7 rise, 8 aspect, 9 width, 10 ink; for each
# stroke 0-3 size and shift of its part (those of the part's first stroke count), 4-5 shift, 6 turn, 7 size, 8 bow,
# 9 width, 10 ink.
_PICTURE_NORMALS = 11
_STROKE_NORMALS = 11


def write(characters: Sequence[str], *, seed: int, writers: Sequence[int], numbers: Sequence[int]) -> Path:
    """Write `characters[i]` in the hand of `writers[i]` for the `numbers[i]`-th time.

    Raises: DataError for a character without strokes.
    """
    skeletons = [skeleton_of(char) for char in characters]
    strokes = np.array([len(skeleton.counts) for skeleton in skeletons])
    draws = [
        np.random.default_rng([seed, writer, ord(char), number])
        for char, writer, number in zip(characters, writers, numbers, strict=True)
    ]
    of_picture = np.stack([draw.standard_normal(_PICTURE_NORMALS, np.float32) for draw in draws])
    of_stroke = np.concatenate(
        [draw.standard_normal((count, _STROKE_NORMALS), np.float32) for draw, count in zip(draws, strokes, strict=True)]
    )
    chance = np.concatenate([draw.random(count, np.float32) for draw, count in zip(draws, strokes, strict=True)])

    picture = np.repeat(np.arange(len(skeletons)), strokes)  # of each stroke
    columns = np.stack([_row(seed, writer) for writer in writers], 1)
    habits = {field.name: column for field, column in zip(fields(Hand), columns, strict=True)}
    habit = {name: values[picture] for name, values in habits.items()}
    counts = np.concatenate([skeleton.counts for skeleton in skeletons])
    part = np.concatenate([skeleton.part for skeleton in skeletons])
    opens_part = np.concatenate([[True], (part[1:] != part[:-1]) | (picture[1:] != picture[:-1])])

    points = np.concatenate([skeleton.points for skeleton in skeletons])
    bow = np.concatenate([skeleton.bow for skeleton in skeletons])
    points = _bend(points, bow, counts, np.flatnonzero(opens_part), habit, of_stroke)
    width = habit["width"] * np.exp(habit["width_spread"] * of_stroke[:, 9])
    ink = habit["ink"] * np.maximum(0.4, 1 - np.abs(habit["ink_spread"] * of_stroke[:, 10]))

    joined = _joins(points, counts, picture, opens_part, habit["join"], chance)
    points, lift, block = _connect(points, counts, joined)
    of = block // 2  # blocks 2 i and 2 i + 1 are the stroke i and the movement after it
    starts = np.concatenate([[True], ~joined[:-1]])
    path = np.cumsum(starts)[of] - 1
    points = _smooth(points, path, (habit["smooth"] / STEP)[of])
    pressure = (1 - lift * (1 - habit["join_pressure"][of])) * _ends(path, habit["attack"][of], habit["taper"][of])
    points = _slant(points, picture[of], habits, of_picture)
    width = width[of] * pressure * np.exp(0.1 * of_picture[:, 9])[picture[of]]
    ink = ink[of] * (0.6 + 0.4 * pressure) * np.exp(-0.08 * np.abs(of_picture[:, 10]))[picture[of]]
    spot = np.array([draw.integers(1 << 30) for draw in draws])
    return Path(points, width.astype(np.float32), ink.astype(np.float32), path, picture[of], habits["grain"], spot)


def _bend(
    points: np.ndarray,
    bow: np.ndarray,
    counts: np.ndarray,
    part_starts: np.ndarray,
    habit: dict[str, np.ndarray],
    noise: np.ndarray,
) -> np.ndarray:
    """Deform each stroke about its own middle and each part about its own."""
    ends = np.cumsum(counts)
    centre = np.add.reduceat(points, ends - counts) / counts[:, None]
    part_sizes = np.diff(part_starts, append=len(counts))
    part_centre = np.repeat(np.add.reduceat(centre, part_starts) / part_sizes[:, None], part_sizes, axis=0)
    of_part = np.repeat(noise[part_starts, :4], part_sizes, axis=0)
    grow = np.exp(habit["part_size"][:, None] * of_part[:, :2])
    move = habit["part_shift"][:, None] * of_part[:, 2:] + habit["shift"][:, None] * noise[:, 4:6]
    target = part_centre + (centre - part_centre) * grow + move

    angle = habit["turn"] * noise[:, 6]
    stretch = np.exp(habit["size"] * noise[:, 7])[:, None] * grow
    turn = np.stack([np.cos(angle), np.sin(angle)], 1)
    rows_x = np.stack([turn[:, 0], -turn[:, 1]], 1) * stretch
    rows_y = np.stack([turn[:, 1], turn[:, 0]], 1) * stretch
    arc = (habit["bow"] * noise[:, 8])[:, None]

    stroke = np.repeat(np.arange(len(counts)), counts)
    local = points - centre[stroke] + bow * arc[stroke]
    bent = np.stack([(local * rows_x[stroke]).sum(1), (local * rows_y[stroke]).sum(1)], 1)
    return bent + target[stroke]


def _joins(
    points: np.ndarray,
    counts: np.ndarray,
    picture: np.ndarray,
    opens_part: np.ndarray,
    join: np.ndarray,
    chance: np.ndarray,
) -> np.ndarray:
    """Say of each stroke whether the pen stays down on the way to the next: the likelier the closer that begins."""
    ends = np.cumsum(counts)
    gap = np.hypot(*(points[ends[:-1]] - points[ends[:-1] - 1]).T)
    likely = join[:-1] * np.minimum(1, np.exp(-(gap - 0.15) / 0.25)) * np.where(opens_part[1:], 0.5, 1)
    return np.append((chance[:-1] < likely) & (picture[1:] == picture[:-1]), False)


def _connect(points: np.ndarray, counts: np.ndarray, joined: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put the movements between joined strokes into the sequence of points.

    Returns points float32[M, 2], how far each is lifted float32[M] (0 on a stroke, up to 1 between two), and the block
    of each int64[M]: 2 i for the stroke i, 2 i + 1 for the movement after it.
    """
    ends = np.cumsum(counts)
    last, following = ends - 1, np.minimum(ends, len(points) - 1)
    gap = np.hypot(*(points[following] - points[last]).T)
    sizes = np.stack([counts, np.where(joined, np.maximum(1, np.round(gap / STEP) - 1), 0)], 1).astype(np.int64)
    block = np.repeat(np.arange(2 * len(counts)), sizes.ravel())
    within = np.arange(len(block)) - (np.cumsum(sizes.ravel()) - sizes.ravel())[block]
    stroke, between = block // 2, block % 2 == 1
    along = np.where(between, (within + 1) / (sizes[stroke, 1] + 1), 0).astype(np.float32)
    source = np.where(between, last[stroke], (ends - counts)[stroke] + within)
    lift = np.minimum(1, 3 * np.minimum(along, 1 - along))
    return points[source] + along[:, None] * (points[following] - points[last])[stroke], lift, block


def _smooth(points: np.ndarray, path: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Low-pass each path along its length by a Gaussian of `sigma` points; its ends stay where they are.

    Diffusion: k steps of strength a add up to a variance of 2 a k, and need no window.
    """
    steps = 8
    inner = np.zeros(len(points), np.float32)
    inner[1:-1] = (path[1:-1] == path[:-2]) & (path[1:-1] == path[2:])
    strength = np.minimum(0.49, inner * sigma**2 / (2 * steps))[1:-1, None]
    points = points.astype(np.float32)
    for _ in range(steps):
        points[1:-1] += strength * (points[:-2] - 2 * points[1:-1] + points[2:])
    return points


def _ends(path: np.ndarray, attack: np.ndarray, taper: np.ndarray) -> np.ndarray:
    """Give the pressure of each point, 0-1: a path sets in, and thins out towards its end."""
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    sizes = np.diff(starts, append=len(path))
    since = np.arange(len(path)) - starts[path]
    left = sizes[path] - 1 - since
    reach = np.minimum(8, sizes[path] / 2)
    round_tip = np.where((since == 0) | (left == 0), 0.6, 1)
    return round_tip * (1 - attack * np.maximum(0, 1 - since / 3)) * (1 - taper * np.maximum(0, 1 - left / reach))


def _slant(points: np.ndarray, picture: np.ndarray, habits: dict[str, np.ndarray], noise: np.ndarray) -> np.ndarray:
    """Warp, stretch and shear each character as a whole."""
    warp = habits["warp"][:, None] * noise[:, :6]
    slant = habits["slant"] + 0.04 * noise[:, 6]
    rise = habits["rise"] + 0.025 * noise[:, 7]
    aspect = np.exp(0.5 * (habits["aspect"] + 0.06 * noise[:, 8]))
    x, y = 2 * points.T - 1
    bends = warp[picture].T
    wide = (x + bends[0] * x * y + bends[1] * y * y + bends[2] * x * x) * aspect[picture]
    high = (y + bends[3] * x * y + bends[4] * y * y + bends[5] * x * x) / aspect[picture]
    return np.stack([wide - slant[picture] * high, high - rise[picture] * wide], 1) / 2 + 0.5
