"""What happens to handwriting between the pen and the program: poor pens, scanners, crops and compression.

After the pen, on batches as the network will see them, on the batch's device. Each effect takes a share of the
pictures, strong ones a small share: of all pictures they would cost accuracy. Keyed by (seed, step) and the place in
the batch, never by global random state, so that a resumed run degrades alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hcr.pen.chance import keyed, normal, uniform

BOLDER = 2.5  # pixels at most at 64, on each side of a stroke
THINNER = 1.4  # and so many off each side at most
FAINTEST = 0.2  # of full ink
LOST = 0.45  # darkness that scanners lose of faint ink, of full ink
COARSEST = 18  # pixels a side, for pictures blown up from few pixels
SMALLEST = 0.65  # sides of the square that the ink fills where it is small
CUT = 0.1  # of a side, what a crop may cut off
SHARES = {
    "move": 0.2,
    "crop": 0.06,
    "bolder": 0.13,
    "thinner": 0.15,
    "lose": 0.06,
    "tone": 0.15,
    "harden": 0.2,
    "coarse": 0.3,
    "blur": 0.12,
    "lines": 0.05,
    "specks": 0.08,
    "tint": 0.05,
    "noise": 0.1,
    "compress": 0.08,
    "faint": 0.1,
}
"""How many of the pictures each effect takes, in the order in which they happen."""


def degrade(images: Tensor, *, seed: int, step: int) -> Tensor:
    """Give images uint8[B, 1, S, S] (255 = paper) as poor pens, scanners, crops and compression would leave them.

    A function of images, seed and step (0 or more). The shares are of the batch: in small ones some effects take none.
    """
    ink = (255 - images).float() * (1 / 255)
    places = torch.arange(len(images), device=images.device)
    key = keyed(seed % (1 << 32), places * 0 + step % (1 << 32), places)
    with torch.autocast(images.device.type, enabled=False):
        for number, (name, share) in enumerate(SHARES.items()):
            # The host knows how many: nothing waits for the device.
            count = int(share * len(images) + 0.5)
            if count:
                own = keyed(key, number)
                chosen = own.argsort()[:count]
                effect = _EFFECTS[name]
                ink.index_copy_(0, chosen, effect(ink.index_select(0, chosen), keyed(own[chosen], 1)))
    return (255 - (ink.clamp(0, 1) * 255).round()).to(torch.uint8)


def _amount(key: Tensor, low: float, high: float) -> Tensor:
    return (low + (high - low) * uniform(key, 1)).view(-1, 1, 1, 1)


def _placed(ink: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scale each picture about its middle and move it, in sides of the square: float32[B, 1], [B, 2]."""
    matrix = ink.new_zeros(len(ink), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / scale[:, 0]
    matrix[:, :, 2] = -2 * shift / scale
    return F.grid_sample(ink, F.affine_grid(matrix, list(ink.shape), align_corners=False), align_corners=False)


def _move(ink: Tensor, key: Tensor) -> Tensor:
    """Make the ink smaller, off the middle, all of it inside."""
    chance = uniform(key, 3)
    scale = SMALLEST + (1 - SMALLEST) * chance[:, :1]
    return _placed(ink, scale, (chance[:, 1:] - 0.5) * (1.1 - scale))


def _crop(ink: Tensor, key: Tensor) -> Tensor:
    """Cut off a little at one side or two, and blow up what is left."""
    chance = uniform(key, 3)
    scale = 1 + CUT * chance[:, :1]
    return _placed(ink, scale, (2 * chance[:, 1:] - 1) * (0.5 * CUT + 0.5 / 16))


def _around(ink: Tensor, sign: float) -> Tensor:
    """Give the darkest (1) or faintest (-1) of the pixels around, corners counted at half."""
    both = F.max_pool2d(sign * ink, (3, 1), 1, (1, 0))
    cross = torch.maximum(both, F.max_pool2d(sign * ink, (1, 3), 1, (0, 1)))
    return sign * 0.5 * (cross + F.max_pool2d(sign * ink, 3, 1, 1))


def _bolder(ink: Tensor, key: Tensor) -> Tensor:
    left = _amount(key, 0.2, BOLDER * ink.shape[-1] / 64)
    for _ in range(math.ceil(BOLDER * ink.shape[-1] / 64)):
        ink = ink + (_around(ink, 1.0) - ink) * left.clamp(0, 1)
        left = left - 1
    return ink


def _thinner(ink: Tensor, key: Tensor) -> Tensor:
    most = THINNER * ink.shape[-1] / 64
    left = _amount(key, 0.2, most)
    for _ in range(math.ceil(most)):
        ink = ink + (_around(ink, -1.0) - ink) * left.clamp(0, 1)
        left = left - 1
    return ink / ink.amax((2, 3), keepdim=True).clamp(min=0.25)


def _lose(ink: Tensor, key: Tensor) -> Tensor:
    """Lose what is faint, so that strokes break."""
    lost = _amount(key, 0.1, LOST)
    return ((ink - lost) / (1 - lost)).clamp(min=0)


def _tone(ink: Tensor, key: Tensor) -> Tensor:
    """Make greys darker or fainter; black stays black."""
    return (ink + ink * (1 - ink) * _amount(key, -0.8, 0.95)).clamp(0, 1)


def _harden(ink: Tensor, key: Tensor) -> Tensor:
    """Make black of what is darker than a threshold and paper of the rest, as 1-bit scans and drawing pads do."""
    threshold = _amount(key, 0.08, 0.5)
    steepness = _amount(keyed(key, 1), 0.5, 3.0) / threshold
    darkest = ink.amax((1, 2, 3), keepdim=True).clamp(min=0.1)
    return ((ink / darkest - threshold) * steepness + 0.5).clamp(0, 1)


def _coarse(ink: Tensor, key: Tensor) -> Tensor:
    """Give what a few pixels can hold, blown up: four groups, each with its own number of pixels."""
    size = ink.shape[-1]
    groups = []
    for number, group in enumerate(ink.chunk(4)):
        pixels = min(size, COARSEST + 4 * number)
        small = F.interpolate(group, size=(pixels, pixels), mode="bilinear", antialias=True, align_corners=False)
        groups.append(F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False))
    return torch.cat(groups)


