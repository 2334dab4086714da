"""Strokes laid onto glyphs, and the copybook in the manner of fonts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hcr.synth.copybook import NUMBERS, make_copybook
from hcr.synth.fonts.glyphs import make_forms
from hcr.synth.fonts.registration import POINTS, fit
from hcr.synth.skeleton import strokes_of
from hcr.synth.strokes import StrokeTable
from tests.test_fonts import build_font

Glyph = tuple[np.ndarray, np.ndarray]


def strokes_in(char: str) -> np.ndarray:
    """The strokes of a character: float[S, POINTS, 2]."""
    lines = strokes_of(StrokeTable.load().medians(char))
    return np.stack([stroke.line[np.linspace(0, len(stroke.line) - 1, POINTS).round().astype(int)] for stroke in lines])


def bent(points: np.ndarray) -> np.ndarray:
    """As another hand would have it: wider, lower, rising, its upper half smaller, and elsewhere."""
    x, y = points[..., 0] - 0.5, points[..., 1] - 0.5
    return np.stack([0.55 + 1.15 * x + 0.05 * y, 0.42 + 0.8 * y - 0.15 * x + 0.1 * y * y], -1)


def glyph_of(lines: np.ndarray) -> Glyph:
    """Lines as a font's glyph has them: closely sampled, in another order, some from the end to the start."""
    fine = np.linspace(0, POINTS - 1, 17)
    order = np.random.default_rng(0).permutation(len(lines))
    points = [np.stack([np.interp(fine, np.arange(POINTS), line[:, axis]) for axis in (0, 1)], 1) for line in lines]
    points = [points[number][:: 1 if number % 2 else -1] for number in order]
    return np.concatenate(points), np.repeat(np.arange(len(lines)), 17)


@pytest.mark.parametrize("char", "实照国辉")
def test_strokes_come_to_lie_where_another_hand_has_them(char: str) -> None:
    strokes = strokes_in(char)
    wanted = bent(strokes)
    (moved,) = fit([strokes], [glyph_of(wanted)])
    before, after = np.abs(wanted - strokes).mean(), np.abs(wanted - strokes - moved).mean()
    assert before > 0.04 and after < 0.02, (before, after)


def test_a_stroke_that_is_left_out_goes_with_its_neighbours() -> None:
    strokes = strokes_in("语")
    wanted = bent(strokes)
    (moved,) = fit([strokes], [glyph_of(np.delete(wanted, 4, 0))])
    rest = np.delete(np.arange(len(strokes)), 4)
    assert np.abs(wanted - strokes - moved)[rest].mean() < 0.02
    assert np.abs(wanted - strokes - moved)[4].mean() < 0.06


def test_nothing_moves_without_a_glyph_or_for_another_character() -> None:
    one, dot = strokes_in("一"), (np.array([[0.5, 0.5]]), np.zeros(1, int))
    for glyph in ((np.empty((0, 2)), np.empty(0, int)), dot, glyph_of(strokes_in("辉"))):
        (moved,) = fit([one], [glyph])
        assert moved.shape == one.shape and not moved.any()


def test_a_fit_is_the_same_among_others() -> None:
    characters = [strokes_in(char) for char in "实一辉国"]
    glyphs = [glyph_of(bent(strokes)) for strokes in characters]
    together = fit(characters, glyphs)
    for strokes, glyph, moved in zip(characters, glyphs, together, strict=True):
        assert np.abs(next(fit([strokes], [glyph])) - moved).max() < 1e-6


def test_the_copybook_takes_the_manner_of_a_font(tmp_path: Path) -> None:
    # The font's 口 is as wide as high and closed; the font lacks 国.
    forms = make_forms([build_font(tmp_path / "box.ttf", "十口"), build_font(tmp_path / "other.ttf", "十")], "十口国")
    book = make_copybook("十口国", forms=forms)
    rows = torch.arange(len(book.shape))
    plain, first, second = (
        book.shaped(rows, torch.tensor([[font]]).expand(len(rows), 1), torch.full((len(rows), 1), share))
        for font, share in ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    )
    begin = book.first.tolist()
    ten, box, country = slice(begin[0], begin[1]), slice(begin[1], begin[2]), slice(begin[2], None)
    assert torch.equal(first.points[country], plain.points[country]) and book.manners.dtype == torch.float16
    assert torch.equal(second.points[box], plain.points[box]) and not torch.equal(first.points[box], plain.points[box])
    assert torch.allclose(first.points[ten], second.points[ten])

    def sides(points: torch.Tensor) -> list[float]:
        return [float(points[..., axis].max() - points[..., axis].min()) for axis in (0, 1)]

    always = torch.isinf(book.chosen[box, 1]) | (book.chosen[box, 1] >= 1)
    wide, high = sides(first.points[box][always])
    assert sides(plain.points[box][always])[1] < 0.75 * wide and 0.75 < high / wide < 1.1
    # Lines of running forms go with the strokes: none reaches farther than they do.
    assert sides(first.points[box])[1] < 1.1 * high
    # What was derived from the points moves with them.
    opens = book.numbers[box, NUMBERS.index("opens")] == 1
    begins = first.chord[box][:, :2]
    assert torch.allclose(begins[opens], first.points[box][opens][:, 0], atol=2e-3)


def test_half_of_a_manner_is_half_of_the_way(tmp_path: Path) -> None:
    forms = make_forms([build_font(tmp_path / "box.ttf", "口")], "口")
    book = make_copybook("口", forms=forms)
    rows = torch.arange(len(book.shape))
    at = [
        book.shaped(rows, torch.zeros(len(rows), 2), torch.tensor([[0.3 * share, 0.7 * share]]).expand(len(rows), 2))
        for share in (0.0, 0.5, 1.0)
    ]
    for plain, half, whole in zip(*at, strict=True):
        assert torch.allclose(half - plain, 0.5 * (whole - plain), atol=1e-5)
    assert not torch.equal(at[0].points, at[2].points)
