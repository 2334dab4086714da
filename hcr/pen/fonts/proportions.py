"""The proportions of other hands: by how much the lines of the copybook move to stand as in a font's glyphs.

Between the fonts and the copybook. The strokes of the printed hand are laid onto each glyph (`fitting.py`), and the
lines of running forms go with the strokes around them. So a drawn hand can take its proportions from fonts, and from
between two of them, and still write every form that the rules know. Nothing finer than 1/1024 of the box is kept:
what other processors round otherwise does not show.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from hcr.pen.fonts.crew import Each
from hcr.pen.fonts.fitting import POINTS, fit
from hcr.pen.fonts.glyphs import Forms
from hcr.pen.skeleton import CUTS, Stroke, interpolate

_REACH = 0.05  # sides of the box within which a line of a running form goes with a stroke
_FINE = 1024
_TASK = 128  # characters
_AT = np.linspace(0, CUTS - 1, POINTS)
_BACK = np.linspace(0, POINTS - 1, CUTS)


def fits(own: Sequence[Sequence[Stroke]], forms: Forms, each: Each) -> list[Iterator[np.ndarray]]:
    """Begin to lay the strokes of each character onto the glyphs of each font; `proportions` takes what comes of it."""
    strokes = [_sampled(each) for each in own]
    points, line, rows = forms.points.cpu().double().numpy(), forms.line.cpu().numpy(), forms.host_rows.numpy()
    bounds = np.append(0, np.cumsum(rows)).tolist()
    glyphs = [(points[begin:end], line[begin:end]) for begin, end in itertools.pairwise(bounds)]
    return [fit(strokes, glyphs[first : first + len(own)], each) for first in range(0, len(glyphs), len(own))]


def proportions(
    own: Sequence[Sequence[Stroke]],
    written: Sequence[Sequence[Stroke]],
    fonts: Sequence[Iterator[np.ndarray]],
    each: Each,
) -> Iterator[np.ndarray]:
    """Give font by font how far the points of lines move: float32[Q, CUTS, 2].

    own: the strokes of each character. written: these and the lines of their running forms, Q in all.
    fonts: how `own` fit to each font. each: what does the work, begun when this returns.
    Zeros where the font lacks a character, or has another.
    """
    characters = [
        (_sampled(strokes), _sampled(lines), _places(lines), np.stack(moves).reshape(len(fonts), -1, 2))
        for strokes, lines, *moves in zip(own, written, *fonts, strict=True)
    ]
    return _fine(
        each(_moved, [(characters[first : first + _TASK],) for first in range(0, len(characters), _TASK)]), len(fonts)
    )


def _fine(coarse: Iterable[np.ndarray], fonts: int) -> Iterator[np.ndarray]:
    below = np.minimum(_BACK.astype(int), POINTS - 2)
    share = (_BACK - below).astype(np.float32)[:, None]
    parts = list(coarse)
    for font in range(fonts):
        at_points = np.concatenate([moved[font] for moved in parts]).reshape(-1, POINTS, 2)
        yield at_points[:, below] * (1 - share) + at_points[:, below + 1] * share


def _sampled(strokes: Sequence[Stroke]) -> np.ndarray:
    """Give POINTS points of each stroke: float64[S, POINTS, 2]."""
    lines = np.stack([stroke.line for stroke in strokes])
    return interpolate(lines, np.arange(len(lines))[:, None], _AT[None])


def _places(lines: Sequence[Stroke]) -> np.ndarray:
    """Say which stroke of the character each line is: int64[Q], -1 for a line of a running form."""
    return np.array([line.place if line.high == np.inf else -1 for line in lines])


def _moved(characters: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Give how far the points of some characters' lines move in each font: float32[F, Q * POINTS, 2].

    Of each character its strokes, its lines, `_places` of these, and float64[F, S * POINTS, 2], how its strokes move.
    """
    moved = [_followed(strokes, lines, places) @ moves for strokes, lines, places, moves in characters]
    return (np.concatenate(moved, 1) * _FINE).round().astype(np.float32) / _FINE


def _followed(strokes: np.ndarray, lines: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Give by which shares the points of lines go with those of strokes: float64[Q * POINTS, S * POINTS]."""
    apart = np.square(lines.reshape(-1, 1, 2) - strokes.reshape(-1, 2)).sum(-1)
    share = 1 / (1 + apart / _REACH**2) ** 2
    for number, place in enumerate(places.tolist()):
        # A stroke of the character itself goes its own way, else what crosses it would bend it.
        if place >= 0:
            rows = slice(number * POINTS, (number + 1) * POINTS)
            share[rows] = 0
            share[rows, place * POINTS : (place + 1) * POINTS] = np.eye(POINTS)
    return share / share.sum(1, keepdims=True)
