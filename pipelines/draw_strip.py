"""Write docs/images/strip.svg: drawn hands beside what the released model read them as, for the README.

python pipelines/draw_strip.py

The text opens the Orchid Pavilion Preface (353). Each character is by another drawn writer that no training run has,
and comes from `hcr-data draw`'s generator as it would stand on paper.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

import hcr
from hcr.preprocess.fit import fit_square
from hcr.svg import drawing, text
from hcr.synth import draw_pages

TEXT = "永和九年岁在癸丑暮春之初会于山阴"
# Far beyond the numbers that the writers of drawn corpora and of endless training have.
FIRST_WRITER, SEED = 4_000_000_000, 353
SIDE, GAP, COLUMNS = 88, 10, 8
TARGET = Path(__file__).parents[1] / "docs/images/strip.svg"
# Beside the style of every drawing. A page's own ground shows through.
STYLE = """
svg { background: none; }
.paper { fill: #fffdf9; stroke: #ddd4c4; }
text { font-size: 20px; } text.soft { font-size: 12px; }
"""


def document() -> str:
    """Return the SVG: a square of ink a character, below it the model's first answer and its probability."""
    pages = [draw_pages(TEXT, [TEXT.index(char)], seed=SEED, writer=FIRST_WRITER + n)[0] for n, char in enumerate(TEXT)]
    answers = hcr.load().read_many(pages, top=1)
    parts = []
    for place, (char, page, answer) in enumerate(zip(TEXT, pages, answers, strict=True)):
        assert not isinstance(answer, hcr.DataError)
        ((read, probability),) = answer
        x = GAP + place % COLUMNS * (SIDE + GAP)
        y = GAP + place // COLUMNS * (SIDE + GAP + 48)
        middle = x + SIDE / 2
        parts += [
            f'<rect class="paper" x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" rx="4"/>',
            f'<image x="{x + 4}" y="{y + 4}" width="{SIDE - 8}" height="{SIDE - 8}" href="{_png(page)}"/>',
            text(middle, y + SIDE + 22, read, "" if read == char else "one", "middle"),
            text(middle, y + SIDE + 38, f"{probability:.0%}", "soft", "middle"),
        ]
    rows = -(-len(TEXT) // COLUMNS)
    width, height = GAP + COLUMNS * (SIDE + GAP), rows * (SIDE + GAP + 48)
    title = f"Handwriting drawn by {len(TEXT)} writers, and what the model read"
    return drawing(width, height, title, [f"<style>{STYLE}</style>", *parts])


def _png(page: np.ndarray) -> str:
    """Return ink uint8[H, W] on transparent paper as a data URI, twice as large as it is shown."""
    ink = 255 - fit_square(page, 2 * (SIDE - 8))
    picture = Image.merge("LA", (Image.new("L", ink.shape, 32), Image.fromarray(ink)))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


if __name__ == "__main__":
    TARGET.write_text(document(), "utf-8", newline="\n")
