"""The small network, for machines without a GPU.

It makes thin lines bolder, and first gives each part of a character the room that its strokes need, so that hands of
other proportions look alike: to one that learns from drawn hands alone, real ones are just that. A wide one, which
also looks at a picture tta, is for who has a GPU, and to teach the small one.
Plain 3×3 convolutions with batch norm: on a CPU they keep the arithmetic units busy, where depthwise ones wait for
memory. It works at half the picture's resolution, on fixed maps of stroke directions, which a network with few samples
a class then need not learn, and is wide only where the map is small (docs/benchmarks.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIRECTIONS = 8
WIDTHS = (48, 96, 160, 368)  # of the maps of 32, 16, 8 and 4 pixels a side, for pictures of 64
WIDE = (96, 192, 384, 768)  # of the wide one
# Of whole channels, before the second convolution of each width but the first. Growing with depth, as in Graham 2013,
# "Sparse arrays of signatures for online character recognition": deep layers learn the few samples of a class by heart.
DROPOUTS = (0.05, 0.1, 0.15)
POOLED = 4
STRENGTH = 0.5  # how far rows and columns go from being all alike to the room that their strokes need
LEAST_ROOM = 0.25  # of the mean, where no stroke begins


THIN = 2.0  # pixels, of pictures of 64: what is written with thinner lines on the mean is made bolder
THICKENING, MOST_THICKENED = (
    1.5,
    0.6,
)  # how far towards the darkest of the 3 × 3 pixels around, a pixel below THIN, and at most

TTA_VIEWS = ((-0.2, 0.0), (0.0, -0.15))
"""Of each look, how far x and y of what it sees move with y and x: one takes off that writing leans, one that it rises.

