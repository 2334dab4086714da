"""The preprocessing of photographs, for a batch of small grey crops at once, on any device.

`hcr.preprocess` takes milliseconds a photograph, a hundred times as long as drawing one; training cannot wait for that.
This does the same on torch: paper divided out, noise cut, ink cropped and fitted into a square. tests/test_pages.py
says how closely the two agree. What a network learns from goes through here and nowhere else, so that a new version of
the preprocessing has one place to be followed in.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_PROBES = 16  # a side: the pixels by which tones of paper and noise are measured
_LOBES = 3  # of Lanczos
_STEPS = 256  # entries of its table a pixel


class Crops(NamedTuple):
    """Pictures cut out of photographs: grey float32[B, N, N], 0-1, 1 = white, and what is seen of them.

    box: int64[B, 4], the pixels from left and top up to, not including, right and bottom.
    """

    grey: Tensor
    box: Tensor


def fit_crops(crops: Crops, size: int, kept: Tensor, strict: Tensor) -> Tensor:
    """Return uint8[B, size, size], 255 = paper: the ink of each crop, centred, its longer side size - 2 * margin.

    kept: bool[B], whether the paper stays in the picture, as it does where its shade is taken for ink. strict:
    float32[B], 0-1, how dark beside the darkest ink must be, and beside noise, to be ink.
    """
    ink = torch.where(kept[:, None, None], _with_paper(crops), _without_paper(crops, strict))
    return fit_ink(ink * 255, crops.box, size)


def inside(box: Tensor, side: int) -> Tensor:
    """Tell which pixels a box has: bool[B, side, side]."""
    place = torch.arange(side, device=box.device)
    across = (place >= box[:, :1]) & (place < box[:, 2:3])
    down = (place >= box[:, 1:2]) & (place < box[:, 3:])
    return down[:, :, None] & across[:, None, :]


def _repeated(crops: Crops) -> Tensor:
    """Repeat the edge of each box outwards, so that nothing beyond it is seen."""
    side = crops.grey.shape[-1]
    place = torch.arange(side, device=crops.box.device)
    column = place.clamp(min=crops.box[:, :1]).minimum(crops.box[:, 2:3] - 1)
    row = place.clamp(min=crops.box[:, 1:2]).minimum(crops.box[:, 3:] - 1)
    rows = crops.grey.gather(1, row[:, :, None].expand(-1, -1, side))
    return rows.gather(2, column[:, None, :].expand(-1, side, -1))


def _with_paper(crops: Crops) -> Tensor:
    """Return the ink of pictures whose lightest tone alone is paper: float32[B, N, N], 0-1, nothing outside."""
    seen = inside(crops.box, crops.grey.shape[-1])
    lightest = torch.where(seen, crops.grey, 0).amax((1, 2), keepdim=True)
    return torch.where(seen, 1 - crops.grey / lightest.clamp(min=1 / 255), 0).clamp(min=0)


def _without_paper(crops: Crops, strict: Tensor) -> Tensor:
    """Divide uneven paper out and keep what is dark enough to be ink: float32[B, N, N], 0-1."""
    grey = _repeated(crops)
    side = grey.shape[-1]
    window = max(3, side // 5) | 1
    closed = -_widest(-_widest(grey, window), window)
    paper = _mean(-_widest(-closed, 5))
    ratio = grey / paper.clamp(min=1 / 255)
    probes = _probes(ratio, crops.box)
    light = _median_of(probes, probes > 0.85, 1.0)[:, None]
    probes = probes / light
    noise = 1.4826 * _median_of((probes - 1).abs(), probes > 0.85, 0.0)
    ratio = ratio / light[:, :, None]
    seen = inside(crops.box, side)
    soft = ratio[:, 1:, 1:] + ratio[:, 1:, :-1] + ratio[:, :-1, 1:] + ratio[:, :-1, :-1]
    contrast = (1 - 0.25 * soft.amin((1, 2))).clamp(min=0.02)
    strong = ((ratio < 1 - ((0.2 + 0.2 * strict) * contrast)[:, None, None]) & seen).float()
    cut = (1 - torch.maximum((1.5 + 1.5 * strict) * noise, (0.05 + 0.05 * strict) * contrast))[:, None, None]
    ink = (ratio < cut) & (_widest(strong, 5) > 0) & seen
    darkest = 1 - contrast[:, None, None]
    tones = (ratio - darkest) / (cut - darkest).clamp(min=0.001)
    return torch.where(ink, 1 - tones.clamp(0, 254 / 255), 0)


def _widest(values: Tensor, window: int) -> Tensor:
    """Return the greatest value of each window of an odd number of pixels a side, edges repeated.

    By windows of twice the size from two each time: torch's pooling takes five times as long.
    """
    for axis in (1, 2):
        length, reach = values.shape[axis], window // 2
        ends = [values.narrow(axis, place, 1) for place in (0, length - 1)]
        shape = [-1, -1, -1]
        shape[axis] = reach
        values = torch.cat([ends[0].expand(shape), values, ends[1].expand(shape)], axis)
        size = 1
        while size < window:
            step = min(size, window - size)
            left = values.shape[axis] - step
            values = torch.maximum(values.narrow(axis, 0, left), values.narrow(axis, step, left))
            size += step
    return values


def _mean(values: Tensor) -> Tensor:
    """Return the mean of the 3 × 3 pixels around each, edges repeated."""
    for axis in (1, 2):
        length = values.shape[axis]
        ends = [values.narrow(axis, place, 1) for place in (0, length - 1)]
        wide = torch.cat([ends[0], values, ends[1]], axis)
        values = (wide.narrow(axis, 0, length) + wide.narrow(axis, 2, length) + values) * (1 / 3)
    return values


def _probes(values: Tensor, box: Tensor) -> Tensor:
    """Return values of a grid of places in each box: float32[B, P]."""
    side = values.shape[-1]
    share = (torch.arange(_PROBES, device=box.device) * 2 + 1) / (2 * _PROBES)
    column = (box[:, :1] + share * (box[:, 2:3] - box[:, :1])).long()
    row = (box[:, 1:2] + share * (box[:, 3:] - box[:, 1:2])).long()
    place = (row[:, :, None] * side + column[:, None, :]).flatten(1)
    return values.flatten(1).gather(1, place)


def _median_of(values: Tensor, chosen: Tensor, nothing: float) -> Tensor:
    """Return the lower median of the chosen values of each row, `nothing` where none is: float32[B]."""
    ordered = values.masked_fill(~chosen, torch.inf).sort(1).values
    count = chosen.sum(1)
    middle = ordered.gather(1, ((count - 1) // 2).clamp(min=0)[:, None])[:, 0]
    return torch.where(count > 0, middle, nothing)


def fit_ink(ink: Tensor, box: Tensor, size: int) -> Tensor:
    """Do what `hcr.preprocess.fit.fit_squares` does, with ink float32[B, N, N], 0-255, none outside of the box."""
    side = ink.shape[-1]
    ink = ink.round()
    inner = size - 2 * round(size / 16)
    low, high = zip(*(_extent(ink.amax(axis) > 0) for axis in (1, 2)), strict=True)
    across, down = (end - start for start, end in zip(low, high, strict=True))
    scale = inner / torch.maximum(across, down).clamp(min=1)
    weights = [_resampling(start, length, scale, side, size) for start, length in zip(low, (across, down), strict=True)]
    # Pillow keeps bytes between the two passes.
    rows = (ink @ weights[0].transpose(1, 2)).round().clamp(0, 255)
    squares = (weights[1] @ rows).round().clamp(0, 255)
    return (255 - squares).to(torch.uint8)


def _extent(filled: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first place of bool[B, N] that is filled, and the one after the last; all of them where none is."""
    place = torch.arange(filled.shape[1], device=filled.device, dtype=torch.float32)
    first = torch.where(filled, place, torch.inf).amin(1)
    last = torch.where(filled, place, -1).amax(1) + 1
    some = last > 0
    return torch.where(some, first, 0), torch.where(some, last, float(filled.shape[1]))


