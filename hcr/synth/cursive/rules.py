"""The components that have running forms: how each is found, and how a fast writer writes it.

A rule looks at the strokes from one on. It returns how many of them are the component, and its alternatives: the share
of each among the writers who like running forms, and its lines. Geometry decides, not a dictionary of radicals, so that
a box is a box in 口, 日, 只 and 高 alike. What a rule takes wrongly for a component is drawn as that would be, legibly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hcr.synth.cursive.dots import dots_in_row, heart, legs, lid, pair_of_dots, roof, speech, water
from hcr.synth.cursive.falling import again, beast, robe, strike, woman
from hcr.synth.cursive.lines import Found, New, Rule, between, body, knots, moved
from hcr.synth.cursive.uprights import (
    base,
    cart,
    ear,
    foot,
    frame,
    inch,
    knife,
    levels,
    mountain,
    person,
    side_tree,
    small,
    step,
    tick,
)
from hcr.synth.skeleton import BENT, DOT, HENG, NA, PIE, SHU, Stroke


def box(strokes: Sequence[Stroke], first: int) -> Found | None:
    """口 日 目 田 and the like: the left side, then a top that bends into the right side, then what closes it below."""
    if first + 2 >= len(strokes):
        return None
    left, bend = strokes[first : first + 2]
    if left.kind not in (SHU, PIE, DOT) or left.direction(0) > 125 or bend.pieces - bend.hooked != 2:
        return None
    if abs(bend.direction(0)) > 30 or not 60 < bend.direction(1) < 140:
        return None
    top_left, top_right, low_right, low_left = bend.start, bend.at(1), bend.body_end, left.end
    size = float(max(top_right[0] - top_left[0], low_left[1] - left.start[1]))
    if np.hypot(*(left.start - top_left)) > 0.35 * size:
        return None
    for inner in range(4):
        at = first + 2 + inner
        if at >= len(strokes):
            return None
        close = strokes[at]
        near = np.hypot(*(close.start - low_left)) < 0.32 * size and close.end[0] > low_right[0] - 0.35 * size
        if close.kind == HENG and near and abs(close.end[1] - low_right[1]) < 0.35 * size:
            break
        low, high = np.minimum(left.start, low_left), np.maximum(top_right, low_right)
        if (close.line < low - 0.08).any() or (close.line > high + 0.08).any():
            return None
    else:
        return None
    within = list(strokes[first + 2 : at])
    side, corner = New(knots(left)), body(bend)
    round_bottom = [top_left, top_right, low_right, low_left]
    loop = [top_left, low_left, between(low_left, low_right), low_right, top_right, top_left]
    swept = [top_left, top_right, low_left, low_right]
    if not within:
        return 3, [
            (0.26, [side, New(round_bottom)]),
            (0.16, [New(knots(left), 2), New(round_bottom)]),
            (0.12, [New(loop)]),
            (0.05, [New([low_left, *round_bottom])]),
            (0.1, [side, New(swept)]),
            (0.1, [New(knots(left), 0.5), New(corner, 2), New(knots(close))]),
        ]
    level = all(stroke.kind in (HENG, DOT) for stroke in within)
    dash = [New([between(s.start, s.end, 0.2), between(s.start, s.end, 0.75)], 2) for s in within]
    zigzag = [New(knots(s), 2) for s in within]
    closing = New(knots(close))
    alternatives = [
        (0.22, [side, New(corner, 0.3), *zigzag, closing]),
        (0.16, [side, New(round_bottom, 0.3), *zigzag[:-1], New(knots(within[-1]))]),
        (0.08, [New(knots(left), 2), New(corner, 2), *zigzag, closing]),
    ]
    if level:
        middle = [between(s.start, s.end) for s in within]
        alternatives += [
            (0.1, [side, New(corner), *dash, closing]),
            (0.06, [New(loop), *dash[:-1], New(dash[-1].knots)]),
        ]
        if len(within) > 1:
            ends = [between(top_left, middle[0], 0.5) * [0, 1] + middle[0] * [1, 0], middle[-1]]
            alternatives.append((0.08, [side, New(corner), New(ends), closing]))
    return len(within) + 3, alternatives


def walk(strokes: Sequence[Stroke], first: int) -> Found | None:
    """辶 and 廴: a bent stroke at the left, then a long sweep below everything."""
    if first + 2 != len(strokes):
        return None
    bent, sweep = strokes[first:]
    across = sweep.end - sweep.start
    if bent.kind != BENT or bent.hooked or across[0] < 0.55 or sweep.kind not in (HENG, NA, BENT):
        return None
    if bent.end[0] > 0.45 or sweep.start[0] > 0.3 or abs(bent.direction(0)) > 30:
        return None
    if sweep.start[1] < bent.start[1] + 0.13:  # as in 又
        return None
    wave = knots(sweep)
    upright = [between(bent.start, bent.at(1), 0.6), bent.end]
    flat = [sweep.start, moved(between(sweep.start, sweep.end), 0, 0.02), sweep.end]
    return 2, [
        (0.2, [New(knots(bent), 2), New(wave)]),
        (0.2, [New(upright, 2), New(wave)]),
        (0.14, [New(upright), New(flat)]),
        (0.14, [New([upright[0], bent.end, sweep.end])]),
        (0.08, [New([bent.start, bent.at(1), bent.end, sweep.end])]),
        (0.08, [New(knots(bent)), New(flat)]),
    ]


def grass(strokes: Sequence[Stroke], first: int) -> Found | None:
    """艹 and its like: a level stroke and two short uprights through it."""
    run = strokes[first : first + 3]
    if len(run) < 3 or run[0].kind != HENG or any(s.kind not in (SHU, DOT, PIE, NA) for s in run[1:]):
        return None
    level, left, right = run
    for upright in (left, right):
        along = (upright.start[0] - level.start[0]) / max(0.05, level.end[0] - level.start[0])
        high = upright.end[1] - upright.start[1]
        crosses = upright.start[1] - 0.03 < level.line[:, 1].mean() < upright.end[1] + 0.03
        if not 0.08 < along < 0.95 or not 0.08 < high < 0.32 or not crosses:
            return None
    if right.start[0] - left.start[0] < 0.12:
        return None
    half = between(level.start, level.end)
    above = (level.start + level.end) * [0, 0.5]
    return 3, [
        (0.2, [New(knots(left)), New(knots(right), 0.3), New(knots(level))]),
        (0.16, [New(knots(level), 2), New(knots(left), 2), New(knots(right))]),
        (
            0.14,
            [
                New([level.start, between(half, level.start, 0.15)], 0.5),
                New(knots(left), 0.6),
                New([between(half, level.end, 0.15), level.end], 0.5),
                New(knots(right)),
            ],
        ),
        (
            0.14,
            [
                New([left.start, moved(between(left.start, left.end), 0.02, 0)], 0.5),
                New([right.start, moved(between(right.start, right.end), -0.03, 0)], 0.7),
                New([moved(level.start, 0, 0.02), above + half * [1, 0], moved(level.end, 0, 0.02)]),
            ],
        ),
        (0.1, [New(knots(left), 2), New(knots(level), 2), New(knots(right))]),
    ]


def bamboo(strokes: Sequence[Stroke], first: int) -> Found | None:
    """Half of ⺮: falling left, level, dot, all short."""
    run = strokes[first : first + 3]
    if len(run) < 3 or [s.kind for s in run] not in ([PIE, HENG, DOT], [DOT, HENG, DOT]) or run[1].hooked:
        return None
    fall, level, dot = run
    if fall.start[1] > 0.3 or fall.direction(0) < 100 or np.hypot(*(dot.end - fall.start)) > 0.35:
        return None
    return 3, [
        (0.28, [New(knots(fall), 0.5), New([level.start, between(level.start, level.end, 0.7), dot.end])]),
        (0.2, [New(knots(fall), 0.5), New([level.start, dot.end])]),
        (0.14, [New(knots(fall), 2), New([level.start, level.end])]),
        (0.1, [New(knots(fall), 2), New(knots(level), 2), New(knots(dot))]),
    ]


def thread(strokes: Sequence[Stroke], first: int) -> Found | None:
    """纟 and 幺: falling left and back, twice."""
    if first + 1 >= len(strokes):
        return None
    run = strokes[first : first + 2]
    for stroke in run:
        if stroke.pieces != 2 or not 100 < stroke.direction(0) < 160 or not -70 < stroke.direction(1) < 30:
            return None
    one, two = run
    return 2, [
        (0.3, [New(knots(one), 2), New(knots(two), 0.5)]),
        (0.14, [New([one.start, one.at(1), two.start, two.at(1), two.end])]),
        (0.12, [New([one.start, between(one.at(1), two.at(1), 0.4), two.at(1), two.end])]),
    ]


RULES: tuple[Rule, ...] = (
    box,
    water,
    dots_in_row,
    walk,
    speech,
    grass,
    bamboo,
    roof,
    thread,
    heart,
    ear,
    frame,
    levels,
    foot,
    tick,
    side_tree,
    pair_of_dots,
    legs,
    lid,
    step,
    base,
    again,
    strike,
    woman,
    beast,
    robe,
    inch,
    small,
    knife,
    mountain,
    person,
    cart,
)
