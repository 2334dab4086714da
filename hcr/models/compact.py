"""The small network, for machines without a GPU.

Plain 3×3 convolutions with batch norm: on a CPU they keep the arithmetic units busy, where depthwise ones wait for
memory. Few channels while the map is large and many once it is small: a width that costs little there was worth more
than anything else that was tried (docs/benchmarks.md).
"""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (16, 32, 64, 160, 384)  # of the maps of 64, 32, 16, 8 and 4 pixels a side, for pictures of 64
# Before the second convolution of each width but the first. Growing with depth, as in Graham 2013, "Sparse arrays of
# signatures for online character recognition": a class has few samples, and the deep layers learn them by heart.
DROPOUTS = (0.0, 0.1, 0.2, 0.3)


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Compact(nn.Module):
    """Nine convolutions down to a 4×4 map at 64 px, then one weight for each place and channel, and a linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        first, *wider = WIDTHS
        layers: list[nn.Module] = [_convolution(1, first)]
        for inputs, outputs, dropout in zip(WIDTHS[:-1], wider, DROPOUTS, strict=True):
            layers += [nn.MaxPool2d(2), _convolution(inputs, outputs), nn.Dropout(dropout)]
            layers += [_convolution(outputs, outputs)]
        self.features = nn.Sequential(*layers)
        width = WIDTHS[-1]
        # Weighted pooling: a plain mean would forget where a stroke was, and 土/士 differ in little else.
        self.pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Conv2d(width, width, 4, groups=width, bias=False), nn.BatchNorm2d(width)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(width, classes))

    def forward(self, ink: Tensor) -> Tensor:
        """Give logits float[B, C] for ink float[B, 1, S, S] in 0..1, S from 32."""
        logits: Tensor = self.head(self.pool(self.features(ink)))
        return logits
