"""Thinning: what becomes of bars, crossings, rings and dots."""

from __future__ import annotations

import numpy as np
import pytest

from hcr.synth.fonts.thinning import centre_lines

Box = tuple[int, int, int, int]


def shapes(*boxes: list[Box], side: int = 60) -> np.ndarray:
    """Pictures of boxes of left, top, right, bottom."""
    made = np.zeros((len(boxes), side, side), bool)
    for picture, each in zip(made, boxes, strict=True):
        for left, top, right, bottom in each:
            picture[top:bottom, left:right] = True
    return made


def test_a_bar_is_one_straight_line_without_the_forks_of_its_corners() -> None:
    lines = centre_lines(shapes([(10, 25, 50, 34)]))
    assert lines.line.max() == 0 and lines.open.tolist() == [True, *[False] * (len(lines.open) - 2), True]
    assert np.abs(lines.points[:, 1] - 29).max() <= 1
    assert sorted(lines.points[[0, -1], 0]) == pytest.approx([10, 49], abs=3)
    assert lines.radius == pytest.approx(np.full(len(lines.radius), 4.5), abs=0.6)


def test_lines_meet_in_crossings_and_close_in_rings() -> None:
    cross, ring = [(5, 26, 55, 34), (26, 5, 34, 55)], [(10, 10, 50, 50)]
    made = shapes(cross, [], ring)
    made[2, 16:44, 16:44] = False
    lines = centre_lines(made)
    assert np.unique(lines.glyph).tolist() == [0, 2]
    arms = [lines.points[(lines.line == number) & (lines.glyph == 0)] for number in range(4)]
    ends = np.concatenate([arm[[0, -1]] for arm in arms])
    assert (np.abs(ends - 30).max(1) < 2).sum() == 4, "four lines from one place"
    assert lines.open[lines.glyph == 0].sum() == 4
    round_it = lines.points[lines.glyph == 2]
    assert not lines.open[lines.glyph == 2].any()
    assert np.array_equal(round_it[0], round_it[-1]) and np.ptp(round_it, 0) == pytest.approx([34, 34], abs=3)


def test_a_dot_is_a_short_line() -> None:
    lines = centre_lines(shapes([(28, 28, 33, 33)]))
    assert len(lines.points) == 2 and lines.open.all()
    assert 1 < np.hypot(*(lines.points[1] - lines.points[0])) < 8


def test_what_is_drawn_is_not_changed_by_what_is_beside_it() -> None:
    bar, cross = [(10, 25, 50, 34)], [(5, 26, 55, 34), (26, 5, 34, 55)]
    both, alone = centre_lines(shapes(bar, cross)), centre_lines(shapes(cross))
    assert np.array_equal(both.points[both.glyph == 1], alone.points)
    assert np.array_equal(both.radius[both.glyph == 1], alone.radius)
