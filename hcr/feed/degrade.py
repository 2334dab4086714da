"""What happens to handwriting between paper and program: poor pens, scanners, crops and compression.

After drawing, on batches as the network will see them, on the batch's device. Each effect takes a share of the
pictures. Strong effects take a small share, as they would cost accuracy on all pictures. Random numbers are keyed by
(seed, step) and the place in the batch, never by global random state, so that a resumed run degrades alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hcr.synth.rng import keyed, normal, uniform

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


_CHANCES = 6  # of a picture and an effect, at most


def degrade(images: Tensor, *, seed: int, step: int) -> Tensor:
    """Return images uint8[B, 1, S, S] (255 = paper) as poor pens, scanners, crops and compression would leave them.

    A function of images, seed and step (0 or more). The shares are of the batch: in small ones some effects take none.
    """
    ink = (255 - images).float() * (1 / 255)
    places = torch.arange(len(images), device=images.device)
    key = keyed(seed % (1 << 32), places * 0 + step % (1 << 32), places)
    # Of all effects at once: on a GPU the number of calls is what takes the time.
    number = torch.arange(len(SHARES), device=images.device)
    effect_key = keyed(key, number[:, None])
    order = effect_key.argsort(1)
    chances = Chances.draw(keyed(effect_key, 1))
    with torch.autocast(images.device.type, enabled=False):
        for place, (name, share) in enumerate(SHARES.items()):
            # The host knows how many: nothing waits for the device.
            count = int(share * len(images) + 0.5)
            if count:
                chosen = order[place, :count]
                chosen_chances = Chances(chances.key[place, chosen], chances.chance[place].index_select(0, chosen))
                ink.index_copy_(0, chosen, _EFFECTS[name](ink.index_select(0, chosen), chosen_chances))
    return (255 - (ink.clamp(0, 1) * 255).round()).to(torch.uint8)


class Chances(NamedTuple):
    """Random numbers of N pictures.

    key: int64[..., N], from which an effect draws more. chance: float32[..., N, _CHANCES + 2], uniform in [0, 1).
    """

    key: Tensor
    chance: Tensor

    @classmethod
    def draw(cls, key: Tensor) -> Chances:
        """Return the chances of each key, int64[..., N]."""
        further = keyed(key[..., None], torch.arange(1, 3, device=key.device))
        return cls(key, torch.cat([uniform(key, _CHANCES), uniform(further, 1).squeeze(-1)], -1))

    def amount(self, column: int, low: float, high: float) -> Tensor:
        """Return a number of each picture between two, by one of its chances: float32[N, 1, 1, 1]."""
        return (low + (high - low) * self.chance[:, column]).view(-1, 1, 1, 1)


def _placed(ink: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scale each picture about its middle and move it, in sides of the square: float32[B, 1], [B, 2]."""
    matrix = ink.new_zeros(len(ink), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / scale[:, 0]
    matrix[:, :, 2] = -2 * shift / scale
    return F.grid_sample(ink, F.affine_grid(matrix, list(ink.shape), align_corners=False), align_corners=False)


def _move(ink: Tensor, chances: Chances) -> Tensor:
    """Make the ink smaller, off the middle, all of it inside."""
    scale = SMALLEST + (1 - SMALLEST) * chances.chance[:, :1]
    return _placed(ink, scale, (chances.chance[:, 1:3] - 0.5) * (1.1 - scale))


def _crop(ink: Tensor, chances: Chances) -> Tensor:
    """Cut off a little at one side or two, and blow up what is left."""
    scale = 1 + CUT * chances.chance[:, :1]
    return _placed(ink, scale, (2 * chances.chance[:, 1:3] - 1) * (0.5 * CUT + 0.5 / 16))


def _around(ink: Tensor, sign: float) -> Tensor:
    """Return the darkest (1) or faintest (-1) of the pixels around, corners counted at half."""
    upright = F.max_pool2d(sign * ink, (3, 1), 1, (1, 0))
    cross = torch.maximum(upright, F.max_pool2d(sign * ink, (1, 3), 1, (0, 1)))
    return sign * 0.5 * (cross + F.max_pool2d(sign * ink, 3, 1, 1))


def _bolder(ink: Tensor, chances: Chances) -> Tensor:
    left = chances.amount(0, 0.2, BOLDER * ink.shape[-1] / 64)
    for _ in range(math.ceil(BOLDER * ink.shape[-1] / 64)):
        ink = ink + (_around(ink, 1.0) - ink) * left.clamp(0, 1)
        left = left - 1
    return ink


def _thinner(ink: Tensor, chances: Chances) -> Tensor:
    most = THINNER * ink.shape[-1] / 64
    left = chances.amount(0, 0.2, most)
    for _ in range(math.ceil(most)):
        ink = ink + (_around(ink, -1.0) - ink) * left.clamp(0, 1)
        left = left - 1
    return ink / ink.amax((2, 3), keepdim=True).clamp(min=0.25)


def _lose(ink: Tensor, chances: Chances) -> Tensor:
    """Lose what is faint, so that strokes break."""
    lost = chances.amount(0, 0.1, LOST)
    return ((ink - lost) / (1 - lost)).clamp(min=0)


def _tone(ink: Tensor, chances: Chances) -> Tensor:
    """Make greys darker or fainter; black stays black."""
    return (ink + ink * (1 - ink) * chances.amount(0, -0.8, 0.95)).clamp(0, 1)


def _harden(ink: Tensor, chances: Chances) -> Tensor:
    """Make black of what is darker than a threshold and paper of the rest, as 1-bit scans and drawing pads do."""
    threshold = chances.amount(0, 0.08, 0.5)
    steepness = chances.amount(-2, 0.5, 3.0) / threshold
    darkest = ink.amax((1, 2, 3), keepdim=True).clamp(min=0.1)
    return ((ink / darkest - threshold) * steepness + 0.5).clamp(0, 1)


def _coarse(ink: Tensor, _chances: Chances) -> Tensor:
    """Return what a few pixels can hold, blown up: four groups, each with its own number of pixels."""
    size = ink.shape[-1]
    groups = []
    for number, group in enumerate(ink.chunk(4)):
        pixels = min(size, COARSEST + 4 * number)
        small = F.interpolate(group, size=(pixels, pixels), mode="bilinear", antialias=True, align_corners=False)
        groups.append(F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False))
    return torch.cat(groups)


