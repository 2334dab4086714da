"""The renderer: paths of a pen to grey pictures, on any device.

Last of the pen's rooms. A line is cut into samples less than a pixel apart, along it and across it, and each sample
lays its share of ink on the four pixels around it, so that what a pixel gets is the area of it that is covered: no
distances, no windows, about 5,000 additions a picture. Ink is added up in integers, which makes the sum the same in
any order: a picture depends neither on its batch mates nor on the threads of a GPU. The price is that a pen much wider
than the curve it turns in leaves its outer edge lighter.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

SPACING = 0.9
"""Greatest distance of two samples, in pixels."""

_FIXED = 1 << 12  # integer steps of full ink on one pixel
_PAPER = 0.06  # darkness below which a pixel is paper, as in scans whose ground was set to 255
_ABSORPTION = 1.7  # one layer of full ink takes 1 - exp(-1.7) = 0.82 of the light, two take 0.97 (Beer's law)
_SHEET = 256  # pixels a side of the sheet of paper grain, which repeats; a power of two


def render(
    points: Tensor,
    width: Tensor,
    ink: Tensor,
    path: Tensor,
    picture: Tensor,
    grain: Tensor,
    spot: Tensor,
    *,
    size: int,
) -> Tensor:
    """Draw B pictures: uint8[B, size, size], 255 = paper, on the device of `points`.

    points: float32[N, 2], x right and y down, in pixels from the upper left corner; ink outside the picture is lost.
    width: float32[N], full width of the line, in pixels.
    ink: float32[N], layers of full ink, 0-1.
    path: int64[N], points of one path stand together and are joined by a line.
    picture: int64[N], the picture of each point, 0 to B - 1.
    grain: float32[B], how unevenly the paper takes ink, 0-0.5.
    spot: int64[B], where on the paper the picture lies, 0 to 2**30.
    """
    x, y, weight, of = _samples(points, width, ink, path, picture)
    count, stride = len(grain), size + 2  # a border of one pixel takes what falls outside
    x, y = (axis.add_(0.5).clamp_(0, size + 0.999) for axis in (x, y))
    column, row = x.int(), y.int()
    at = (of * stride + row) * stride + column
    right, lower = x.sub_(column), y.sub_(row)
    paper = (row * _SHEET + column).add_(spot.int().index_select(0, of)).bitwise_and_(_SHEET * _SHEET - 1)
    weight.mul_(_sheet(points.device).index_select(0, paper).mul_(grain.index_select(0, of)).add_(1))
    right_half = weight * right
    left_half = weight - right_half
    lower_right, lower_left = right_half * lower, left_half * lower
    laid = torch.zeros(count * stride * stride, dtype=torch.int32, device=points.device)
    for offset, share in (
        (0, left_half - lower_left),
        (1, right_half - lower_right),
        (stride, lower_left),
        (stride + 1, lower_right),
    ):
        laid.index_add_(0, at + offset, share.int())
    light = (laid.view(count, stride, stride)[:, 1:-1, 1:-1] * (-_ABSORPTION / _FIXED)).exp_()
    light.masked_fill_(light > 1 - _PAPER, 1)
    return light.mul_(255).round_().to(torch.uint8)


def _samples(
    points: Tensor, width: Tensor, ink: Tensor, path: Tensor, picture: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Spread samples over the area of the lines: x, y, weight in fixed-point steps, and picture of each.

    The samples of a segment are a grid, `along` by `across`; width and ink are those of its middle.
    """
    begin = (path[1:] == path[:-1]).nonzero().squeeze(1)
    first, second = points.index_select(0, begin), points.index_select(0, begin + 1)
    step = second - first
    length = step.norm(dim=1)
    breadth = 0.5 * (width.index_select(0, begin) + width.index_select(0, begin + 1))
    strength = 0.5 * (ink.index_select(0, begin) + ink.index_select(0, begin + 1))
    along = (length / SPACING).ceil().clamp(min=1)
    across = (breadth / SPACING).ceil().clamp(min=1)
    number = along * across

    forward = step / along[:, None]
    sideways = torch.stack([-step[:, 1], step[:, 0]], 1) * (breadth / length.clamp(min=1e-6) / across)[:, None]
    corner = first + 0.5 * forward - (0.5 * (across - 1))[:, None] * sideways
    weight = strength * breadth * length / number * _FIXED

    repeats = number.int()
    segment = torch.repeat_interleave(repeats)
    first_sample = (repeats.cumsum(0) - repeats).int()
    within = torch.arange(len(segment), dtype=torch.int32, device=points.device) - first_sample.index_select(0, segment)
    lanes = across.index_select(0, segment)
    row = ((within + 0.5) / lanes).floor_()
    lane = within - row * lanes

    def at(axis: int) -> Tensor:
        origin, on, off = (each[:, axis].contiguous().index_select(0, segment) for each in (corner, forward, sideways))
        return origin.addcmul_(row, on).addcmul_(lane, off)

    return at(0), at(1), weight.index_select(0, segment), picture.index_select(0, begin).int().index_select(0, segment)


@cache
def _sheet(device: torch.device) -> Tensor:
    """Make a sheet of paper grain, row by row: float32[_SHEET * _SHEET], sd 1, at most 2: ink stays positive."""
    fine = np.random.default_rng(0).standard_normal((_SHEET, _SHEET))
    soft = 0.5 * (fine + np.roll(fine, 1, 0) + np.roll(fine, 1, 1) + np.roll(fine, (1, 1), (0, 1)))
    return torch.from_numpy(soft.clip(-2, 2).astype(np.float32).ravel()).to(device)
