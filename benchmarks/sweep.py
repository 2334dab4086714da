"""What pens, inks and sizes cost a model on real handwriting: by default the released one.

    python benchmarks/sweep.py FOLDER [--weights FILE] [--pictures 1000]

FOLDER holds real handwriting as .gnt files, of which N pictures are drawn with a fixed seed. Each is changed as it was
scanned, before it is fitted into the network's square, and then goes the way that hcr-predict takes, so that polarity
and faint ink are found, not known. (`hcr-eval --robustness` changes the squares instead: what the network alone makes
of them.) A scan's lines are 3 to 6 px wide: 1 and 2 px thinner or wider is read by a person without effort, 4 px is
where that ends.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from common import say, table
from real import evaluate_squares, read_real

from hcr.inference import Predictor
from hcr.layout import RELEASED
from hcr.models import load_recognizer
from hcr.preprocess.fit import fit_square, to_paper

# change(picture): uint8[H, W] in, 255 = paper; uint8[H', W'] out, of any polarity.
Change = Callable[[np.ndarray], np.ndarray]

PLAIN = "as it was scanned"
# Paper around what is changed, so that lines can grow.
MARGIN = 4
# Ink is what is at least this share as dark as the darkest pixel.
INK = 0.25


def _widen(pixels: int) -> Change:
    """Make every line wider by so many pixels of the scan (thinner, below 0), half of them on each side."""
    reach, extreme = abs(pixels), np.minimum if pixels > 0 else np.maximum

    def change(picture: np.ndarray) -> np.ndarray:
        found = np.pad(picture, MARGIN, constant_values=255)
        for axis in (0, 1):
            found = extreme.reduce(
                [np.roll(found, shift, axis) for shift in range(-(reach // 2), reach - reach // 2 + 1)]
            )
        return found

    return change


def _ink(darkest: float) -> Change:
    """Scale the ink so that its darkest pixel is this share of black."""

    def change(picture: np.ndarray) -> np.ndarray:
        ink = 255 - picture.astype(np.float32)
        return 255 - np.rint(ink * (255 * darkest / max(ink.max(), 1))).astype(np.uint8)

    return change


def _black(picture: np.ndarray) -> np.ndarray:
    """Make all ink black, as a felt pen's."""
    ink = 255 - picture.astype(np.int32)
    return np.where(ink >= max(1, INK * ink.max()), 0, 255).astype(np.uint8)


def _light(darkest: float) -> Change:
    """Return light ink on black paper, its lightest pixel this share of white."""
    return lambda picture: 255 - _ink(darkest)(picture)


def rescale(side: int) -> Change:
    """Crop to the ink, and scale so that the longer side has this many pixels.

    Some of the real pictures have wide margins, others none: it is the character that has a size.
    """

    def change(picture: np.ndarray) -> np.ndarray:
        image = Image.fromarray(picture).crop(Image.fromarray(255 - picture).getbbox())
        scale = side / max(image.size)
        wide, high = (max(1, round(length * scale)) for length in image.size)
        return np.asarray(image.resize((wide, high), Image.Resampling.BILINEAR))

    return change


CHANGES: dict[str, Change] = {
    **{f"lines {-pixels} px thinner": _widen(pixels) for pixels in (-4, -2, -1)},
    **{f"lines {pixels} px wider": _widen(pixels) for pixels in (1, 2, 4)},
    **{f"darkest ink {share:.0%}": _ink(share) for share in (0.15, 0.3, 0.5, 1.0)},
    "all ink black": _black,
    **{f"light on black, {share:.0%}": _light(share) for share in (0.15, 0.5, 1.0)},
    **{f"{side} px": rescale(side) for side in (16, 20, 24, 32, 48, 64, 128, 256, 512)},
}


def as_predicted(pictures: Sequence[np.ndarray], change: Change | None, size: int) -> list[np.ndarray]:
    """Change pictures and prepare them as hcr-predict does: uint8[size, size] each."""
    changed = map(change, pictures) if change else pictures
    return [fit_square(to_paper(Image.fromarray(picture)), size) for picture in changed]


def main() -> None:
    """Judge under every change, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, default=RELEASED["level1"], help="a checkpoint or released file")
    parser.add_argument("--pictures", type=int, help="so many, drawn with a fixed seed; default: all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load_recognizer(given.weights)
    predictor = Predictor(model)
    real = read_real(given.folder, model, given.pictures)
    rows: list[list[str]] = []
    plain_ink = plain_right = 0.0
    for name, change in {PLAIN: None, **CHANGES}.items():
        say(name)
        squares = as_predicted(real.pictures, change, model.size)
        right = 100 * evaluate_squares(predictor, squares, real.labels).hit.mean()
        ink = sum(int((255 - square.astype(np.int64)).sum()) for square in squares)
        blank = sum(square.min() == 255 for square in squares)
        if not change:
            plain_ink, plain_right = ink, right
        difference = f"{right - plain_right:+.2f}" if change else ""
        rows.append([name, f"{right:.2f} %", difference, f"{ink / plain_ink:.2f}", str(blank)])
    print(table([f"n = {len(real.labels):,}", "top-1", "points", "ink", "blank"], rows))


if __name__ == "__main__":
    main()
