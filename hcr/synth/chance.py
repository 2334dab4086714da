"""The random numbers of samples, drawn one after the other by what they are for."""

from __future__ import annotations

from torch import Tensor

from hcr.synth.rng import keyed, normal, uniform

_UNIFORMS, _NORMALS = 96, 24


class Chance:
    """Random numbers of B samples, one after the other: float32[B] each."""

    def __init__(self, key: Tensor) -> None:
        self._uniform = iter(uniform(key, _UNIFORMS).unbind(1))
        self._normal = iter(normal(keyed(key, 1), _NORMALS).unbind(1))

    def between(self, low: float | Tensor, high: float | Tensor) -> Tensor:
        return low + (high - low) * next(self._uniform)

    def happens(self, share: float) -> Tensor:
        return next(self._uniform) < share

    def bell(self, mean: float, spread: float) -> Tensor:
        return mean + spread * next(self._normal)
