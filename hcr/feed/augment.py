"""Augmentation: distort a batch on its device, each picture in its own way.

torchvision's transforms draw one set of parameters for a whole batch. Here one `grid_sample` serves B different maps,
affine and elastic together, and effects on some pictures are computed for those alone. Random numbers are keyed by
(seed, step), never by global state, so that a resumed run distorts alike. Nothing is flipped: that would make another
character.

Numbers are drawn on the device, so that it waits for nothing; the price is that a GPU draws others than a CPU.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# For every picture. Standard deviations, but for SHIFT, which is a bound. Lengths are in sides of the picture.
TURN = math.radians(6)
SHEAR = 0.12
LOG_SCALE = 0.1
SHIFT = 0.06  # the preprocessing leaves a margin of 1/16
ELASTIC = 0.02
KNOTS = 5  # a side: the elastic map is drawn at 5 × 5 places and smooth between them

# For a share of the pictures: strong distortions of all of them cost accuracy (docs/lab-notes.md). Bounds.
THINNER_SHARE = THICKER_SHARE = 0.12
WIDTH = 0.5  # how far towards the darkest or faintest of the 3 × 3 pixels around, at 64 px
TONE_SHARE = 0.25
TONE = 0.6  # greys this much darker or fainter; black stays black, as the model scales ink by its darkest pixel
NOISE_SHARE = 0.2
NOISE = 0.05  # standard deviation, in black
ERASED_SHARE = 0.12
ERASED = 0.15  # longest side of the rectangle that becomes paper


def augment(images: Tensor, seed: int, step: int) -> Tensor:
    """Return each of images uint8[B, 1, S, S] (255 = paper) distorted, in that type and shape.

    Turns, shears, scales, shifts and bends every picture; makes strokes thinner or thicker and greys darker or fainter,
    erases a rectangle and adds noise on a share of them. On one kind of device the pixels are a function of images,
    seed and step alone, whatever the number of threads and whether autocast is on.
    """
    generator = torch.Generator(images.device)
    generator.manual_seed((seed * 1_000_003 + step) % (1 << 63))
    with torch.autocast(images.device.type, enabled=False):
        # Ink, not paper, is moved: what comes in from outside the picture is 0, and 0 ink is paper.
        ink = _Ink((255 - images).float(), generator)
        ink.move()
        ink.widen()
        ink.tone()
        ink.erase()
        ink.noise()
        return (255 - ink.values.clamp(0, 255).round()).to(torch.uint8)


class _Ink:
    """The pictures while they are distorted: float32[B, 1, S, S], 0 = paper, 255 = black."""

    def __init__(self, values: Tensor, generator: torch.Generator) -> None:
        self.values, self.generator = values, generator
        self.count, self.side, self.device = values.shape[0], values.shape[-1], values.device
        self.places = self.uniform(4, self.count).argsort(1)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device, dtype=torch.float32)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=torch.float32)

    def portion(self, row: int, start: float, share: float) -> tuple[Tensor, Tensor]:
        """Return the places int64[n] of a share of the pictures, and those pictures.

        n follows from B alone, so the device is not asked and nothing waits.
        """
        first, end = (int(self.count * part + 0.5) for part in (start, start + share))
        places = self.places[row, first:end]
        return places, self.values.index_select(0, places)

    def put(self, places: Tensor, values: Tensor) -> None:
        self.values.index_copy_(0, places, values)

    def move(self) -> None:
        """Move by an affine and an elastic map at once: both are sums of products of a function of y and one of x.

        The places where a picture is read are basis · mix · basisᵀ. The basis is KNOTS bicubic weights, the coordinate
        and 1, so the products are small instead of maps as large as the pictures.
        """
        normal, uniform = self.normal(self.count, 4), self.uniform(self.count, 2)
        turn, shear = normal[:, 0] * TURN, normal[:, 1] * SHEAR
        scale = torch.exp(normal[:, 2:] * LOG_SCALE)
        cos, sin = torch.cos(turn), torch.sin(turn)
        mix = torch.zeros(self.count, 2, KNOTS + 2, KNOTS + 2, device=self.device)
        # grid_sample's picture is 2 wide.
        mix[:, :, :KNOTS, :KNOTS] = self.normal(self.count, 2, KNOTS, KNOTS) * (2 * ELASTIC)
        mix[:, :, -1, -2] = torch.stack([cos, sin], 1) * scale  # of x
        mix[:, :, -2, -1] = torch.stack([shear * cos - sin, shear * sin + cos], 1) * scale  # of y
        mix[:, :, -1, -1] = (uniform * 2 - 1) * (2 * SHIFT)
        basis = self.basis()
        grid = (basis @ mix @ basis.T).permute(0, 2, 3, 1)
        self.values = F.grid_sample(self.values, grid, align_corners=False)

    def basis(self) -> Tensor:
        unit = torch.eye(KNOTS, device=self.device)[None, None]
        weights = F.interpolate(unit, size=(self.side, KNOTS), mode="bicubic", align_corners=True)[0, 0]
        place = (torch.arange(self.side, device=self.device) * 2 + 1) / self.side - 1
        return torch.cat([weights, place[:, None], torch.ones_like(place)[:, None]], 1)

    def widen(self) -> None:
        most = WIDTH * min(1.0, self.side / 64)
        for start, share, sign in ((0.0, THINNER_SHARE, -1.0), (THINNER_SHARE, THICKER_SHARE, 1.0)):
            places, ink = self.portion(0, start, share)
            around = sign * F.max_pool2d(sign * ink, 3, 1, 1)
            self.put(places, ink + (around - ink) * (self.uniform(len(ink), 1, 1, 1) * most))

    def tone(self) -> None:
        places, ink = self.portion(1, 0.0, TONE_SHARE)
        # Sums and products only: a power is not the same to the bit in every thread's share.
        self.put(places, ink + ink * (255 - ink) * ((self.uniform(len(ink), 1, 1, 1) * 2 - 1) * (TONE / 255)))

    def erase(self) -> None:
        places, ink = self.portion(2, 0.0, ERASED_SHARE)
        extent = (self.uniform(len(ink), 2, 1) * 0.75 + 0.25) * (ERASED * self.side)
        corner = self.uniform(len(ink), 2, 1) * (self.side - extent)
        steps = torch.arange(self.side, device=self.device)
        inside = (steps >= corner) & (steps < corner + extent)
        self.put(places, ink * ~(inside[:, :1, :, None] & inside[:, 1:, None, :]))

    def noise(self) -> None:
        places, ink = self.portion(3, 0.0, NOISE_SHARE)
        grain = self.normal(*ink.shape) * (self.uniform(len(ink), 1, 1, 1) * (255 * NOISE))
        self.put(places, ink + grain)
