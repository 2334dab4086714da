"""How drawn handwriting compares with real handwriting, in what can be counted.

    python benchmarks/lab/shapes.py FOLDER … [--font FILE] [--pictures 2448]

Each FOLDER holds real handwriting as .gnt files. Drawn are the same characters, each picture by another writer, and
told apart by how fast their hands are. Of each group the mean and the standard deviation over pictures of 64 px: by how
many degrees uprights lean to the right and levels rise, in how many pieces the ink falls, how many patches of paper it
encloses, how wide a character is for its height, and how much of the square is ink. Needs
scipy, which the dev extra brings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import table
from handwriting import fitted, read_samples, some

from hcr.synth import Generator
from hcr.synth.style import WriterStyles

SIZE, SEED = 64, 1
HANDS = {"slow": (0.0, 0.3), "middling": (0.3, 0.6), "fast": (0.6, 1.01)}
"""Groups of drawn writers by `WriterStyles.speed`."""
INK = 0.4  # of the darkest pixel
NEAR = 40  # degrees from upright or level
SPECK = 6  # pixels; smaller pieces, and half as large holes, do not count
COLUMNS = ("upright lean °", "levels rise °", "pieces", "holes", "log width / height", "ink %")


def tilts(squares: np.ndarray) -> np.ndarray:
    """Return how far uprights lean and levels rise in each of uint8[N, S, S], in degrees: float[N, 2].

    The mean direction of edges near upright, and near level, weighted by how sharp they are.
    """
    ink = F.avg_pool2d((255 - torch.from_numpy(squares).float())[:, None], 3, 1, 1)
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    x, y = F.conv2d(ink, torch.stack([across, across.T])[:, None]).unbind(1)
    angle, sharp = torch.rad2deg(torch.atan2(y, x)), torch.hypot(x, y)
    found = []
    for upright, sign in ((0.0, 1.0), (90.0, -1.0)):
        aside = (angle - upright + 90) % 180 - 90
        weight = sharp * (aside.abs() < NEAR)
        found.append(sign * (weight * aside).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6))
    return torch.stack(found, 1).numpy()


def counts(square: np.ndarray) -> tuple[float, float, float, float]:
    """Return pieces, holes, the logarithm of width over height and ink in percent of a picture uint8[S, S] with ink."""
    ink = 255.0 - square
    dark = ink >= INK * ink.max()
    pieces = np.bincount(ndimage.label(dark, np.ones((3, 3)))[0].ravel())[1:]
    papers = np.bincount(ndimage.label(~np.pad(dark, 1))[0].ravel())[1:]
    high, wide = (np.ptp(places) + 1 for places in np.nonzero(dark))
    holes = (papers > SPECK / 2).sum() - 1  # the paper around is none
    return (pieces > SPECK).sum(), holes, float(np.log(wide / high)), 100 * float(dark.mean())


def row(name: str, squares: np.ndarray) -> list[str]:
    """Return a row of the table."""
    inked = squares[squares.min((1, 2)) < 255]
    values = np.concatenate([tilts(inked), [counts(square) for square in inked]], 1)
    means = zip(values.mean(0), values.std(0), strict=True)
    return [name, f"{len(inked):,}", *(f"{mean:.2f} ({spread:.2f})" for mean, spread in means)]


def draw(characters: str, count: int, fonts: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Draw characters in turn, each by another writer: uint8[count, SIZE, SIZE], and how fast each is, float[count]."""
    pen, writers = Generator(characters, fonts=fonts), torch.arange(count)
    zero = torch.zeros_like(writers)
    labels = writers % len(characters)
    pictures = pen.draw(labels, writers, zero, seed=SEED, size=SIZE)[:, 0].numpy()
    codes = torch.tensor([ord(char) for char in characters])[labels]
    return pictures, WriterStyles(SEED, writers, codes, zero).speed.numpy()


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+")
    parser.add_argument("--pictures", type=int, default=2448, help="of each folder, and drawn")
    parser.add_argument("--font", type=Path, action="append", default=[], help="as hcr-train takes it; may be repeated")
    given = parser.parse_args()
    rows, found = [], set()
    for folder in given.folders:
        samples = some(read_samples(folder), given.pictures)
        found |= {sample.char for sample in samples}
        rows.append(row(str(folder), fitted(samples, SIZE)))
    pictures, speed = draw("".join(sorted(found)), given.pictures, given.font)
    rows.append(row("drawn", pictures))
    for name, (low, high) in HANDS.items():
        mine = pictures[(low <= speed) & (speed < high)]
        if len(mine):
            rows.append(row(f"drawn by {name} hands", mine))
    print(table([f"{SIZE} px", "n", *COLUMNS], rows))


if __name__ == "__main__":
    main()
