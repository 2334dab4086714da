"""The proportions of other hands: by how much the lines of the copybook move to stand as in a font's glyphs.

Between the fonts and the copybook. The strokes of the printed hand are laid onto each glyph (`fitting.py`), and the
lines of running forms go with the strokes around them. So a drawn hand can take its proportions from fonts, and from
between two of them, and still write every form that the rules know. Nothing finer than 1/1024 of the box is kept:
what other processors round otherwise does not show.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from hcr.pen.fonts.fitting import POINTS, fit
from hcr.pen.fonts.glyphs import Forms
from hcr.pen.skeleton import CUTS, Stroke, interpolate

_REACH = 0.05  # sides of the box within which a line of a running form goes with a stroke
_FINE = 1024
_BACK = np.linspace(0, POINTS - 1, CUTS)


def proportions(
    own: Sequence[Sequence[Stroke]], written: Sequence[Sequence[Stroke]], forms: Forms
) -> Iterator[np.ndarray]:
    """Give font by font how far the points of lines move: float32[Q, CUTS, 2].

    own: the strokes of each character. written: these and the lines of their running forms, Q in all.
    forms: the fonts' glyphs of the same characters. Zeros where the font lacks a character, or has another.
    """
    at = np.linspace(0, CUTS - 1, POINTS)

    def sampled(strokes: Sequence[Stroke]) -> np.ndarray:
        lines = np.stack([stroke.line for stroke in strokes])
        return interpolate(lines, np.arange(len(lines))[:, None], at[None])

    strokes = [sampled(each) for each in own]
    points, line, rows = forms.points.cpu().double().numpy(), forms.line.cpu().numpy(), forms.host_rows.numpy()
    bounds = np.append(0, np.cumsum(rows)).tolist()
    glyphs = [(points[begin:end], line[begin:end]) for begin, end in itertools.pairwise(bounds)]
    fonts = [fit(strokes, glyphs[first : first + len(own)]) for first in range(0, len(glyphs), len(own))]

    coarse = []
    for each, lines, *moves in zip(strokes, written, *fonts, strict=True):
        moved = _followed(each, sampled(lines), lines) @ np.stack(moves).reshape(len(fonts), -1, 2)
        coarse.append((moved * _FINE).round().astype(np.float32) / _FINE)
    below = np.minimum(_BACK.astype(int), POINTS - 2)
    share = (_BACK - below).astype(np.float32)[:, None]
    for font in range(len(fonts)):
        at_points = np.concatenate([moved[font] for moved in coarse]).reshape(-1, POINTS, 2)
        yield at_points[:, below] * (1 - share) + at_points[:, below + 1] * share


def _followed(strokes: np.ndarray, lines: np.ndarray, written: Sequence[Stroke]) -> np.ndarray:
    """Give by which shares the points of lines go with those of strokes: float64[Q * POINTS, S * POINTS]."""
    apart = np.square(lines.reshape(-1, 1, 2) - strokes.reshape(-1, 2)).sum(-1)
    share = 1 / (1 + apart / _REACH**2) ** 2
    for number, stroke in enumerate(written):
        # A stroke of the character itself goes its own way, else what crosses it would bend it.
        if stroke.high == np.inf:
            rows = slice(number * POINTS, (number + 1) * POINTS)
            share[rows] = 0
            share[rows, stroke.place * POINTS : (stroke.place + 1) * POINTS] = np.eye(POINTS)
    return share / share.sum(1, keepdims=True)
