"""The sample: one handwritten character as every source yields it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Sample(NamedTuple):
    """One character as it lies in its file.

    picture: uint8[H, W], 255 = paper, ink 0-254, at its native size; it may be a read-only view.
    char: the character, one code point.
    writer: who wrote it, as the corpus names him; "" where it does not say.
    origin: "file:offset", the file relative to the corpus folder and the byte at which the record starts.
    """

    picture: np.ndarray
    char: str
    writer: str
    origin: str
