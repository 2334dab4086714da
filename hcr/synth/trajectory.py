"""From rows of the copybook to the trajectory of one writer's pen.

Between the copybook and the renderer. All is tensor operations over a whole batch. A character's halves, parts and
strokes are moved, scaled and turned about their middles. Then strokes are joined. A pen has mass, so it cuts the
corners of the whole path: a low-pass filter over time, not over length, which makes small components small loops
instead of blots. Last the page is slanted and warped.

On a GPU there is room for more rows and points than are written; what is left over is marked (`ragged.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hcr.synth.copybook import NUMBERS, STEPS, Copybook, Shape
from hcr.synth.ragged import kept
from hcr.synth.rng import decay, growth, keyed, length, normals, turning, uniform
from hcr.synth.skeleton import DOT
from hcr.synth.style import WriterStyles

_LINK = 3  # points between two joined strokes
_SLOTS = STEPS + 1 + _LINK
_DIFFUSIONS = 5
_REACH = 0.035  # of a stroke's length, at one standard deviation
_FARTHEST = 2.4  # standard deviations: half the length
_KEEPS = 0.75  # how often a writer writes a component his usual way


class Trajectory(NamedTuple):
    """The paths of the pens of a batch, flat: N points of B pictures.

    points: float32[N, 2] in the unit box, x right and y down; it may stick out by a few tenths.
    width: float32[N], full width of the line in sides of the box. ink: float32[N], 0-1.
    path: int64[N], ascending; points of one path, and only those, are joined by a line.
    picture: int64[N], ascending, the picture of each point. valid: bool[N], False for what a GPU has left over.
    """

    points: Tensor
    width: Tensor
    ink: Tensor
    path: Tensor
    picture: Tensor
    valid: Tensor


def write(copybook: Copybook, labels: Tensor, rows: int, styles: WriterStyles) -> Trajectory:
    """Return the trajectories of B characters.

    labels: int64[B], on the copybook's device. rows: how many rows of the copybook these characters have in all.
    styles: of the B pictures.
    """
    counts = copybook.rows[labels]
    picture = torch.repeat_interleave(torch.arange(len(labels), device=labels.device), counts, output_size=rows)
    begin = (counts.cumsum(0) - counts)[picture]
    row = torch.arange(rows, device=labels.device) - begin + copybook.first[labels][picture]

    numbers = copybook.numbers.index_select(0, row)
    chosen = copybook.chosen.index_select(0, row)
    site, rule = numbers[:, NUMBERS.index("site")], numbers[:, NUMBERS.index("rule")]
    site_chance = uniform(keyed(styles.key[picture], site, site * 0 + 1), 2)
    liking = torch.where(site_chance[:, 0] < _KEEPS, styles.liking[picture, rule], site_chance[:, 1])
    running = styles.running[picture]
    index, written = kept((liking >= chosen[:, 0] * running) & (liking < chosen[:, 1] * running))
    # The place of each row among the kept ones, by which strokes find those that they touch.
    kept_place = torch.full((rows + 1,), -1, device=labels.device)
    kept_place.scatter_(0, torch.where(written, index, rows), torch.arange(len(index), device=labels.device))
    row, picture, numbers, chosen, begin = (each[index] for each in (row, picture, numbers, chosen, begin))
    columns = dict(zip(NUMBERS, numbers.unbind(1), strict=True))

    salts = columns["place"] + 16, columns["half"] + (1 << 10), columns["part"] + (1 << 11)
    keys = keyed(styles.key[picture, None], torch.stack(salts, 1))
    noise, of_half, of_part = normals(keys, (8, 4, 4))
    chance, side = uniform(keyed(keys[:, 0], 2), 2).unbind(1)
    shape = copybook.shaped(row, styles.models[picture], styles.likeness[picture])
    points = _bent(copybook, row, shape, picture, columns, styles, (noise, of_half, of_part), side < 0.5)
    touched = copybook.touched[row]
    place_of = torch.where(touched[:, ::2] >= 0, kept_place[begin[:, None] + touched[:, ::2].clamp(min=0)], -1)
    points = points + _touching(shape, place_of, touched[:, 1::2], columns, points) * styles.tight[picture, None, None]
    width = styles.width[picture] * growth(styles.width_spread[picture] * noise[:, 5])
    ink = styles.ink[picture] * (1 - (styles.ink_spread[picture] * noise[:, 6]).abs()).clamp(min=0.4)

    # The way to the next stroke.
    following = torch.cat([points[1:, 0], points[-1:, -1]])
    gap = following - points[:, -1]
    same = torch.cat([(picture[1:] == picture[:-1]) & written[1:], written.new_zeros(1)])
    within = torch.cat([columns["part"][1:] == columns["part"][:-1], same[-1:]])
    near = decay(((length(gap[:, 0], gap[:, 1]) - styles.leap[picture]) * 4).clamp(min=0)) * torch.where(
        within, 1.0, 0.7
    )
    likely = styles.join[picture] * near
    likely = likely + (1 - likely) * chosen[:, 2].clamp(max=1) * styles.fluency[picture]
    ends = (columns["ends"] == 1) | ~same
    joined = ends & same & ((chance < likely) | (chosen[:, 2] > 1))

    along = torch.arange(1, _LINK + 1, device=labels.device) / (_LINK + 1)
    links = points[:, -1:] + gap[:, None] * along[:, None]
    slots = torch.cat([points, links], 1)
    inside = written.new_ones(len(row), STEPS)
    # A pen that leaves the paper on its way to the next stroke leaves a tail: a quarter or half of the way.
    leaves = ends & same & (side < styles.tail[picture])
    half_way = leaves & (side < 0.4 * styles.tail[picture])
    whole = [inside, ends[:, None], torch.stack([joined | leaves, joined | half_way, joined], 1)]
    used = written[:, None] & torch.cat(whole, 1)
    opens = torch.cat([picture.new_ones(1, dtype=torch.bool), (ends & ~joined)[:-1]])
    index, written = kept(used.reshape(-1))
    source = index // _SLOTS
    slot = index - source * _SLOTS
    begins = (slot == 0) & opens[source] | ~written
    path = begins.cumsum(0)
    picture = picture[source]

    flat = smooth(slots.reshape(-1, 2)[index], path, styles.smooth[picture])
    lift = (slot > STEPS).float() * torch.where(slot == STEPS + 2, 1.0, 0.7)
    pressure = (1 - lift * (1 - styles.link_pressure[picture])) * _ends(begins, path, styles, picture)
    flat = page(flat, picture, styles)
    return Trajectory(flat, width[source] * pressure, ink[source] * (0.6 + 0.4 * pressure), path, picture, written)


def _bent(
    copybook: Copybook,
    row: Tensor,
    shape: Shape,
    picture: Tensor,
    columns: dict[str, Tensor],
    styles: WriterStyles,
    chances: tuple[Tensor, Tensor, Tensor],
    forward: Tensor,
) -> Tensor:
    """Deform each stroke about its middle, and its part and its half of the character about theirs.

    chances: normal numbers of the stroke, of its half and of its part, float32[R, 8], [R, 4], [R, 4].
    """
    noise, of_half, of_part = chances
    kind = columns["kind"]
    points, chord, anchor, middle, _, printed = shape
    span = copybook.span[row]
    begin, across = chord[:, None, :2], (chord[:, 2:] - chord[:, :2])[:, None]
    along = (span[:, :1] + span[:, 1:] * torch.arange(STEPS + 1, device=row.device))[:, :, None]
    chords = begin + across * along
    arc = (styles.bow[picture] * noise[:, 4] + styles.kind_bow[picture, kind])[:, None, None]
    normal_to = torch.stack([-across[..., 1], across[..., 0]], -1)
    points = (
        points + (chords - points) * styles.straight[picture, None, None] + normal_to * (4 * arc * along * (1 - along))
    )
    anchor = anchor[:, None]
    points = anchor + (points - anchor) * styles.left[picture, columns["cut"]][:, None, None]

    # The proportions of a font need no mending.
    points = points + copybook.overhang[row] * (styles.tuck[picture, None] * printed)[:, :, None]
    points = points + copybook.shelter[row] * (styles.nest[picture, None] * printed)[:, :, None]

    grow_part = growth(styles.part_size[picture, None] * of_part[:, :2])
    grow_half = growth(styles.crowd[picture, None] + styles.half_size[picture, None] * of_half[:, :2])
    target = middle[:, :2] + styles.shift[picture, None] * noise[:, :2]
    for grow, centre, move in (
        (grow_part, middle[:, 2:4], styles.part_shift[picture, None] * of_part[:, 2:]),
        (grow_half, middle[:, 4:], styles.half_shift[picture, None] * of_half[:, 2:]),
    ):
        target = centre + (target - centre) * grow + move

    angle = styles.turn[picture] * noise[:, 2] * torch.where(kind == DOT, 2.0, 1.0) + styles.kind_turn[picture, kind]
    stretch = (
        growth(styles.size[picture] * noise[:, 3] + styles.kind_size[picture, kind] + styles.longer[picture])[:, None]
        * grow_part
        * grow_half
    )
    cos, sin = (each[:, None] for each in turning(angle))
    x, y = (points - middle[:, None, :2]).unbind(-1)
    bent = torch.stack([(x * cos - y * sin) * stretch[:, :1], (x * sin + y * cos) * stretch[:, 1:]], -1)
    bent = bent + target[:, None]
    return reaching(bent, _ends_of(bent, columns), styles.care[picture] * noise[:, 7], forward)


def reaching(points: Tensor, ends: tuple[Tensor, Tensor], amount: Tensor, forward: Tensor) -> Tensor:
    """Let a few strokes go on beyond where they end, or begin before, and a few stop short.

    points: float32[R, STEPS + 1, 2]; ends: of each row where its stroke starts and ends, float32[R, 2] each.
    amount: float32[R], normal, of which only large ones show, as their third power counts. forward: bool[R], whether
    the start stays, or else the end.
    """
    amount = amount.clamp(-_FARTHEST, _FARTHEST)
    fixed = torch.where(forward[:, None], *ends)[:, None]
    return fixed + (points - fixed) * (1 + _REACH * amount * amount * amount)[:, None, None]


def _ends_of(points: Tensor, columns: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return of each row where its stroke starts and where it ends, float32[R, 2] each."""
    place = torch.arange(len(points), device=points.device)
    return (
        points[(place - columns["back"]).clamp(min=0), 0],
        points[(place + columns["ahead"]).clamp(max=len(points) - 1), STEPS],
    )


