"""Random numbers by place, not by turn: each is a hash of what it is for.

No generator has a state, so a picture depends on nothing that is drawn beside it, and a CPU and a GPU draw the same
numbers to the bit: all is integer arithmetic, and a normal number is a sum of four bytes (Irwin-Hall), never a
logarithm. The price of that is a bell that ends at 3.4 standard deviations.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_STEP = 0x9E3779B1
_BELL_MEAN = 510.0
_BELL_SD = (4 * (256**2 - 1) / 12) ** 0.5


def _mix(bits: Tensor) -> Tensor:
    """Scramble 32 bits held in int64.

    Source: the constants are those of "lowbias32", found by Wellons' search for integer hashes of low bias, 2018.
    """
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D & _MASK
    bits = (bits ^ (bits >> 15)) * 0x846CA68B & _MASK
    return bits ^ (bits >> 16)


def keyed(key: Tensor | int, *parts: Tensor | int) -> Tensor:
    """Give a key of 32 bits, int64, for each combination; tensors broadcast, and one of the arguments is a tensor."""
    mixed = key
    for part in parts:
        mixed = _mix(((mixed * _STEP & _MASK) + part + 1) & _MASK)  # type: ignore[arg-type]
    assert isinstance(mixed, Tensor)
    return mixed


def _bits(key: Tensor, count: int) -> Tensor:
    """Give int64[..., count], 32 random bits each."""
    return _mix(key[..., None] ^ (torch.arange(1, count + 1, device=key.device) * _STEP & _MASK))


def uniform(key: Tensor, count: int) -> Tensor:
    """Give float32[..., count] in [0, 1) for each key."""
    return (_bits(key, count) >> 8).float() * 2.0**-24


def normal(key: Tensor, count: int) -> Tensor:
    """Give float32[..., count], mean 0, standard deviation 1, within 3.45, for each key."""
    bits = _bits(key, count)
    total = (bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24)
    return (total.float() - _BELL_MEAN) * (1 / _BELL_SD)
