"""Distort a batch on the device, each picture in its own way.

torchvision's transforms draw one set of parameters for a whole batch; here one `grid_sample` serves B different maps,
affine and elastic together. Keyed by (seed, step), never by global random state, so that a resumed run distorts alike.
Never a flip: that makes another character.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Standard deviations, but for SHIFT, which is a bound. Lengths are in sides of the picture.
TURN = math.radians(6)
SHEAR = 0.12
LOG_SCALE = 0.1
SHIFT = 0.06  # the preprocessing leaves a margin of 1/16
ELASTIC = 0.02
KNOTS = 5  # a side: the elastic map is drawn at 5 × 5 places and smooth between them


def augment(images: Tensor, seed: int, step: int) -> Tensor:
    """Turn, shear, scale, shift and bend each of images uint8[B, 1, S, S] (255 = paper); gives uint8 of that shape.

    The parameters are a function of (seed, step) and the place in the batch; on one kind of device also the pixels are.
    """
    count, device, side = images.shape[0], images.device, images.shape[-1]
    # Drawn on the CPU: CUDA's generator would give other numbers.
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % (1 << 63))
    normal = torch.randn(count, 4, generator=generator)
    shift = (torch.rand(count, 2, generator=generator) * 2 - 1) * 2 * SHIFT  # grid_sample's picture is 2 wide
    knots = torch.randn(count, 2, KNOTS, KNOTS, generator=generator) * 2 * ELASTIC
    turn, shear = normal[:, 0] * TURN, normal[:, 1] * SHEAR
    scale = torch.exp(normal[:, 2:] * LOG_SCALE)
    cos, sin = torch.cos(turn), torch.sin(turn)
    rows = torch.stack(
        [
            torch.stack([cos * scale[:, 0], (shear * cos - sin) * scale[:, 0], shift[:, 0]], 1),
            torch.stack([sin * scale[:, 1], (shear * sin + cos) * scale[:, 1], shift[:, 1]], 1),
        ],
        1,
    )
    grid = F.affine_grid(rows.to(device), list(images.shape), align_corners=False)
    bend = F.interpolate(knots.to(device), size=(side, side), mode="bicubic", align_corners=True)
    # Ink, not paper, is sampled: what comes in from outside the picture is 0, and 0 ink is paper.
    ink = F.grid_sample((255 - images).float(), grid + bend.permute(0, 2, 3, 1), align_corners=False)
    return (255 - ink.round()).to(torch.uint8)
