"""What every way of loading gives, and every step and judgement takes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """images uint8[B, 1, S, S] (255 = paper), labels int64[B], index int64[B].

    index: positions in the pack, or the numbers of drawn samples.
    """

    images: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index; torch pins named tuples, but no dataclass