Two looks err apart, so that their mean reads better than either; but a network that learnt from such means reads nearly
as well with one. Learning sees the pictures as they are: it was worth less where it took the looks by turns.
"""


class _StrokeThickening(nn.Module):
    """Ink float[B, 1, S, S] with thin lines made bolder, since few drawn pens are as thin as hairlines get in a scan.

    The width of lines is tta their ink over what the ink differs from pixel to pixel: both sides of each line.
    """

    def forward(self, ink: Tensor) -> Tensor:
        across = (ink[..., 1:] - ink[..., :-1]).abs().sum((1, 2, 3))
        down = (ink[..., 1:, :] - ink[..., :-1, :]).abs().sum((1, 2, 3))
        width = 2 * ink.sum((1, 2, 3)) / (across + down).clamp(min=1) * (64 / ink.shape[-1])
        share = (THICKENING * (THIN - width)).clamp(0, MOST_THICKENED)[:, None, None, None]
        return ink + (F.max_pool2d(ink, 3, 1, 1) - ink) * share


class _TestTimeViews(nn.Module):
    """Ink float[B, 1, S, S] from each of TTA_VIEWS: float[L * B, 1, S, S], the first look at all pictures first."""

    matrices: Tensor

    def __init__(self) -> None:
        super().__init__()
        matrices = torch.tensor([[[1.0, lean, 0.0], [rise, 1.0, 0.0]] for lean, rise in TTA_VIEWS])
        self.register_buffer("matrices", matrices, persistent=False)

    def forward(self, ink: Tensor) -> Tensor:
        size = ink.shape[-1]
        with torch.autocast(ink.device.type, enabled=False):
            ink = ink.to(self.matrices.dtype)
            places = F.affine_grid(self.matrices, [len(TTA_VIEWS), 1, size, size], align_corners=False)
            seen = [F.grid_sample(ink, of.expand(ink.shape[0], -1, -1, -1), align_corners=False) for of in places]
            return torch.cat(seen)


class _LineDensityEqualisation(nn.Module):
    """Ink float[B, 1, S, S] with its strokes evenly spread: rows and columns are as high and wide as they hold strokes.

    A stroke is counted where it begins, from the left and from above; the counts of neighbours are mixed. Each row's
    and column's ink is laid out anew by area, which is two products of matrices and needs no look-up.
    Source: Yamada, Yamamoto, Saito 1990, "A nonlinear normalization method for handprinted Kanji character recognition:
    line density equalization".
    """

    strength: Tensor
    mixing: Tensor

    def __init__(self) -> None:
        super().__init__()
        # With the weights, so that those which learnt without it, or with more of it, are refused.
        self.register_buffer("strength", torch.tensor(STRENGTH))
        self.register_buffer("mixing", torch.tensor([[[1.0, 4, 6, 4, 1]]]) / 16, persistent=False)

    def forward(self, ink: Tensor) -> Tensor:
        # Half precision would blur where a row ends.
        with torch.autocast(ink.device.type, enabled=False):
            left = F.relu(ink - F.pad(ink[..., :-1], (1, 0)))
            top = F.relu(ink - F.pad(ink[..., :-1, :], (0, 0, 1, 0)))
            # Rows and columns at once: of a single picture, the number of operations is what takes the time.
            down, across = self._layout(torch.cat([top.sum(3), left.sum(2)], 1)).split(1, 1)
            evened: Tensor = down @ ink @ across.transpose(2, 3)
            return evened

    def _layout(self, strokes: Tensor) -> Tensor:
        """Return which share of each new row an old one fills, float[B, N, S, S], by their strokes float[B, N, S]."""
        count, size = strokes.shape[1:]
        mixing = self.mixing.to(strokes.dtype).expand(count, -1, -1)
        for _ in range(max(1, round(size / 24))):
            strokes = F.conv1d(F.pad(strokes, (2, 2), mode="replicate"), mixing, groups=count)
        room = strokes + LEAST_ROOM * strokes.mean(2, keepdim=True) + 1e-4
        high = self.strength * size * room / room.sum(2, keepdim=True) + (1 - self.strength)
        end = high.cumsum(2)[:, :, None]
        row = torch.arange(size, dtype=end.dtype, device=end.device)[:, None]
        return (torch.minimum(end, row + 1) - torch.maximum(end - high[:, :, None], row)).clamp(min=0)


class _Directions(nn.Module):
    """Ink float[B, 1, S, S] as 4 + 8 maps of half the side (rounded up): pixels by fours, and edges by direction.

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
    """A weight for each place and channel of float[B, C, H, W], brought to 4×4; gives [B, C].

    A plain mean would forget where a stroke was, and 土/士 differ in little else.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, POOLED, POOLED) / POOLED)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, features: Tensor) -> Tensor:
        # A product and a sum: the same as a depthwise convolution took as long as a layer.
        pooled: Tensor = self.norm((F.adaptive_avg_pool2d(features, POOLED) * self.weight).sum((2, 3)))
        return pooled


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Compact(nn.Module):
    """Eight convolutions down to a 4×4 map at 64 px, weighted pooling and a linear layer.

    widths: channels of the four sizes of maps. tta: whether it answers by the mean of TTA_VIEWS, at more than tta the
    time for each of many pictures.
    """

    def __init__(self, classes: int, widths: Sequence[int] = WIDTHS, *, tta: bool = False) -> None:
        super().__init__()
        first, *wider = widths
        layers: list[nn.Module] = [_Directions(), _convolution(4 + DIRECTIONS, first), _convolution(first, first)]
        for inputs, outputs, dropout in zip(widths[:-1], wider, DROPOUTS, strict=True):
            layers += [nn.MaxPool2d(2), _convolution(inputs, outputs), nn.Dropout2d(dropout)]
            layers += [_convolution(outputs, outputs)]
        self.thickening = _StrokeThickening()
        self.evened = _LineDensityEqualisation()  # the name of its buffer in files of weights
        self.looks = _TestTimeViews() if tta else None
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(_WeightedPool(widths[-1]), nn.Dropout(0.5), nn.Linear(widths[-1], classes))

    def forward(self, ink: Tensor) -> Tensor:
        """Return logits float[B, C] for ink float[B, 1, S, S] in 0..1, S from 32."""
        looks = None if self.training else self.looks
        seen = ink if self.training else self.thickening(ink)
        if looks is not None:
            seen = looks(seen)
        pooled: Tensor = self.head[0](self.features(self.evened(seen)))
        if looks is not None:
            # The rest is linear, so that this is the mean of the looks' logits, at half the price.
            pooled = pooled.unflatten(0, (len(TTA_VIEWS), -1)).mean(0)
        logits: Tensor = self.head[1:](pooled)
        return logits