def _resampling(start: Tensor, length: Tensor, scale: Tensor, side: int, size: int) -> Tensor:
    """Return which share each of `side` old pixels has in each of `size` new ones: float32[B, size, side]."""
    new = (length * scale).round().clamp(min=1)
    left = ((size - new) * 0.5).floor()
    place = torch.arange(size, device=start.device) - left[:, None]
    used = (place >= 0) & (place < new[:, None])
    step = length / new
    reach = step.clamp(min=1)
    centre = start[:, None] + (place + 0.5) * step[:, None]
    old = torch.arange(side, device=start.device)
    far = ((old + 0.5 - centre[:, :, None]) / reach[:, None, None]).abs()
    within = (old >= start[:, None]) & (old < (start + length)[:, None])
    table = _lanczos(start.device)
    sharp = table.index_select(0, (far * _STEPS).round().long().clamp(max=len(table) - 1).flatten()).view_as(far)
    kernel = torch.where((scale > 1)[:, None, None], sharp, (1 - far).clamp(min=0))
    kernel = kernel * (within[:, None, :] & used[:, :, None])
    return kernel / kernel.sum(2, keepdim=True).abs().clamp(min=1e-6)


@cache
def _lanczos(device: torch.device) -> Tensor:
    """Return the kernel of three lobes from 0 on: float32[_LOBES * _STEPS + 1]."""
    x = np.arange(_LOBES * _STEPS + 1) / _STEPS
    return torch.from_numpy((np.sinc(x) * np.sinc(x / _LOBES)).astype(np.float32)).to(device)
