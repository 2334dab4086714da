"""Running forms of components of uprights, many of them with hooks.

Rules as in `components`, which says what a rule is.
"""

from __future__ import annotations

from collections.abc import Sequence

from hcr.pen.running.forms import Found, New, between, body, knots, moved
from hcr.pen.skeleton import DOT, HENG, NA, PIE, SHU, TI, Stroke


def _hooked_upright(stroke: Stroke) -> bool:
    return stroke.hooked and stroke.pieces == 2 and 70 < stroke.direction(0) < 110


def inch(strokes: Sequence[Stroke], first: int) -> Found | None:
    """寸: a level stroke, a hooked upright through it, a dot at its left: the hook leads to the dot, or is lost."""
    run = strokes[first : first + 3]
    if len(run) < 3 or run[0].kind != HENG or run[0].hooked or not _hooked_upright(run[1]) or run[2].kind != DOT:
        return None
    level, shaft, dot = run
    low = shaft.body_end
    if dot.direction(0) > 90 or not level.start[0] < dot.start[0] < low[0]:
        return None
    if not level.line[:, 1].mean() < dot.start[1] < low[1]:
        return None
    return 3, [
        (0.26, [New(knots(level)), New(knots(shaft), 2), New(knots(dot))]),
        (0.16, [New(knots(level), 2), New(knots(shaft)), New(knots(dot))]),
        (0.14, [New(knots(level), 2), New(knots(shaft), 2), New(knots(dot))]),
        (0.12, [New(knots(level)), New(body(shaft)), New(knots(dot))]),
        (0.08, [New(knots(level)), New([shaft.start, low, moved(dot.start, 0, 0.02), dot.end])]),
    ]


def small(strokes: Sequence[Stroke], first: int) -> Found | None:
    """小 in 示 宗 京 and 糸: a hooked upright, a short stroke at each side: the hook leads on, or they are a line."""
    run = strokes[first : first + 3]
    if len(run) < 3 or run[0].kind != SHU or run[1].kind not in (PIE, DOT) or run[2].kind not in (NA, DOT):
        return None
    shaft, left, right = run
    low, high = shaft.body_end, shaft.start
    if not left.line[:, 0].max() < low[0] + 0.02 or not right.line[:, 0].min() > low[0] - 0.02:
        return None
    longest = max(abs(stroke.end - stroke.start).max() for stroke in (left, right))
    level = min(left.start[1], right.start[1])
    if longest > 0.3 or abs(left.start[1] - right.start[1]) > 0.12 or not high[1] - 0.03 < level < low[1] - 0.05:
        return None
    out = New([right.start, between(right.start, right.end, 0.7)])
    wave = [left.start, left.end, between(left.end, right.start), right.end]
    return 3, [
        (0.22, [New(knots(shaft), 2), New(knots(left)), New(knots(right))]),
        (0.18, [New(body(shaft)), New(knots(left), 2), New(knots(right))]),
        (0.14, [New(knots(shaft), 2), New(knots(left), 2), New(knots(right))]),
        (0.12, [New(body(shaft)), New([left.start, between(left.start, left.end, 0.6)]), out]),
        (0.08, [New(body(shaft)), New(wave)]),
    ]


def knife(strokes: Sequence[Stroke], first: int) -> Found | None:
    """刂: a short upright, then a long hooked one: the first as a dot, joined to the second, or the hook lost."""
    run = strokes[first : first + 2]
    if len(run) < 2 or run[0].kind not in (SHU, DOT) or run[0].hooked or not _hooked_upright(run[1]):
        return None
    left, right = run
    if not 65 < left.direction(0) < 115 or not 0.06 < right.start[0] - left.start[0] < 0.35:
        return None
    if left.start[1] < right.start[1] - 0.05 or left.end[1] > right.body_end[1] or right.start[0] < 0.55:
        return None
    dot = [between(left.start, left.end, 0.1), between(left.start, left.end, 0.55)]
    return 2, [
        (0.26, [New(knots(left), 2), New(knots(right))]),
        (0.18, [New(dot), New(knots(right))]),
        (0.14, [New(dot, 2), New(knots(right))]),
        (0.14, [New(knots(left)), New(body(right))]),
    ]


