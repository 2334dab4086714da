"""The compact network, for machines without a GPU, and its wide form, for a GPU and as a teacher.

Before the convolutions it normalises the picture, so that hands of other proportions look alike. Stroke thickening
makes thin lines bolder; line-density equalisation (a nonlinear normalisation) gives each part of a character the room
that its strokes need. A network that learns from drawn hands alone meets other proportions in every real one.
Plain 3×3 convolutions with batch norm keep a CPU's arithmetic units busy, where depthwise ones wait for memory. The
network works at half the picture's resolution, on fixed maps of stroke directions that need not be learnt from few
samples a class. It is wide only where the map is small (docs/lab-notes.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIRECTIONS = 8
WIDTHS = (48, 96, 160, 368)  # channels of the maps of 32, 16, 8 and 4 pixels a side, for pictures of 64
SMALL = (32, 64, 128, 256)  # the same of the small form: half the arithmetic
WIDE = (96, 192, 384, 768)  # the same of the wide form
# Dropout of whole channels, before the second convolution of each width but the first. It grows with depth, since deep
# layers memorise the few samples of a class.
# Source: Graham 2013, "Sparse arrays of signatures for online character recognition".
DROPOUTS = (0.05, 0.1, 0.15)
POOLED = 4
STRENGTH = 0.5  # of the equalisation: 0 leaves rows and columns as they are, 1 gives them all the room of their strokes
LEAST_ROOM = 0.25  # of the mean room, where no stroke begins
THIN = 2.0  # pixels in a picture of 64: a mean line width below this is thickened
# How far a pixel goes towards the darkest of the 3 × 3 around it, for each pixel of width below THIN, and at most.
THICKENING, MOST_THICKENED = 1.5, 0.6
# Of test-time augmentation, two sheared views: how far x moves with y, and y with x. The first takes off a slant of the
# writing, the second a rise. Their errors differ, so that the mean reads better than either; but a network that learnt
# from such means reads nearly as well with one view. In training the views are not used: that was worth less.
TTA_VIEWS = ((-0.2, 0.0), (0.0, -0.15))


class _StrokeThickening(nn.Module):
    """Stroke thickening: ink float[B, 1, S, S] in, the same with thin lines made bolder.

    Few drawn pens are as thin as hairlines become in a scan. The mean line width is twice the ink over the sum of the
    differences between neighbouring pixels, which count both edges of each line.
    """

    def forward(self, ink: Tensor) -> Tensor:
        across = (ink[..., 1:] - ink[..., :-1]).abs().sum((1, 2, 3))
        down = (ink[..., 1:, :] - ink[..., :-1, :]).abs().sum((1, 2, 3))
        width = 2 * ink.sum((1, 2, 3)) / (across + down).clamp(min=1) * (64 / ink.shape[-1])
        share = (THICKENING * (THIN - width)).clamp(0, MOST_THICKENED)[:, None, None, None]
        return ink + (F.max_pool2d(ink, 3, 1, 1) - ink) * share


class _TestTimeViews(nn.Module):
    """Test-time augmentation: ink float[B, 1, S, S] in, its V views float[V * B, 1, S, S], view after view."""

    matrices: Tensor

    def __init__(self) -> None:
        super().__init__()
        matrices = torch.tensor([[[1.0, slant, 0.0], [rise, 1.0, 0.0]] for slant, rise in TTA_VIEWS])
        self.register_buffer("matrices", matrices, persistent=False)

    def forward(self, ink: Tensor) -> Tensor:
        size = ink.shape[-1]
        with torch.autocast(ink.device.type, enabled=False):
            ink = ink.to(self.matrices.dtype)
            grids = F.affine_grid(self.matrices, [len(TTA_VIEWS), 1, size, size], align_corners=False)
            views = [F.grid_sample(ink, grid.expand(len(ink), -1, -1, -1), align_corners=False) for grid in grids]
            return torch.cat(views)


class _LineDensityEqualisation(nn.Module):
    """Line-density equalisation, a nonlinear normalisation: ink float[B, 1, S, S] with its strokes evenly spread.

    Rows become as high, and columns as wide, as the strokes in them need. A stroke counts where it begins, from the
    left and from above; the counts of neighbouring rows or columns are smoothed. The ink is laid out again by area,
    which is two matrix products and needs no look-up.
    Source: Yamada, Yamamoto, Saito 1990, "A nonlinear normalization method for handprinted Kanji character recognition:
    line density equalization".
    """

    strength: Tensor
    smoothing: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Saved with the weights, so that weights which learnt without it, or with more of it, are refused.
        self.register_buffer("strength", torch.tensor(STRENGTH))
        self.register_buffer("smoothing", torch.tensor([[[1.0, 4, 6, 4, 1]]]) / 16, persistent=False)

    def forward(self, ink: Tensor) -> Tensor:
        # Half precision would blur the rows' ends.
        with torch.autocast(ink.device.type, enabled=False):
            left = F.relu(ink - F.pad(ink[..., :-1], (1, 0)))
            top = F.relu(ink - F.pad(ink[..., :-1, :], (0, 0, 1, 0)))
            # Rows and columns at once: for a single picture the number of operations takes the time.
            down, across = self._layout(torch.cat([top.sum(3), left.sum(2)], 1)).split(1, 1)
            equalised: Tensor = down @ ink @ across.transpose(2, 3)
            return equalised

    def _layout(self, strokes: Tensor) -> Tensor:
        """Return the share of each new row that each old row fills, float[B, N, S, S], from strokes float[B, N, S]."""
        count, size = strokes.shape[1:]
        smoothing = self.smoothing.to(strokes.dtype).expand(count, -1, -1)
        for _ in range(max(1, round(size / 24))):
            strokes = F.conv1d(F.pad(strokes, (2, 2), mode="replicate"), smoothing, groups=count)
        room = strokes + LEAST_ROOM * strokes.mean(2, keepdim=True) + 1e-4
        heights = self.strength * size * room / room.sum(2, keepdim=True) + (1 - self.strength)
        end = heights.cumsum(2)[:, :, None]
        row = torch.arange(size, dtype=end.dtype, device=end.device)[:, None]
        return (torch.minimum(end, row + 1) - torch.maximum(end - heights[:, :, None], row)).clamp(min=0)


class _Directions(nn.Module):
    """Ink float[B, 1, S, S] as 4 + 8 maps of half the side (rounded up): 2 × 2 pixels as channels, edges by direction.

    Source: Zhong, Jin, Xie 2015, "High performance offline handwritten Chinese character recognition using GoogLeNet
    and directional feature maps".
    """

    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
        angles = [2 * math.pi * direction / DIRECTIONS for direction in range(DIRECTIONS)]
        kernels = torch.stack([math.cos(angle) * across + math.sin(angle) * across.T for angle in angles])
        self.register_buffer("kernels", kernels[:, None], persistent=False)

    def forward(self, ink: Tensor) -> Tensor:
        ink = F.pad(ink, (0, ink.shape[-1] % 2, 0, ink.shape[-2] % 2))
        edges = F.relu(F.conv2d(ink, self.kernels, padding=1))
        maps = torch.cat([F.pixel_unshuffle(ink, 2), F.avg_pool2d(edges, 2).to(ink.dtype)], 1)
        return maps.contiguous(memory_format=torch.channels_last)


class _WeightedPool(nn.Module):
    """Weighted pooling: float[B, C, H, W] brought to 4×4, a weight for each place and channel; float[B, C] comes out.

    A plain mean would forget where a stroke was, and 土/士 differ in little else.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, POOLED, POOLED) / POOLED)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, features: Tensor) -> Tensor:
        # A product and a sum: as a depthwise convolution it took as long as a layer.
        pooled: Tensor = self.norm((F.adaptive_avg_pool2d(features, POOLED) * self.weight).sum((2, 3)))
        return pooled


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Compact(nn.Module):
    """Eight convolutions down to a 4×4 map at 64 px, weighted pooling and a linear layer.

    widths: channels of the four sizes of maps. tta: answer by the mean over TTA_VIEWS (test-time augmentation), at more
    than twice the time for each of many pictures.
    """

    def __init__(self, classes: int, widths: Sequence[int] = WIDTHS, *, tta: bool = False) -> None:
        super().__init__()
        first, *wider = widths
        layers: list[nn.Module] = [_Directions(), _convolution(4 + DIRECTIONS, first), _convolution(first, first)]
        for inputs, outputs, dropout in zip(widths[:-1], wider, DROPOUTS, strict=True):
            layers += [nn.MaxPool2d(2), _convolution(inputs, outputs), nn.Dropout2d(dropout)]
            layers += [_convolution(outputs, outputs)]
        self.thickening = _StrokeThickening()
        self.evened = _LineDensityEqualisation()  # its buffer has this name in files of weights
        self.views = _TestTimeViews() if tta else None
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(_WeightedPool(widths[-1]), nn.Dropout(0.5), nn.Linear(widths[-1], classes))

    def forward(self, ink: Tensor) -> Tensor:
        """Return logits float[B, C] for ink float[B, 1, S, S] in 0..1, S from 32."""
        views = None if self.training else self.views
        seen = ink if self.training else self.thickening(ink)
        if views is not None:
            seen = views(seen)
        pooled: Tensor = self.head[0](self.features(self.evened(seen)))
        if views is not None:
            # The rest is linear, so this gives the mean of the views' logits, at half the price.
            pooled = pooled.unflatten(0, (len(TTA_VIEWS), -1)).mean(0)
        logits: Tensor = self.head[1:](pooled)
        return logits
