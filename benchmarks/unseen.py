"""How well a model reads handwriting fonts that nobody learnt from: every character that both have.

    python pipelines/fetch_fonts.py --unseen
    python benchmarks/unseen.py data/fonts/unseen/*.ttf [--weights FILE]

A font is one careful hand, so its figures say little of people. But it has thousands of characters, where the real
samples at hand have some dozens: what a model gets wrong in most fonts, it has not learnt. Glyphs are read as they are
printed, scaled down to 24 pixels, and as poor pens and scanners would leave them (hcr/feed/degrade.py).
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from common import table
from sweep import rescale

from hcr.errors import DataError
from hcr.feed.degrade import degrade
from hcr.layout import RELEASED
from hcr.models import Recognizer, load_recognizer
from hcr.preprocess.fit import fit_square
from hcr.synth.fonts.glyphs import printed

BATCH = 256
SMALL = 24  # pixels on the longer side


def glyphs(font: Path, model: Recognizer) -> tuple[list[np.ndarray], Tensor]:
    """Return the glyphs of the model's characters, uint8[H, W], and their labels int64[N].

    Raises: DataError for what is no font of these.
    """
    shapes = printed(font, model.charset.characters)
    labels = shapes.any((1, 2)).nonzero()[0]
    if not len(labels):
        raise DataError(f"{font}: this font has none of the {len(shapes):,} characters; name one that has")
    return [np.where(shapes[label], 0, 255).astype(np.uint8) for label in labels], torch.from_numpy(labels)


def fitted(pictures: list[np.ndarray], size: int) -> Tensor:
    """Fit pictures into squares: uint8[N, 1, size, size]."""
    return torch.from_numpy(np.stack([fit_square(picture, size) for picture in pictures]))[:, None]


@torch.inference_mode()
def answers(model: Recognizer, images: Tensor) -> Tensor:
    """Return the five likeliest labels of each picture: int64[N, 5], or as many as there are."""
    most = min(5, len(model.charset))
    return torch.cat([model(batch).topk(most).indices for batch in images.split(BATCH)])


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fonts", type=Path, nargs="+", metavar="FONT", help="TTF, OTF or WOFF2")
    parser.add_argument("--weights", type=Path, default=RELEASED["level1"], help="a checkpoint or released file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, rows, shrink = load_recognizer(given.weights), [], rescale(SMALL)
    missed, seen = defaultdict[int, list[int]](list), defaultdict[int, int](int)
    for font in given.fonts:
        try:
            pictures, labels = glyphs(font, model)
        except DataError as error:
            sys.exit(f"error: {error}")
        row = [font.stem, f"{len(labels):,}"]
        whole = fitted(pictures, model.size)
        small = fitted([shrink(picture) for picture in pictures], model.size)
        found = [answers(model, images) for images in (whole, small, degrade(whole, seed=0, step=0))]
        for each in found:
            right = each == labels[:, None]
            row += [f"{right[:, 0].float().mean():.2%}", f"{right.any(1).float().mean():.2%}"]
        rows.append(row)
        for label, first in zip(labels.tolist(), found[0][:, 0].tolist(), strict=True):
            seen[label] += 1
            if first != label:
                missed[label].append(first)
    ways = ["top-1", "top-5", f"{SMALL} px, top-1", f"{SMALL} px, top-5", "degraded, top-1", "degraded, top-5"]
    print(table(["font", "characters", *ways], rows))
    print()
    often = sorted(
        (label for label in missed if 2 * len(missed[label]) > seen[label] > 1), key=lambda label: -seen[label]
    )
    taken = [
        [
            model.charset[label],
            f"{len(missed[label])} of {seen[label]}",
            "".join(model.charset[a] for a in missed[label]),
        ]
        for label in often
    ]
    print(table(["wrong in most fonts", "fonts", "taken for"], taken))


if __name__ == "__main__":
    main()
