"""The small network, for machines without a GPU.

Plain 3×3 convolutions with batch norm: on a CPU they keep the arithmetic units busy, where depthwise ones wait for
memory. Two strides bring the picture to a quarter of its side before anything is wide: that is where time would go.
"""

from __future__ import annotations

from torch import Tensor, nn

WIDTH = 384


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Compact(nn.Module):
    """Seven convolutions down to a 4×4 map at 64 px, then one weight for each place and channel, and a linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _convolution(1, 32, 2),
            _convolution(32, 64, 2),
            _convolution(64, 96),
            nn.MaxPool2d(2),
            _convolution(96, 160),
            nn.MaxPool2d(2),
            _convolution(160, 256),
            _convolution(256, WIDTH),
        )
        # Weighted pooling: a plain mean would forget where a stroke was, and 土/士 differ in little else.
        self.pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Conv2d(WIDTH, WIDTH, 4, groups=WIDTH, bias=False), nn.BatchNorm2d(WIDTH)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(WIDTH, classes))

    def forward(self, ink: Tensor) -> Tensor:
        """Give logits float[B, C] for ink float[B, 1, S, S] in 0..1, S from 32."""
        logits: Tensor = self.head(self.pool(self.features(ink)))
        return logits