def _touching(shape: Shape, place_of: Tensor, point: Tensor, columns: dict[str, Tensor], points: Tensor) -> Tensor:
    """Return how far each point is to move so that the ends of strokes touch what they touched in print.

    place_of, point: int64[R, 2], which of the rows are those that start and end touch, -1: none, and where in them.
    """
    starts, ends = _ends_of(points, columns)
    steps = columns["back"][:, None] + torch.arange(STEPS + 1, device=points.device) / STEPS
    along = (steps / (columns["back"] + columns["ahead"] + 1)[:, None])[:, :, None]
    moved = torch.zeros_like(points)
    for end, tip, share in ((0, starts, 1 - along), (1, ends, along)):
        touched = place_of[:, end]
        target = points[touched.clamp(min=0), point[:, end].clamp(min=0)] + shape.apart[:, 2 * end : 2 * end + 2]
        moved = moved + torch.where((touched >= 0)[:, None], target - tip, 0)[:, None] * share
    return moved


def smooth(points: Tensor, path: Tensor, sigma: Tensor) -> Tensor:
    """Low-pass each path over its steps by a Gaussian of `sigma` steps; its ends stay where they are.

    Diffusion: k steps of strength a add up to a variance of 2 a k, and need no window.
    """
    inner = (path[1:-1] == path[:-2]) & (path[1:-1] == path[2:])
    strength = ((sigma[1:-1] ** 2 / (2 * _DIFFUSIONS)).clamp(max=0.48) * inner)[:, None]
    for _ in range(_DIFFUSIONS):
        points[1:-1] += strength * (points[:-2] - 2 * points[1:-1] + points[2:])
    return points