def _blur(ink: Tensor, chances: Chances) -> Tensor:
    soft = F.avg_pool2d(F.avg_pool2d(ink, 3, 1, 1), 3, 1, 1)
    return ink + (soft - ink) * chances.amount(0, 0.1, 1.0)


def _lines(ink: Tensor, chances: Chances) -> Tensor:
    """Leave ruled lines: one or two level ones, or upright ones."""
    size = ink.shape[-1]
    chance = chances.chance
    place = torch.arange(size, device=ink.device) / size
    first, second = ((place - chance[:, n : n + 1]).abs() < 0.5 / size for n in (0, 1))
    ruled = (first | (second & (chance[:, 2:3] < 0.4))).float() * (0.15 + 0.45 * chance[:, 3:4])
    level = (chance[:, 4] < 0.6).float()[:, None, None]
    grid = ruled[:, :, None] * level + ruled[:, None, :] * (1 - level)
    return torch.maximum(ink, grid[:, None].expand_as(ink))


def _specks(ink: Tensor, chances: Chances) -> Tensor:
    size = ink.shape[-1]
    chance = uniform(chances.key, size * size).view_as(ink)
    dots = (chance < chances.amount(-2, 0.0005, 0.006)).float()
    large = F.max_pool2d((chance < 0.0008).float(), 3, 1, 1)
    return torch.maximum(ink, torch.maximum(dots, 0.8 * large) * chances.amount(-1, 0.3, 1.0))


def _tint(ink: Tensor, chances: Chances) -> Tensor:
    """Leave some of the paper's shade, darker towards one side."""
    slope = (chances.chance[:, :2] - 0.5)[:, :, None, None]
    place = torch.linspace(-0.5, 0.5, ink.shape[-1], device=ink.device)
    shade = 0.5 + slope[:, :1] * place[:, None] + slope[:, 1:] * place
    return torch.maximum(ink, shade * chances.amount(-2, 0.05, 0.25))


def _noise(ink: Tensor, chances: Chances) -> Tensor:
    size = ink.shape[-1]
    grain = normal(chances.key, size * size).view_as(ink)
    return ink + grain * chances.amount(-2, 0.02, 0.1) * (0.3 + ink)


def _compress(ink: Tensor, chances: Chances) -> Tensor:
    """Round the cosine transform of blocks of 8 × 8 pixels, the finer the waves the coarser, as JPEG does."""
    size = ink.shape[-1]
    rim = -size % 8
    blocks = F.pad(ink, (0, rim, 0, rim)).unfold(2, 8, 8).unfold(3, 8, 8)
    wave, place = torch.arange(8.0, device=ink.device)[:, None], torch.arange(8.0, device=ink.device)
    basis = torch.cos(math.pi / 8 * (place + 0.5) * wave) * torch.where(wave > 0, 0.5, math.sqrt(1 / 8))
    step = (0.1 + 0.07 * (wave + place)) * chances.amount(0, 0.3, 2.0)[:, :, :, :, None, None]
    kept = torch.round(basis @ blocks @ basis.T / step) * step
    whole = (basis.T @ kept @ basis).permute(0, 1, 2, 4, 3, 5).reshape(len(ink), 1, size + rim, size + rim)
    return whole[:, :, :size, :size].clamp(0, 1)


def _faint(ink: Tensor, chances: Chances) -> Tensor:
    return ink * chances.amount(0, FAINTEST, 0.8)


_EFFECTS: dict[str, Callable[[Tensor, Chances], Tensor]] = {
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
