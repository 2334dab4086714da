"""Distort a batch on the device, each picture in its own way.

torchvision's transforms draw one set of parameters for a whole batch; here one `grid_sample` serves B different affine
maps. Keyed by (seed, step), never by global random state, so that a resumed run distorts alike. Never a flip: that
makes another character.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Standard deviations but for SHIFT, which is a bound; chosen near what the best recipes state (docs/benchmarks.md).
TURN = math.radians(5)
SHEAR = 0.1
LOG_SCALE = 0.08
SHIFT = 0.06  # of the picture's side, where the preprocessing's margin is 1/16


def augment(images: Tensor, seed: int, step: int) -> Tensor:
    """Turn, shear, scale and shift each of images uint8[B, 1, S, S] (255 = paper); gives uint8 of the same shape.

    The parameters are a function of (seed, step) and the place in the batch; on one kind of device also the pixels are.
    """
    count, device = images.shape[0], images.device
    # Drawn on the CPU: CUDA's generator would give other numbers.
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % (1 << 63))
    normal = torch.randn(count, 4, generator=generator)
    shift = (torch.rand(count, 2, generator=generator) * 2 - 1) * 2 * SHIFT  # grid_sample's picture is 2 wide
    turn, shear = normal[:, 0] * TURN, normal[:, 1] * SHEAR
    scale = torch.exp(normal[:, 2:] * LOG_SCALE)
    cos, sin = torch.cos(turn), torch.sin(turn)
    rows = torch.stack(
        [
            torch.stack([cos * scale[:, 0], (shear * cos - sin) * scale[:, 0], shift[:, 0]], 1),
            torch.stack([sin * scale[:, 1], (shear * sin + cos) * scale[:, 1], shift[:, 1]], 1),
        ],
        1,
    ).to(device)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    # Ink, not paper, is sampled: what comes in from outside the picture is 0, and 0 ink is paper.
    ink = F.grid_sample((255 - images).float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (255 - ink.round()).to(torch.uint8)
