"""From a character to its drawn picture: the hand writes, the result is put on a square sheet, the renderer inks it.

Batches are cut into runs whose arrays stay in a core's cache, 128 pictures of 64 pixels or 34 of 124: on a CPU twice as
fast as four times as many at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hcr.pen.hand import Path, write
from hcr.pen.render import render

BOX = 0.8
"""Side of the character's box in sides of the picture; only what would stick out is drawn smaller."""

_RUN_PIXELS = 1 << 19
_MARGIN = 1.5  # pixels of paper around the ink


def draw(
    characters: Sequence[str],
    *,
    seed: int,
    writer: int | Sequence[int],
    n: int | Sequence[int] = 0,
    size: int,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Draw each character in the hand of a writer: uint8[B, size, size] on `device`, 255 = paper, ink centred.

    The picture of a character depends on (seed, writer, character, n, size) alone; a sequence for `writer` or `n` gives
    one number a character. n tells the samples of one writer apart.
    Raises: DataError for a character without strokes.
    """
    count = len(characters)
    writers = [writer] * count if isinstance(writer, int) else writer
    numbers = [n] * count if isinstance(n, int) else n
    out = torch.empty(count, size, size, dtype=torch.uint8, device=device)
    length = max(1, _RUN_PIXELS // size**2)
    for start in range(0, count, length):
        run = slice(start, start + length)
        path = write(characters[run], seed=seed, writers=writers[run], numbers=numbers[run])
        out[run] = render(*(torch.from_numpy(field).to(device) for field in _place(path, size)), size=size)
    return out


def _place(path: Path, size: int) -> Path:
    """Put each character's ink into the middle of its picture: points and widths in pixels."""
    starts = np.flatnonzero(np.diff(path.picture, prepend=-1))
    reach = path.width[:, None] / 2
    low = np.minimum.reduceat(path.points - reach, starts)
    high = np.maximum.reduceat(path.points + reach, starts)
    scale = np.minimum(BOX * size, (size - 2 * _MARGIN) / (high - low).max(axis=1)).astype(np.float32)
    points = (path.points - (0.5 * (low + high))[path.picture]) * scale[path.picture, None] + np.float32(size / 2)
    return path._replace(points=points, width=path.width * scale[path.picture])


def use_one_core() -> None:
    """Draw with one thread in this process: for callers that run a process a core."""
    torch.set_num_threads(1)
