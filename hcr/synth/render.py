"""The renderer: trajectories to grey pictures, on any device.

Last in the way of a drawn character. A line is cut into samples less than a pixel apart, along it and across it. Each
sample lays its share of ink on the four pixels around it, so that a pixel gets as much as is covered of it: about 5,000
additions a picture, no distances, no windows. Ink is added up in integers, whose sum is the same in any order: a
picture depends neither on the others of its batch nor on the order of threads. The price is that a pen much wider than
the curve it turns in leaves its outer edge lighter.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from hcr.synth.ragged import owners, spread
from hcr.synth.rng import length

SPACING = 1.0
"""Greatest distance of two samples, in pixels."""

_FIXED = 1 << 12  # integer steps of full ink on one pixel
_MOST = 4 * _FIXED  # ink beyond this makes a pixel no darker
_PAPER = 0.06  # darkness below which a pixel is paper, as in scans whose ground was set to 255
_ABSORPTION = 1.7  # one layer of full ink takes 1 - exp(-1.7) = 0.82 of the light, two take 0.97 (Beer's law)
_SHEET = 256  # pixels a side of the sheet of paper grain, which repeats; a power of two


def render(
    x: Tensor,
    y: Tensor,
    width: Tensor,
    ink: Tensor,
    path: Tensor,
    picture: Tensor,
    grain: Tensor,
    spot: Tensor,
    soft: Tensor,
    *,
    size: int,
) -> Tensor:
    """Draw B pictures: uint8[B, size, size], 255 = paper, on the device of `x`.

    x, y: float32[N], right and down, in pixels from the upper left corner; ink outside the picture is lost.
    width: float32[N], full width of the line, in pixels; ink: float32[N], layers of full ink, 0-1.
    path: int64[N], points of one path stand together and are joined by a line.
    picture: int64[N], the picture of each point, 0 to B - 1.
    grain: float32[B], how unevenly the paper takes ink, 0-0.5.
    spot: int64[B], where on the paper the picture lies, 0 to 2**30.
    soft: float32[B], how much of a pixel's ink spreads over the 3 × 3 pixels around as 1 2 1 does twice, 0-1.
    """
    count, stride = len(grain), size + 2  # a border of one pixel takes what falls outside
    # The fullest character of GB2312 takes three quarters of that a picture, and one picture of it more.
    room = count * (size * size * 3 // 8 + 256) + 4096
    x, y, weight, owner, valid = _samples(x, y, width, ink, path, picture, room)
    x, y = (axis.add_(0.5).clamp_(0, size + 0.999) for axis in (x, y))
    column, row = x.int(), y.int()
    places = count * stride * stride
    place = spread((owner * stride + row) * stride + column, valid, places - stride - 1)
    right, lower = x.sub_(column), y.sub_(row)
    paper = (row * _SHEET + column).add_(spot.int().index_select(0, owner)).bitwise_and_(_SHEET * _SHEET - 1)
    weight.mul_(_sheet(x.device).index_select(0, paper).mul_(grain.index_select(0, owner)).add_(1))
    right_half = weight * right
    left_half = weight - right_half
    lower_right, lower_left = right_half * lower, left_half * lower
    laid = torch.zeros(places, dtype=torch.int32, device=x.device)
    for offset, share in (
        (0, left_half.sub_(lower_left)),
        (1, right_half.sub_(lower_right)),
        (stride, lower_left),
        (stride + 1, lower_right),
    ):
        laid[offset:].index_add_(0, place, share.int())
    laid = laid.view(count, stride, stride)
    level = laid[:, :, :-2] + 2 * laid[:, :, 1:-1] + laid[:, :, 2:]
    blurred = level[:, :-2] + 2 * level[:, 1:-1] + level[:, 2:]
    inside = laid[:, 1:-1, 1:-1] * (1 - soft[:, None, None]) + blurred * (soft / 16)[:, None, None]
    inside = inside.int().clamp(max=_MOST)
    return _greys(x.device).index_select(0, inside.reshape(-1)).view(count, size, size)


def _samples(
    x: Tensor, y: Tensor, width: Tensor, ink: Tensor, path: Tensor, picture: Tensor, room: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Spread samples over the area of the lines: x, y, weight in fixed-point steps, picture, whether it is valid.

    The samples of a segment are a grid, `along` by `across`; width and ink are those of its middle. On a CPU there are
    as many as are needed, on a GPU `room`, those left over without weight and not valid.
    """
    step_x, step_y = x[1:] - x[:-1], y[1:] - y[:-1]
    long = length(step_x, step_y)
    breadth = 0.5 * (width[1:] + width[:-1])
    strength = 0.5 * (ink[1:] + ink[:-1])
    along = (long * (1 / SPACING)).ceil().clamp(min=1)
    across = (breadth * (1 / SPACING)).ceil().clamp(min=1)
    number = along * across

    forward_x, forward_y = step_x / along, step_y / along
    aside = breadth / (long.clamp(min=1e-6) * across)
    aside_x, aside_y = -step_y * aside, step_x * aside
    back = 0.5 * (across - 1)
    corner_x = x[:-1] + 0.5 * forward_x - back * aside_x
    corner_y = y[:-1] + 0.5 * forward_y - back * aside_y
    weight = strength * breadth * long / number * _FIXED

    segment, within, valid = owners((number * (path[1:] == path[:-1])).int(), room)
    lanes = across.index_select(0, segment)
    row = ((within + 0.5) / lanes).floor_()
    lane = within - row * lanes

    def position(corner: Tensor, forward: Tensor, aside: Tensor) -> Tensor:
        origin, step, shift = (each.index_select(0, segment) for each in (corner, forward, aside))
        return origin.add_(step.mul_(row)).add_(shift.mul_(lane))

    return (
        position(corner_x, forward_x, aside_x),
        position(corner_y, forward_y, aside_y),
        weight.index_select(0, segment).mul_(valid),
        picture[:-1].int().index_select(0, segment),
        valid,
    )


@cache
def _sheet(device: torch.device) -> Tensor:
    """Make a sheet of paper grain, row by row: float32[_SHEET * _SHEET], sd 1, at most 2: ink stays positive."""
    fine = np.random.default_rng(0).standard_normal((_SHEET, _SHEET))
    soft = 0.5 * (fine + np.roll(fine, 1, 0) + np.roll(fine, 1, 1) + np.roll(fine, (1, 1), (0, 1)))
    return torch.from_numpy(soft.clip(-2, 2).astype(np.float32).ravel()).to(device)


@cache
def _greys(device: torch.device) -> Tensor:
    """Make the table of what grey an amount of ink gives: uint8[_MOST + 1]."""
    light = np.exp(-_ABSORPTION / _FIXED * np.arange(_MOST + 1))
    light[light > 1 - _PAPER] = 1
    return torch.from_numpy(np.round(255 * light).astype(np.uint8)).to(device)
