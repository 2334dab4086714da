"""Growth, decay and turning by sums, products, quotients and roots alone.

IEEE 754 fixes these to the bit, on every processor and for every place in a tensor; of exponentials and sines each
library and each vector unit has its own. So a picture is the same whatever it is drawn beside, and on whichever device.
The price is that they only nearly are what they are named after.
"""

from __future__ import annotations

import torch
from torch import Tensor


def growth(x: Tensor) -> Tensor:
    """Give nearly exp(x): within 1 % for |x| up to 1.4."""
    even, odd = 1 + x * x * (1 / 12), 0.5 * x
    return (even + odd) / (even - odd)


def decay(x: Tensor) -> Tensor:
    """Give nearly exp(-x) for x from 0 on, falling for ever."""
    return 1 / (1 + x * (1 + x * (0.5 + x * (1 / 6))))


def turning(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Give cosine and sine of nearly `angle`, in radians: within 3 % up to 0.6."""
    half = 0.5 * angle
    square = half * half
    below = 1 / (1 + square)
    return (1 - square) * below, 2 * half * below


def length(x: Tensor, y: Tensor) -> Tensor:
    """Give the length of each vector."""
    return torch.sqrt(x * x + y * y)