def _ends(begins: Tensor, path: Tensor, styles: WriterStyles, picture: Tensor) -> Tensor:
    """Return the pressure of each point, 0-1: a path sets in, and thins out towards its end."""
    place = torch.arange(len(path), device=path.device)
    # By way of where each path begins: a GPU takes a running maximum one after the other.
    starts, _ = kept(begins)
    from_start = place - starts[path - 1]
    following = torch.where(path < path[-1], starts[path.clamp(max=len(starts) - 1)], len(path))
    to_end = following - 1 - place
    attack = styles.attack[picture] * (1 - from_start / 2).clamp(min=0)
    taper = styles.taper[picture] * (1 - to_end / 3).clamp(min=0)
    return (1 - attack) * (1 - taper)


def page(points: Tensor, picture: Tensor, styles: WriterStyles) -> Tensor:
    """Warp, stretch and shear each character as a whole."""
    x, y = (2 * points - 1).unbind(1)
    bends = styles.warp[picture].unbind(1)
    aspect = growth(0.5 * styles.aspect)[picture]
    wide = (x + bends[0] * x * y + bends[1] * y * y + bends[2] * x * x) * aspect
    high = (y + bends[3] * x * y + bends[4] * y * y + bends[5] * x * x) / aspect
    slant, rise = styles.slant[picture], styles.rise[picture]
    return torch.stack([wide - slant * high, high - rise * wide], 1) / 2 + 0.5
