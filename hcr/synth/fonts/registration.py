"""The proportions of other hands: how far the strokes of the copybook move to lie where a font has them.

Between the fonts and the copybook. A font's glyph is lines without order or names, some of them run together or left
out; the strokes of the printed hand have both. `fits` moves the strokes until they explain the glyph's points: all
together as a sheet of rubber is bent, each a little on its own, and the more surely the nearer they come. Where the
glyph has no line for a stroke, the stroke goes with its neighbours. About a millisecond and a half of a core a glyph.

`proportions` takes the lines of running forms along with the strokes around them. So a drawn writer can take his
proportions from fonts, and from between two of them, and still write every form that the rules know. Moves are rounded
to 1/1024 of the box: what other processors round otherwise does not show.

Source of the scheme: Myronenko and Song, Point set registration: coherent point drift, IEEE Transactions on Pattern
Analysis and Machine Intelligence 32, 2010; the sheet is a grid of Gaussian bumps here, which is less to solve.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from itertools import starmap
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hcr.synth.fonts.glyphs import Forms
from hcr.synth.skeleton import CUTS, Stroke, interpolate
from hcr.workers import Map

POINTS = 9
"""Points of a stroke that are moved, evenly spaced."""

_MOST = 96  # points of a glyph that are looked at
_BATCH = 128  # characters laid onto glyphs at a time
_GRID = 5  # bumps of the sheet, a side
_BUMP = 0.3  # sides of the box, their standard deviation
_STIFF, _OWN = 1e-3, 3e-2  # what it costs to bend the sheet, and to move one stroke
_STEPS = 12
_FAR, _NEAR = 0.14, 0.025  # sides of the box: how far a stroke looks for its line, at first and at last
_TURNED = 0.1  # sides of the box: a line across a stroke counts as twice that much farther away
_STRAY = 0.005  # share of the density that belongs to no stroke
_SMALLER, _LARGER = 0.6, 1.6
_POOR = 0.036  # sides of the box: a mean distance above which a glyph is not what the strokes say

_REACH = 0.05  # sides of the box within which a line of a running form goes with a stroke
_FINE = 1024
_TASK = 128  # characters
_AT = np.linspace(0, CUTS - 1, POINTS)
_BACK = np.linspace(0, POINTS - 1, CUTS)


class _Batch(NamedTuple):
    """B characters of up to S strokes and M points of their glyphs; float64."""

    strokes: Tensor  # [B, S * POINTS, 2]
    share: Tensor  # [B, S * POINTS], of the character's length
    glyph: Tensor  # [B, M, 2]
    across: Tensor  # [B, M, 2], unit vectors at twice the angle of the line
    counts: Tensor  # [B, M], 1 / M for what is there


def fit(
    strokes: Sequence[np.ndarray], glyphs: Sequence[tuple[np.ndarray, np.ndarray]], mapped: Map = starmap
) -> Iterator[np.ndarray]:
    """Return by how much the strokes move, float64[S, POINTS, 2] for each float[S, POINTS, 2].

    strokes: of C characters, in the unit box. glyphs: of each the points float[M, 2] of its lines, in any box of about
    that size, and the line of each point, int[M], ascending. mapped: does the work, which has started
    when this returns. Zeros: there is no glyph, or none that the strokes can be laid onto.
    """
    placed = [number for number, (points, _) in enumerate(glyphs) if len(points) > 1]
    # Alike in size, so that little of a batch is padding.
    placed.sort(key=lambda number: (len(strokes[number]), len(glyphs[number][0])))
    batches = [placed[first : first + _BATCH] for first in range(0, len(placed), _BATCH)]
    moves = mapped(_moves, [([strokes[n] for n in batch], [glyphs[n] for n in batch]) for batch in batches])
    return _in_order(strokes, batches, moves)


def _in_order(
    strokes: Sequence[np.ndarray], batches: Sequence[Sequence[int]], moves: Iterable[Sequence[np.ndarray]]
) -> Iterator[np.ndarray]:
    moved: dict[int, np.ndarray] = {}
    for batch, found in zip(batches, moves, strict=True):
        moved.update(zip(batch, found, strict=True))
    for number, each in enumerate(strokes):
        yield moved.get(number, np.zeros(each.shape))


def _moves(strokes: Sequence[np.ndarray], glyphs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Return what `fit` does for the characters of one batch, all of which have a glyph."""
    batch = _batch(strokes, glyphs)
    laid = _laid(batch)
    good = (_distance(batch, laid) < _POOR)[:, None, None]
    moves = torch.where(good, laid - batch.strokes, 0).numpy()
    return [move[: len(each) * POINTS].reshape(-1, POINTS, 2) for each, move in zip(strokes, moves, strict=True)]