def mountain(strokes: Sequence[Stroke], first: int) -> Found | None:
    """山: an upright, a bend around its foot, a short one at the right: the bend runs up into the last, or a wave."""
    run = strokes[first : first + 3]
    if len(run) < 3 or run[0].kind != SHU or run[0].hooked or run[1].pieces != 2 or run[2].kind not in (SHU, DOT, PIE):
        return None
    shaft, bend, right = run
    if not 65 < bend.direction(0) < 115 or not -40 < bend.direction(1) < 15 or not 65 < right.direction(0) < 120:
        return None
    if not bend.start[0] < shaft.start[0] < right.start[0] or shaft.start[1] > right.start[1] + 0.03:
        return None
    corner = bend.at(1)
    if abs(shaft.end[1] - corner[1]) > 0.12 or right.start[0] - bend.end[0] > 0.12:
        return None
    foot = between(shaft.end, corner, 0.3)
    return 3, [
        (0.2, [New(knots(shaft)), New(knots(bend), 2), New(knots(right))]),
        (0.16, [New(knots(shaft)), New([bend.start, corner, right.end, right.start])]),
        (0.14, [New(knots(shaft), 2), New(knots(bend), 2), New(knots(right))]),
        (0.14, [New(knots(shaft)), New([bend.start, corner, between(corner, right.end, 0.9), right.start, right.end])]),
        (0.1, [New([bend.start, corner, foot, shaft.start, shaft.end, right.end, right.start])]),
    ]


def person(strokes: Sequence[Stroke], first: int) -> Found | None:
    """亻: falling left, then an upright from it: joined, in one line, or the first cut short to a dot."""
    run = strokes[first : first + 2]
    if len(run) < 2 or run[0].kind != PIE or run[1].kind != SHU or run[1].hooked or run[1].pieces != 1:
        return None
    fall, shaft = run
    along = (shaft.start[1] - fall.start[1]) / max(0.05, fall.end[1] - fall.start[1])
    on = between(fall.start, fall.end, along)
    if not 0.25 < along < 1.05 or abs(on[0] - shaft.start[0]) > 0.09 or shaft.end[1] < fall.end[1] + 0.12:
        return None
    if not 100 < fall.direction(0) < 145 or not 75 < shaft.direction(0) < 105:
        return None
    return 2, [
        (0.26, [New(knots(fall), 2), New(knots(shaft))]),
        (0.2, [New([fall.start, between(fall.start, fall.end, 0.85), moved(shaft.start, 0, 0.03), shaft.end])]),
        (0.16, [New([fall.start, moved(on, 0, 0.02), shaft.end])]),
        (0.1, [New([between(fall.start, fall.end, 0.15), between(fall.start, fall.end, 0.65)]), New(knots(shaft))]),
    ]


def cart(strokes: Sequence[Stroke], first: int) -> Found | None:
    """车: a level stroke, a bend below it, a level stroke and an upright in either order: two or all joined."""
    run = strokes[first : first + 4]
    if len(run) < 4 or run[0].kind != HENG or run[0].hooked or run[1].pieces != 2 or run[1].hooked:
        return None
    top, bend, *rest = run
    if not 85 < bend.direction(0) < 140 or not -30 < bend.direction(1) < 15 or bend.start[1] > top.end[1] + 0.15:
        return None
    if not top.start[0] < bend.start[0] < top.end[0] + 0.05 or bend.end[1] < top.line[:, 1].max() + 0.05:
        return None
    if {rest[0].kind, rest[1].kind} not in ({HENG, SHU}, {TI, SHU}) or any(stroke.hooked for stroke in rest):
        return None
    last = [New(knots(rest[0])), New(knots(rest[1]))]
    tied = [New(knots(rest[0]), 2), New(knots(rest[1]))]
    slant = [top.start, top.end, bend.at(1), bend.end]
    return 4, [
        (0.18, [New(knots(top), 2), New(knots(bend)), *last]),
        (0.16, [New(knots(top)), New(knots(bend), 2), *last]),
        (0.14, [New(knots(top)), New(knots(bend), 2), *tied]),
        (0.1, [New(knots(top), 2), New(knots(bend), 2), *tied]),
        (0.14, [New(slant), *tied]),
        (0.08, [New(slant, 2), *tied]),
    ]
