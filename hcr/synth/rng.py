"""Random numbers by place instead of by turn, and arithmetic that is exact in the same way.

No generator has a state. Each number is a hash of what it is for, so a picture depends on nothing that is drawn beside
it. Hashes are integer arithmetic, which is the same to the bit on a CPU and on a GPU, and a normal number is a sum of
four bytes (Irwin-Hall), never a logarithm. The price is a bell that ends at 3.4 standard deviations.

Growth, decay and turning are made of sums, products, quotients and roots. IEEE 754 fixes each of these to the bit;
exponentials and sines differ from library to library and from one vector unit to the next. So on a CPU a picture is the
same to the bit whatever its batch and threads. On a GPU pictures were measured to differ by up to 2 of 255. The price
is functions that are only nearly what they are named after.
"""

from __future__ import annotations

from functools import cache

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
    """Return a key of 32 bits, int64, for each combination; tensors broadcast, and one of the arguments is a tensor."""
    mixed = key
    for part in parts:
        # What flows over a tensor's 64 bits is masked with the rest.
        stepped = mixed * _STEP if isinstance(mixed, Tensor) else mixed * _STEP & _MASK
        mixed = _mix(stepped + (part + 1) & _MASK)  # type: ignore[arg-type]
    assert isinstance(mixed, Tensor)
    return mixed


def _bits(key: Tensor, count: int) -> Tensor:
    """Return int64[..., count], 32 random bits each."""
    return _mix(key[..., None] ^ (torch.arange(1, count + 1, device=key.device) * _STEP & _MASK))


def uniform(key: Tensor, count: int) -> Tensor:
    """Return float32[..., count] in [0, 1) for each key."""
    return (_bits(key, count) >> 8).float() * 2.0**-24


def normal(key: Tensor, count: int) -> Tensor:
    """Return float32[..., count], mean 0, standard deviation 1, within 3.45, for each key."""
    return _bell(_bits(key, count))


def uniforms(keys: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return what `uniform` gives for each column of int64[N, K] and its count, K of float32[N, count].

    At once: on a GPU, where a few thousand numbers take no longer than one, the calls are what takes the time.
    """
    return torch.split((_bits_of(keys, counts) >> 8).float() * 2.0**-24, list(counts), 1)


def normals(keys: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return what `normal` gives for each column of int64[N, K] and its count, K of float32[N, count]."""
    return torch.split(_bell(_bits_of(keys, counts)), list(counts), 1)


def _bell(bits: Tensor) -> Tensor:
    total = (bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24)
    return (total.float() - _BELL_MEAN) * (1 / _BELL_SD)


def _bits_of(keys: Tensor, counts: tuple[int, ...]) -> Tensor:
    column, step = _columns(counts, keys.device)
    return _mix(keys.index_select(1, column) ^ step)


@cache
def _columns(counts: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return of each number which key it comes from, and what it is mixed with; made once, as copies stop the host."""
    column = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    place = torch.cat([torch.arange(1, count + 1) for count in counts])
    return column.to(device), (place * _STEP & _MASK).to(device)


def growth(x: Tensor) -> Tensor:
    """Return nearly exp(x): within 1 % for |x| up to 1.4."""
    even, odd = 1 + x * x * (1 / 12), 0.5 * x
    return (even + odd) / (even - odd)


def decay(x: Tensor) -> Tensor:
    """Return nearly exp(-x) for x from 0 on, falling for ever."""
    return 1 / (1 + x * (1 + x * (0.5 + x * (1 / 6))))


def turning(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of nearly `angle`, in radians: within 3 % up to 0.6."""
    half = 0.5 * angle
    square = half * half
    below = 1 / (1 + square)
    return (1 - square) * below, 2 * half * below


def length(x: Tensor, y: Tensor) -> Tensor:
    """Return the length of each vector."""
    return torch.sqrt(x * x + y * y)