def _batch(strokes: Sequence[np.ndarray], glyphs: Sequence[tuple[np.ndarray, np.ndarray]]) -> _Batch:
    most = max(len(each) for each in strokes)
    seen = [_seen(*glyph) for glyph in glyphs]
    width = max(len(points) for points, _ in seen)
    placed = torch.zeros(len(strokes), most, POINTS, 2, dtype=torch.float64)
    glyph = torch.zeros(len(strokes), width, 2, dtype=torch.float64)
    across = torch.zeros_like(glyph)
    counts = torch.zeros(len(strokes), width, dtype=torch.float64)
    for number, (each, (points, turns)) in enumerate(zip(strokes, seen, strict=True)):
        placed[number, : len(each)] = torch.from_numpy(each)
        glyph[number, : len(points)] = torch.from_numpy(points)
        across[number, : len(points)] = torch.from_numpy(turns)
        counts[number, : len(points)] = 1 / len(points)
    length = (placed[:, :, 1:] - placed[:, :, :-1]).norm(dim=-1).sum(-1)
    share = (length / length.sum(1, keepdim=True)).repeat_interleave(POINTS, 1) / POINTS
    return _Batch(placed.flatten(1, 2), share, glyph, across, counts)


def _seen(points: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a glyph's points, at most _MOST, and the direction of its line at each."""
    same = line[1:] == line[:-1]
    after, before = points.copy(), points.copy()
    after[:-1][same], before[1:][same] = points[1:][same], points[:-1][same]
    step = -(-len(points) // _MOST)
    return points[::step], _doubled(torch.from_numpy(after - before)).numpy()[::step]


def _doubled(step: Tensor) -> Tensor:
    """Return the unit vectors [..., 2] at twice the angle of steps, so that a line has no front and back."""
    x, y = step.unbind(-1)
    return torch.stack([x * x - y * y, 2 * x * y], -1) / (x * x + y * y).clamp(min=1e-12)[..., None]


def _laid(batch: _Batch) -> Tensor:
    """Return where the points of the strokes come to lie: float64[B, S * POINTS, 2]."""
    begin = _sized(batch)
    basis, cost = _basis(begin)
    target = torch.cat([batch.glyph, _TURNED * batch.across], -1)
    squares = target.square().sum(-1)
    laid = begin
    for width in np.geomspace(_FAR, _NEAR, _STEPS):
        features = torch.cat([laid, _TURNED * _doubled(_steps(laid))], -1)
        apart = features.square().sum(-1)[:, :, None] + squares[:, None] - 2 * features @ target.transpose(1, 2)
        belongs = torch.exp(apart * (-0.5 / width**2)) * batch.share[:, :, None]
        belongs = belongs * (batch.counts[:, None] / (belongs.sum(1, keepdim=True) + _STRAY * width))
        mass = belongs.sum(2, keepdim=True)
        # Stiff while it is not yet sure which line is whose.
        stiff = torch.diag(cost * (width / _NEAR) ** 2)
        weighted = (basis * mass).transpose(1, 2)
        pull = basis.transpose(1, 2) @ (belongs @ batch.glyph - mass * begin)
        laid = begin + basis @ torch.cholesky_solve(pull, torch.linalg.cholesky(weighted @ basis + stiff))
    return laid


def _sized(batch: _Batch) -> Tensor:
    """Bring the strokes to the glyph's place and size."""

    def spread(points: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        middle = (points * share[:, :, None]).sum(1, keepdim=True)
        return middle, ((points - middle).square() * share[:, :, None]).sum(1, keepdim=True).sqrt()

    middle, size = spread(batch.strokes, batch.share)
    target_middle, target_size = spread(batch.glyph, batch.counts)
    scale = (target_size / size.clamp(min=0.02)).clamp(_SMALLER, _LARGER)
    return target_middle + (batch.strokes - middle) * scale


def _basis(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ways in which points can move, float64[B, N, W], and what each costs: float64[W]."""
    count, number, _ = points.shape
    strokes = number // POINTS
    knots = torch.linspace(0, 1, _GRID, dtype=points.dtype)
    grid = torch.cartesian_prod(knots, knots)
    bumps = torch.exp((points[:, :, None] - grid).square().sum(-1) * (-0.5 / _BUMP**2))
    along = torch.linspace(-1, 1, POINTS, dtype=points.dtype).repeat(strokes)[:, None]
    member = torch.eye(strokes, dtype=points.dtype).repeat_interleave(POINTS, 0)
    single = torch.cat([member, member * along], 1).expand(count, -1, -1)
    whole = torch.cat([torch.ones_like(points[..., :1]), points - 0.5], -1)
    cost = torch.tensor([2e-6] * 3 + [_STIFF] * _GRID**2 + [_OWN] * (2 * strokes), dtype=points.dtype)
    return torch.cat([whole, bumps, single], -1), cost


def _steps(points: Tensor) -> Tensor:
    """Return the way of each stroke at each of its points: float64[B, S * POINTS, 2]."""
    strokes = points.view(len(points), -1, POINTS, 2)
    after = torch.cat([strokes[:, :, 1:], strokes[:, :, -1:]], 2)
    before = torch.cat([strokes[:, :, :1], strokes[:, :, :-1]], 2)
    return (after - before).flatten(1, 2)


def _distance(batch: _Batch, laid: Tensor) -> Tensor:
    """Return the mean distance between strokes and glyph, from the side where it is larger: float64[B]."""
    apart = torch.cdist(laid, batch.glyph)
    to_glyph = apart.masked_fill(batch.counts[:, None] == 0, torch.inf).amin(2)
    to_strokes = apart.masked_fill(batch.share[:, :, None] == 0, torch.inf).amin(1)
    return torch.maximum((to_glyph * batch.share).sum(1), (to_strokes * batch.counts).sum(1))


def fits(printed: Sequence[Sequence[Stroke]], forms: Forms, mapped: Map) -> list[Iterator[np.ndarray]]:
    """Start to lay the strokes of each character onto the glyphs of each font; `proportions` takes the result.

    mapped: does the work, which has started when this returns.
    """
    strokes = [_sampled(each) for each in printed]
    points, line, rows = forms.points.cpu().double().numpy(), forms.line.cpu().numpy(), forms.host_rows.numpy()
    bounds = np.append(0, np.cumsum(rows)).tolist()
    glyphs = [(points[begin:end], line[begin:end]) for begin, end in itertools.pairwise(bounds)]
    return [fit(strokes, glyphs[first : first + len(printed)], mapped) for first in range(0, len(glyphs), len(printed))]


def proportions(
    printed: Sequence[Sequence[Stroke]],
    written: Sequence[Sequence[Stroke]],
    fonts: Sequence[Iterator[np.ndarray]],
    mapped: Map,
) -> Iterator[np.ndarray]:
    """Return font by font how far the points of lines move: float32[Q, CUTS, 2].

    printed: the strokes of each character. written: these and the lines of their running forms, Q in all.
    fonts: what `fits` returned. mapped: does the work, which has started when this returns.
    Zeros where the font lacks a character, or has another.
    """
    characters = [
        (_sampled(strokes), _sampled(lines), _places(lines), np.stack(moves).reshape(len(fonts), -1, 2))
        for strokes, lines, *moves in zip(printed, written, *fonts, strict=True)
    ]
    return _fine(
        mapped(_moved, [(characters[first : first + _TASK],) for first in range(0, len(characters), _TASK)]), len(fonts)
    )


def _fine(coarse: Iterable[np.ndarray], fonts: int) -> Iterator[np.ndarray]:
    below = np.minimum(_BACK.astype(int), POINTS - 2)
    share = (_BACK - below).astype(np.float32)[:, None]
    parts = list(coarse)
    for font in range(fonts):
        at_points = np.concatenate([moved[font] for moved in parts]).reshape(-1, POINTS, 2)
        yield at_points[:, below] * (1 - share) + at_points[:, below + 1] * share


def _sampled(strokes: Sequence[Stroke]) -> np.ndarray:
    """Return POINTS points of each stroke: float64[S, POINTS, 2]."""
    lines = np.stack([stroke.line for stroke in strokes])
    return interpolate(lines, np.arange(len(lines))[:, None], _AT[None])


def _places(lines: Sequence[Stroke]) -> np.ndarray:
    """Say which stroke of the character each line is: int64[Q], -1 for a line of a running form."""
    return np.array([line.place if line.high == np.inf else -1 for line in lines])


def _moved(characters: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return how far the points of some characters' lines move in each font: float32[F, Q * POINTS, 2].

    Of each character its strokes, its lines, `_places` of these, and float64[F, S * POINTS, 2], how its strokes move.
    """
    moved = [_followed(strokes, lines, places) @ moves for strokes, lines, places, moves in characters]
    return (np.concatenate(moved, 1) * _FINE).round().astype(np.float32) / _FINE


def _followed(strokes: np.ndarray, lines: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return by which shares the points of lines go with those of strokes: float64[Q * POINTS, S * POINTS]."""
    apart = np.square(lines.reshape(-1, 1, 2) - strokes.reshape(-1, 2)).sum(-1)
    share = 1 / (1 + apart / _REACH**2) ** 2
    for number, place in enumerate(places.tolist()):
        # A stroke of the character itself goes its own way, else what crosses it would bend it.
        if place >= 0:
            rows = slice(number * POINTS, (number + 1) * POINTS)
            share[rows] = 0
            share[rows, place * POINTS : (place + 1) * POINTS] = np.eye(POINTS)
    normed: np.ndarray = share / share.sum(1, keepdims=True)
    return normed
