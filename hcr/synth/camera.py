"""Paper in its light, and what a camera makes of it.

Between the page and the crop: shade, shadows, creases, a desk beyond the sheet; then blur, sharpening, noise and the
losses of JPEG. Pictures are float32[B, N, N], 0-1, 1 = white.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hcr.synth.chance import Chance
from hcr.synth.rng import keyed, normal

_SHEET = 256  # pixels a side of the sheet of noise, which repeats


def uneven(key: Tensor, salt: int, side: int, knots: int) -> Tensor:
    """Return what changes slowly over a picture, normal at `knots` places a side: float32[B, side, side]."""
    values = normal(keyed(key, salt), knots * knots).view(-1, 1, knots, knots)
    return F.interpolate(values, size=(side, side), mode="bilinear", align_corners=True)[:, 0]


def blank_paper(chance: Chance, side: int, count: int) -> Tensor:
    """Return the light of blank paper: float32[B, side, side]."""
    tone = torch.where(chance.happens(0.35), chance.between(0.93, 1.0), chance.between(0.5, 0.95))
    rough = torch.where(chance.happens(0.3), chance.between(0.0, 0.035), 0.0)
    grain = _noise(chance.between(0, _SHEET**2).long(), side)
    soft = 0.25 * (grain + grain.roll(1, 1) + grain.roll(1, 2) + grain.roll((1, 1), (1, 2)))
    return tone[:, None, None] * (1 + rough[:, None, None] * soft)


def lit(chance: Chance, light: Tensor, across: Tensor, down: Tensor, box: Tensor, lie: Tensor) -> Tensor:
    """Let light fall on the page: shade, a shadow's edge, a finger, a crease; and the desk beyond the sheet's edge."""

    def ramp(low: float, high: float) -> Tensor:
        """Return distances from a line across the picture, in any direction."""
        x, y = chance.bell(0, 1), chance.bell(0, 1)
        size = torch.sqrt(x * x + y * y + 1e-3)
        return (across * (x / size)[:, None, None] + down * (y / size)[:, None, None]) - chance.between(low, high)[
            :, None, None
        ]

    def wide(values: Tensor) -> Tensor:
        return values[:, None, None]

    slope = wide(torch.where(chance.happens(0.5), chance.between(0, 0.25), 0.0))
    light = light * (1 - slope * ramp(-0.2, 0.2).clamp(-1, 1))
    depth = wide(torch.where(chance.happens(0.12), chance.between(0.08, 0.35), 0.0))
    light = light * (1 - depth * (ramp(-0.5, 0.5) / wide(chance.between(0.15, 0.6)) + 0.5).clamp(0, 1))
    crease = wide(torch.where(chance.happens(0.05), chance.between(-0.25, 0.15), 0.0))
    light = light * (1 + crease * (1 - ramp(-0.5, 0.5).abs() / wide(chance.between(0.01, 0.05))).clamp(min=0))
    beyond = torch.where(chance.happens(0.04), chance.between(0.56, 0.85), 9.0)
    x, y = chance.bell(0, 1), chance.bell(0, 1)
    # A sheet ends along its lines, more or less.
    level = x.abs() > y.abs()
    x, y = torch.where(level, x.sign(), 0.1 * x), torch.where(level, 0.1 * y, y.sign())
    far = across * wide(x) + down * wide(y) - wide(beyond)
    desk = wide(torch.where(chance.happens(0.7), chance.between(0.05, 0.5), chance.between(0.5, 1.0)))
    cover = (far / 0.03 + 0.5).clamp(0, 1)
    return light + (desk - light) * cover


def seen_by_camera(chance: Chance, light: Tensor, contrast: Tensor) -> Tensor:
    """Blur, sharpen, add noise and compress, as cameras do: float32[B, N, N], 0-1, in 255 steps."""
    side = light.shape[-1]
    # Larger captures of the same page are blurred by more of their pixels.
    most, passes = {32: (0.1, 2), 40: (0.14, 2), 56: (0.22, 2)}.get(side, (0.25, 3))
    strength = torch.where(chance.happens(0.85), chance.between(0.0, 1.0), 0.0) * most
    for _ in range(passes):
        light = _softer(light, strength)
    amount = torch.where(chance.happens(0.4), chance.between(0.2, 1.6), 0.0)[:, None, None]
    light = light + amount * (light - _softer(light, torch.full_like(strength, 0.25)))
    noise = torch.where(chance.happens(0.6), chance.between(0.0, 1.0).square() * 0.04 * contrast, 0.0)
    light = light + noise[:, None, None] * _noise(chance.between(0, _SHEET**2).long(), side)
    light = _compressed(light, torch.where(chance.happens(0.8), 0.3 + 1.4 * chance.between(0, 1).square(), 0.0))
    gain = chance.between(0.95, 1.12)[:, None, None]
    return (light * gain * 255).round().clamp(0, 255) * (1 / 255)


def _softer(light: Tensor, strength: Tensor) -> Tensor:
    """Mix each pixel with those beside it, then with those above and below: by strength each, 0-0.33."""
    share = strength[:, None, None]
    for axis in (1, 2):
        length = light.shape[axis] - 1
        before = torch.cat([light.narrow(axis, 0, 1), light.narrow(axis, 0, length)], axis)
        after = torch.cat([light.narrow(axis, 1, length), light.narrow(axis, length, 1)], axis)
        light = light + share * (before + after - 2 * light)
    return light


def _compressed(light: Tensor, loss: Tensor) -> Tensor:
    """Round the cosine transform of blocks of 8 × 8 pixels as JPEG does; loss: float32[B], 0 for none."""
    count, side = light.shape[:2]
    rows = side // 8
    blocks = light.view(count, rows, 8, rows, 8).permute(0, 1, 3, 2, 4).reshape(-1, 64)
    basis, coarse = _waves(light.device)
    waves = blocks @ basis
    step = loss[:, None, None] * coarse
    waves = waves.view(count, rows * rows, 64)
    kept = torch.where(step > 0, (waves / step.clamp(min=1e-4)).round() * step, waves).view(-1, 64)
    whole = (kept @ basis.T).view(count, rows, rows, 8, 8).permute(0, 1, 3, 2, 4)
    return whole.reshape(count, side, side)


@cache
def _waves(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the cosine transform of 64 pixels, float32[64, 64], and the size of the steps of each wave, [64]."""
    wave, place = np.arange(8.0)[:, None], np.arange(8.0)
    one = np.cos(np.pi / 8 * (place + 0.5) * wave) * np.where(wave > 0, 0.5, np.sqrt(1 / 8))
    both = np.einsum("ux,vy->xyuv", one, one).reshape(64, 64)
    steps = (0.03 + 0.012 * (wave + place)).reshape(64)
    return tuple(torch.from_numpy(each.astype(np.float32)).to(device) for each in (both, steps))  # type: ignore[return-value]


@cache
def _sheet(device: torch.device) -> Tensor:
    """Return a sheet of noise, row by row: float32[_SHEET * _SHEET], sd 1."""
    noise = np.random.default_rng(1).standard_normal(_SHEET * _SHEET).clip(-3, 3)
    return torch.from_numpy(noise.astype(np.float32)).to(device)


def _noise(spot: Tensor, side: int) -> Tensor:
    """Cut noise out of the sheet, from int64[B] on: float32[B, side, side]."""
    place = torch.arange(side, device=spot.device)
    index = spot[:, None, None] + place[:, None] * _SHEET + place
    return _sheet(spot.device).index_select(0, (index & (_SHEET * _SHEET - 1)).flatten()).view(index.shape)
