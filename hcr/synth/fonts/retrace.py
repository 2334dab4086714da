"""From a font's lines to the trajectory of one writer's pen.

As `trajectory.py` does from the copybook, with the same styles and for the same renderer. A font does not say which
lines are a stroke or a part. So the square itself is bent: halves of it grow and shrink, and its points wander as
smoothly as parts of a character do. Lines that meet go on meeting.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hcr.synth.fonts.glyphs import Forms
from hcr.synth.rng import growth, keyed, normal, uniform
from hcr.synth.style import WriterStyles
from hcr.synth.trajectory import Trajectory, page, smooth

_KNOTS = 5  # of the grid that wanders, a side
_WANDERS = 1.4  # a knot, in shifts of a part
_SMOOTH = 0.6  # of a writer's low-pass: a font has cut its corners already
_SWELLING = 0.4  # share of the writers who keep something of the brush's swelling


def retrace(forms: Forms, glyphs: Tensor, rows: int, styles: WriterStyles) -> Trajectory:
    """Return the trajectories of glyphs int64[B] on the forms' device, all of which the fonts have.

    rows: how many points these glyphs have in all. styles: of the B pictures.
    """
    counts = forms.rows[glyphs]
    picture = torch.repeat_interleave(torch.arange(len(glyphs), device=glyphs.device), counts, output_size=rows)
    begin = (counts.cumsum(0) - counts)[picture]
    row = torch.arange(rows, device=glyphs.device) - begin + forms.first[glyphs][picture]
    line = forms.line.index_select(0, row)
    opens, closes, broad = (each.index_select(0, row) for each in (forms.opens, forms.closes, forms.broad))

    points = forms.points.index_select(0, row)
    noise = normal(keyed(styles.key[picture], line + (1 << 12)), 1)
    points = points + forms.bow.index_select(0, row) * noise * styles.bow[picture, None]
    points = _halves(points, picture, styles)
    field = normal(keyed(styles.key, 1 << 13), _KNOTS * _KNOTS * 4).view(-1, 4)
    wander = _between(field, points, picture)
    points = points + wander[:, :2] * (_WANDERS * styles.part_shift)[picture, None]

    changes = (line[1:] != line[:-1]) | (picture[1:] != picture[:-1])
    path = torch.cat([line.new_zeros(1), changes.cumsum(0)])
    points = page(smooth(points, path, _SMOOTH * styles.smooth[picture]), picture, styles)

    chance = uniform(keyed(styles.writer, 9), 2)
    swelling = ((chance[:, 0] - (1 - _SWELLING)) * (1 / _SWELLING)).clamp(min=0)[picture]
    pressure = (1 - styles.attack[picture] * opens) * (1 - styles.taper[picture] * closes)
    width = styles.width[picture] * growth((styles.width_spread[picture] * wander[:, 2]).clamp(-1, 1))
    width = width * (1 + swelling * (broad - 1)) * pressure
    ink = styles.ink[picture] * (1 - (styles.ink_spread[picture] * wander[:, 3]).abs()).clamp(min=0.4)
    valid = torch.ones_like(path, dtype=torch.bool)
    return Trajectory(points, width, ink * (0.6 + 0.4 * pressure), path, picture, valid)


def _halves(points: Tensor, picture: Tensor, styles: WriterStyles) -> Tensor:
    """Let what lies left of a line, or above one, be larger than the rest, or smaller."""
    noise = normal(keyed(styles.key, 1 << 14), 6).view(-1, 3, 2)
    cut = (0.5 + 0.08 * noise[:, 0])[picture]
    before, after = (growth(styles.half_size[:, None] * noise[:, side])[picture] for side in (1, 2))
    aside = points - cut
    return cut + aside * torch.where(aside < 0, before, after)


def _between(field: Tensor, points: Tensor, picture: Tensor) -> Tensor:
    """Read a grid of numbers, float32[B * _KNOTS * _KNOTS, 4], at points of the unit box, smoothly: float32[N, 4]."""
    scaled = (points * (_KNOTS - 1)).clamp(0, _KNOTS - 1.001)
    whole = scaled.long()
    weight = scaled - whole
    weight = weight * weight * (3 - 2 * weight)
    corner = (picture * _KNOTS + whole[:, 1]) * _KNOTS + whole[:, 0]
    x, y = weight[:, :1], weight[:, 1:]
    upper = field.index_select(0, corner) * (1 - x) + field.index_select(0, corner + 1) * x
    lower = field.index_select(0, corner + _KNOTS) * (1 - x) + field.index_select(0, corner + _KNOTS + 1) * x
    return upper * (1 - y) + lower * y