def _blur(ink: Tensor, key: Tensor) -> Tensor:
    soft = F.avg_pool2d(F.avg_pool2d(ink, 3, 1, 1), 3, 1, 1)
    return ink + (soft - ink) * _amount(key, 0.1, 1.0)


def _lines(ink: Tensor, key: Tensor) -> Tensor:
    """Leave ruled lines: one or two level ones, or upright ones."""
    size = ink.shape[-1]
    chance = uniform(key, 6)
    place = torch.arange(size, device=ink.device) / size
    first, second = ((place - chance[:, n : n + 1]).abs() < 0.5 / size for n in (0, 1))
    ruled = (first | (second & (chance[:, 2:3] < 0.4))).float() * (0.15 + 0.45 * chance[:, 3:4])
    level = (chance[:, 4] < 0.6).float()[:, None, None]
    grid = ruled[:, :, None] * level + ruled[:, None, :] * (1 - level)
    return torch.maximum(ink, grid[:, None].expand_as(ink))


def _specks(ink: Tensor, key: Tensor) -> Tensor:
    size = ink.shape[-1]
    chance = uniform(key, size * size).view_as(ink)
    dots = (chance < _amount(keyed(key, 1), 0.0005, 0.006)).float()
    large = F.max_pool2d((chance < 0.0008).float(), 3, 1, 1)
    return torch.maximum(ink, torch.maximum(dots, 0.8 * large) * _amount(keyed(key, 2), 0.3, 1.0))


def _tint(ink: Tensor, key: Tensor) -> Tensor:
    """Leave some of the paper's shade, darker towards one side."""
    slope = (uniform(key, 2) - 0.5).view(-1, 2, 1, 1)
    place = torch.linspace(-0.5, 0.5, ink.shape[-1], device=ink.device)
    shade = 0.5 + slope[:, :1] * place[:, None] + slope[:, 1:] * place
    return torch.maximum(ink, shade * _amount(keyed(key, 1), 0.05, 0.25))


def _noise(ink: Tensor, key: Tensor) -> Tensor:
    size = ink.shape[-1]
    grain = normal(key, size * size).view_as(ink)
    return ink + grain * _amount(keyed(key, 1), 0.02, 0.1) * (0.3 + ink)


def _compress(ink: Tensor, key: Tensor) -> Tensor:
    """Round the cosine transform of blocks of 8 × 8 pixels, the finer the waves the coarser, as JPEG does."""
    size = ink.shape[-1]
    rim = -size % 8
    blocks = F.pad(ink, (0, rim, 0, rim)).unfold(2, 8, 8).unfold(3, 8, 8)
    wave, place = torch.arange(8.0, device=ink.device)[:, None], torch.arange(8.0, device=ink.device)
    basis = torch.cos(math.pi / 8 * (place + 0.5) * wave) * torch.where(wave > 0, 0.5, math.sqrt(1 / 8))
    step = (0.1 + 0.07 * (wave + place)) * _amount(key, 0.3, 2.0)[:, :, :, :, None, None]
    kept = torch.round(basis @ blocks @ basis.T / step) * step
    whole = (basis.T @ kept @ basis).permute(0, 1, 2, 4, 3, 5).reshape(len(ink), 1, size + rim, size + rim)
    return whole[:, :, :size, :size].clamp(0, 1)


def _faint(ink: Tensor, key: Tensor) -> Tensor:
    return ink * _amount(key, FAINTEST, 0.8)


_EFFECTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "move": _move,
    "crop": _crop,
    "bolder": _bolder,
    "thinner": _thinner,
    "lose": _lose,
    "tone": _tone,
    "harden": _harden,
    "coarse": _coarse,
    "blur": _blur,
    "lines": _lines,
    "specks": _specks,
    "tint": _tint,
    "noise": _noise,
    "compress": _compress,
    "faint": _faint,
}
