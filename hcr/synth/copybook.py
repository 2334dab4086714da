"""The copybook: all characters of a charset, with their running forms, as flat tensors.

What drawn writers copy from. A stroke is cut into rows of four steps, a long piece into more rows than a short one, but
not in proportion to its length: a hand takes hardly longer for a long stroke than for a short one, and the steps are
its clock. All rows of all alternatives of a character stand together, so that drawing takes the rows and keeps the
chosen ones. The price is memory, about 20 KB a character, and two milliseconds of making for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hcr.synth.cursive import around, knots_of, sheltered, sites_of, with_running_forms
from hcr.synth.fonts.glyphs import Forms, processes_for
from hcr.synth.fonts.registration import fits, proportions
from hcr.synth.skeleton import (
    BENT,
    DOT,
    NA,
    Stroke,
    contacts,
    interpolate,
    overhangs,
    parts_of,
    strokes_of,
    strokes_through,
    without_false_hooks,
)
from hcr.synth.strokes import StrokeTable
from hcr.workers import worker_pool

STEPS = 4
"""Steps of a row: it has STEPS + 1 points, the last of which is the first of the next row of its stroke."""

_ROW = 0.13  # a piece of this length is one row, one of four times it two, of nine times it three
_MOST_ROWS = 3
_ALWAYS = 1000.0  # a liking below which everything lies, however little a writer likes running forms

FREE, HOOK, SWEEP, SPOT = range(4)
"""What a writer may shorten: nothing here, the hook, the stroke that falls right, the dot."""

NUMBERS = ("place", "half", "part", "site", "rule", "kind", "cut", "opens", "ends", "back", "ahead")
"""Columns of Copybook.numbers."""

_WIDTHS = (2 * (STEPS + 1), 4, 2, 6, 4, 1)


class Shape(NamedTuple):
    """Where rows lie; R rows, float32, x right and y down in the unit box.

    points: [R, STEPS + 1, 2]. chord: [R, 4], where the piece between two corners begins and ends. anchor: [R, 2], what
    the row shrinks towards where the writer shortens it. middle: [R, 6], of the stroke, of its part, of its half of the
    character. apart: [R, 4], how far the stroke's start and its end are from what they touch. printed: [R, 1], what is
    left of the printed hand's proportions, 0-1.
    """

    points: Tensor
    chord: Tensor
    anchor: Tensor
    middle: Tensor
    apart: Tensor
    printed: Tensor


class Copybook(NamedTuple):
    """The rows of all characters; R rows of C characters.

    codes: int64[C], code points. first, rows: int64[C], rows of each character.
    shape: float32[R, 27], the columns of Shape side by side.
    manners: float16[F, R, 27], how far the shape is from that in the manner of each of F fonts.
    overhang: float32[R, STEPS + 1, 2], by how much each point moves when what sticks out is halved.
    shelter: float32[R, STEPS + 1, 2], by how much each point moves when what is below a roof is drawn into it.
    span: float32[R, 2], where in its piece the row begins, and the length of a step, in lengths of the piece.
    chosen: float32[R, 3], low and high of the liking at which the row is written, and its tie.
    numbers: int64[R, 11], see NUMBERS: of the stroke, the half, the part, the site in the character; the rule that made
    the site; the kind of stroke; what may be shortened; 1 where a stroke begins; 1 where it ends; how many rows its
    stroke has before and after it.
    touched: int64[R, 4], which row of the character the stroke's start touches, counted from the character's first
    (-1: none), and which of its points; the same of its end.
    host_rows: int64[C] in memory, so that sizes are known without waiting for the device.
    """

    codes: Tensor
    first: Tensor
    rows: Tensor
    shape: Tensor
    manners: Tensor
    overhang: Tensor
    shelter: Tensor
    span: Tensor
    chosen: Tensor
    numbers: Tensor
    touched: Tensor
    host_rows: Tensor

    def to(self, device: torch.device) -> Copybook:
        """Return the same on a device."""
        return Copybook(*(tensor.to(device) for tensor in self))._replace(host_rows=self.host_rows)

    def shaped(self, row: Tensor, models: Tensor, shares: Tensor) -> Shape:
        """Return the shape of rows int64[N], in the manner of a mixture of K fonts.

        models: float32[N, K], which fonts: 0 is the first, 1 the last. shares: float32[N, K], how much of each; what is
        left is the copybook's own. Where there are no fonts, they change nothing.
        """
        shape = self.shape.index_select(0, row)
        count = len(self.manners)
        for model, share in zip(models.unbind(1), shares.unbind(1), strict=True) if count else ():
            font = (model * count).long().clamp(max=count - 1)
            shape = shape + self.manners[font, row].float() * share[:, None]
        points, *others = shape.split(_WIDTHS, 1)
        return Shape(points.unflatten(1, (STEPS + 1, 2)), *others)


def make_copybook(
    characters: str, forms: Forms | None = None, medians: Sequence[Sequence[np.ndarray]] | None = None
) -> Copybook:
    """Return the copybook of `characters`, label order, in memory.

    forms: of these characters in fonts, whose manners the copybook then has. medians: the centre lines of each
    character's strokes, in order, in the place of the stroke table's. They are written without running forms of parts.
    Raises: DataError for a character without strokes.
    """
    with worker_pool(processes_for(len(forms.host_rows)) if forms else 1) as mapped:
        given = medians is not None
        if medians is None:
            table = StrokeTable.load()
            medians = [table.medians(char) for char in characters]
        plain = iter(strokes_of([line for lines in medians for line in lines]))
        printed = [without_false_hooks(list(islice(plain, len(lines)))) for lines in medians]
        fonts = fits(printed, forms, mapped) if forms else []
        sites = [[] if given else sites_of(strokes) for strokes in printed]
        new = iter(strokes_through([knots for found in sites for knots in knots_of(found)]))
        written = [with_running_forms(strokes, found, new) for strokes, found in zip(printed, sites, strict=True)]
        moves = proportions(printed, written, fonts, mapped) if forms else iter(())
        parts = []
        for strokes, found, all_strokes in zip(printed, sites, written, strict=True):
            numbered = parts_of(strokes, around(strokes, found))
            parts += [numbered[stroke.place] for stroke in all_strokes]
        owner = np.repeat(np.arange(len(written)), [len(strokes) for strokes in written])
        flat = [stroke for strokes in written for stroke in strokes]
        shelter = np.concatenate([sheltered(strokes, lines) for strokes, lines in zip(printed, written, strict=True)])
        return _laid_out(characters, flat, shelter, moves, np.array(parts), owner)


class _Rows(NamedTuple):
    """How Q lines are cut into R rows, by way of P pieces between corners.

    line: int[R], the line of each row; at: float[R, STEPS + 1], where in it the row's points are. piece: int[R].
    stroke, begin, end: int[P], the line of each piece and the positions between which it lies.
    opened, ended: int[Q], the first and the last row of each line.
    span: float[R, 2], as in the copybook.
    """

    line: np.ndarray
    at: np.ndarray
    piece: np.ndarray
    stroke: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    opened: np.ndarray
    ended: np.ndarray
    span: np.ndarray


def _cut(strokes: Sequence[Stroke], lines: np.ndarray) -> _Rows:
    stroke = np.repeat(np.arange(len(strokes)), [each.pieces for each in strokes])
    begin, end = (
        np.array([corner for each in strokes for corner in each.corners[kept]]) for kept in (slice(-1), slice(1, None))
    )
    chord = lines[stroke, end] - lines[stroke, begin]
    rows = np.clip(np.round(np.sqrt(np.hypot(*chord.T) / _ROW)), 1, _MOST_ROWS).astype(int)

    piece = np.repeat(np.arange(len(stroke)), rows)
    within = np.arange(len(piece)) - (np.cumsum(rows) - rows)[piece]
    along = (within[:, None] + np.linspace(0, 1, STEPS + 1)) / rows[piece, None]
    line = stroke[piece]
    opens = np.diff(line, prepend=-1) != 0
    return _Rows(
        line,
        begin[piece, None] + along * (end - begin)[piece, None],
        piece,
        stroke,
        begin,
        end,
        np.flatnonzero(opens),
        np.flatnonzero(np.append(opens[1:], True)),
        np.stack([within / rows[piece], 1 / (STEPS * rows[piece])], 1),
    )


def _laid_out(
    characters: str,
    strokes: Sequence[Stroke],
    shelter: np.ndarray,
    moves: Iterator[np.ndarray],
    parts: np.ndarray,
    owner: np.ndarray,
) -> Copybook:
    lines = np.stack([stroke.line for stroke in strokes])
    rows = _cut(strokes, lines)
    line, opened, ended = rows.line, rows.opened, rows.ended
    points = interpolate(lines, line[:, None], rows.at)
    bounds = np.searchsorted(owner, np.arange(len(characters) + 1))
    touched = contacts(strokes, points, bounds, opened, ended)
    # Of each stroke, the rows that its start and its end touch, and the points in them.
    touched_points = opened[bounds[owner]][:, None] + touched[:, ::2], touched[:, 1::2]

    kinds = np.array([each.kind for each in strokes])
    hooked = np.array([each.hooked for each in strokes])
    hook = hooked[line] & (np.append(rows.stroke[1:] != rows.stroke[:-1], True))[rows.piece]
    to_piece = (hook | (kinds[line] == BENT))[:, None]

    def shape_of(lines: np.ndarray, printed: np.ndarray) -> np.ndarray:
        points = interpolate(lines, line[:, None], rows.at)
        a, b = (lines[rows.stroke, ends][rows.piece] for ends in (rows.begin, rows.end))
        anchor = np.where(to_piece, a, lines[line, 0])
        middle = lines.mean(1)
        middles = [middle, *(_middles(middle, owner * 64 + parts[:, column]) for column in (1, 0))]
        tips = np.stack([points[opened, 0], points[ended, -1]], 1)
        apart = np.where((touched[:, ::2] >= 0)[:, :, None], tips - points[touched_points], 0).reshape(-1, 4)
        flat = points.reshape(len(line), -1)
        columns = flat, a, b, anchor, np.concatenate(middles, 1)[line], apart[line], printed[line, None]
        return np.concatenate(columns, 1).astype(np.float32)

    shape = shape_of(lines, np.ones(len(lines)))
    manners = [(shape_of(lines + move, np.where(move.any((1, 2)), 0, 1)) - shape).astype(np.float16) for move in moves]
    place = np.arange(len(line))
    numbers = np.stack(
        [
            np.array([each.place for each in strokes])[line],
            parts[line, 0],
            parts[line, 1],
            np.array([each.site for each in strokes])[line],
            np.array([each.rule for each in strokes])[line],
            kinds[line],
            np.select([hook, kinds[line] == NA, kinds[line] == DOT], [HOOK, SWEEP, SPOT], FREE),
            place == opened[line],
            place == ended[line],
            place - opened[line],
            ended[line] - place,
        ],
        1,
    )
    chosen = np.array([(each.low, min(each.high, _ALWAYS), each.tie) for each in strokes])[line]
    count = np.bincount(owner[line], minlength=len(characters))

    def floats(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32))

    def integers(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64))

    return Copybook(
        integers(np.array([ord(char) for char in characters])),
        integers(np.cumsum(count) - count),
        integers(count),
        floats(shape),
        torch.from_numpy(np.stack(manners) if manners else np.empty((0, *shape.shape), np.float16)),
        floats(interpolate(overhangs(strokes, lines, bounds), line[:, None], rows.at)),
        floats(interpolate(shelter, line[:, None], rows.at)),
        floats(rows.span),
        floats(chosen),
        integers(numbers),
        integers(touched[line]),
        integers(count),
    )


def _middles(middle: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return of each stroke the mean of the middles of its group."""
    _, inverse, sizes = np.unique(group, return_inverse=True, return_counts=True)
    total = np.stack([np.bincount(inverse, middle[:, axis]) for axis in (0, 1)], 1)
    means: np.ndarray = (total / sizes[:, None])[inverse]
    return means
