"""Running forms of components with strokes that fall left and right across each other.

What a rule is stands in `rules.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hcr.synth.cursive.lines import Found, New, between, body, knots, moved
from hcr.synth.skeleton import BENT, DOT, HENG, NA, PIE, SHU, TI, Stroke


def _falls(stroke: Stroke) -> bool:
    """Say whether a stroke goes level, then falls left, as the first of 又."""
    return stroke.pieces == 2 and abs(stroke.direction(0)) < 30 and 105 < stroke.direction(1) < 155


def _sweeps(stroke: Stroke) -> bool:
    return stroke.kind in (NA, HENG, DOT) and not stroke.hooked and 15 < stroke.direction(0) < 65


def again(strokes: Sequence[Stroke], first: int) -> Found | None:
    """又 and 夂: level and falling left, then a sweep from near its head: in one line, a loop or a turn between."""
    run = strokes[first : first + 2]
    if len(run) < 2 or not _falls(run[0]) or not _sweeps(run[1]):
        return None
    bent, sweep = run
    shoulder, low = bent.at(1), bent.end
    size = float(low[1] - bent.start[1])
    if size < 0.12 or not bent.start[1] - 0.05 < sweep.start[1] < between(shoulder, low, 0.75)[1]:
        return None
    if not -0.6 * size < sweep.start[0] - bent.start[0] < 0.6 * size or sweep.end[0] < low[0] + 0.5 * size:
        return None
    short = [sweep.start, between(sweep.start, sweep.end, 0.6)]
    loop = [bent.start, shoulder, low, moved(sweep.start, -0.02, 0), sweep.end]
    return 2, [
        (0.28, [New(knots(bent), 2), New(knots(sweep))]),
        (0.14, [New(knots(bent)), New(short)]),
        (0.12, [New(knots(bent), 2), New(short)]),
        (0.14, [New(loop)]),
        (0.1, [New([bent.start, shoulder, low, between(low, sweep.start, 0.3), sweep.end])]),
    ]


def strike(strokes: Sequence[Stroke], first: int) -> Found | None:
    """攵: falling left, level, falling left, sweep: the second and third in one bend, all but the first joined."""
    run = strokes[first : first + 4]
    if len(run) < 4 or [s.kind for s in run[:3]] != [PIE, HENG, PIE] or not _sweeps(run[3]):
        return None
    head, level, fall, sweep = run
    if level.hooked:  # as in 欠
        return None
    if np.hypot(*(level.start - between(head.start, head.end, 0.7))) > 0.18 or fall.end[0] > sweep.end[0] - 0.1:
        return None
    if not level.start[0] < fall.start[0] < level.end[0] + 0.05 or abs(fall.start[1] - level.end[1]) > 0.15:
        return None
    bend = [level.start, between(level.end, fall.start, 0.3), fall.end]
    short = [sweep.start, between(sweep.start, sweep.end, 0.6)]
    return 4, [
        (0.2, [New(knots(head), 2), New(knots(level)), New(knots(fall), 2), New(knots(sweep))]),
        (0.2, [New(knots(head)), New(bend, 2), New(knots(sweep))]),
        (0.16, [New([head.start, between(head.start, head.end, 0.8), *bend[1:]], 2), New(knots(sweep))]),
        (0.12, [New(knots(head), 2), New(bend), New(short)]),
        (0.08, [New([head.start, head.end, *bend[1:]]), New(knots(sweep))]),
    ]


def woman(strokes: Sequence[Stroke], first: int) -> Found | None:
    """女: a bend to the right, falling left across it, level across both: joined, the last from the second's end."""
    run = strokes[first : first + 3]
    if len(run) < 3 or run[0].pieces != 2 or run[1].kind != PIE or run[2].kind not in (HENG, TI) or run[2].hooked:
        return None
    bend, fall, level = run
    if not 90 < bend.direction(0) < 130 or not 15 < bend.direction(1) < 65:
        return None
    if not level.start[0] < bend.start[0] < level.end[0] + 0.05 or fall.end[0] > bend.end[0]:
        return None
    high = level.line[:, 1].mean()
    if not bend.start[1] < high < bend.end[1] or not fall.start[1] - 0.15 < high < fall.end[1]:
        return None
    turn = [fall.start, fall.end, moved(between(fall.end, level.start), -0.02, 0), level.end]
    return 3, [
        (0.24, [New(knots(bend)), New(knots(fall), 2), New(knots(level))]),
        (0.16, [New(knots(bend), 2), New(knots(fall)), New(knots(level))]),
        (0.16, [New(knots(bend), 2), New(knots(fall), 2), New(knots(level))]),
        (0.12, [New(knots(bend)), New(turn)]),
        (0.08, [New([bend.start, bend.at(1), between(bend.at(1), bend.end, 0.6)], 1), New(turn)]),
    ]


def beast(strokes: Sequence[Stroke], first: int) -> Found | None:
    """犭: falling left, a bow with a hook, falling left from it: joined from above, or the first two in one line."""
    run = strokes[first : first + 3]
    if len(run) < 3 or run[0].kind != PIE or run[2].kind != PIE or not run[1].hooked or run[1].pieces != 2:
        return None
    upper, bow, lower = run
    if not 55 < bow.direction(0) < 115 or not upper.line[:, 0].min() < bow.start[0] < upper.start[0]:
        return None
    low = bow.body_end
    if abs(upper.end[0] - lower.end[0]) > 0.2 or not bow.start[1] < lower.start[1] < low[1] or upper.start[0] > 0.6:
        return None
    return 3, [
        (0.24, [New(knots(upper), 2), New(body(bow)), New(knots(lower))]),
        (0.18, [New(knots(upper), 2), New(knots(bow), 2), New(knots(lower))]),
        (0.16, [New(knots(upper)), New(body(bow)), New(knots(lower))]),
        (0.12, [New([upper.start, upper.end, between(bow.start, low, 0.35), low]), New(knots(lower))]),
    ]


def robe(strokes: Sequence[Stroke], first: int) -> Found | None:
    """礻 and 衤: a dot, level and falling left, an upright, one dot or two: joined to the upright, one dot left."""
    run = strokes[first : first + 5]
    if len(run) < 4 or run[0].kind != DOT or not _falls(run[1]) or run[2].kind not in (SHU, BENT) or run[2].hooked:
        return None
    dot, bent, upright = run[:3]
    if dot.start[1] > bent.start[1] or bent.start[0] > 0.3 or not bent.end[0] < upright.start[0] < bent.at(1)[0] + 0.05:
        return None
    if run[3].kind not in (DOT, NA) or run[3].start[0] < upright.start[0] - 0.02:
        return None
    small = list(run[3 : 5 if len(run) > 4 and run[3].direction(0) > 100 and run[4].kind in (DOT, NA) else 4])
    last = [New(knots(small[-1]))] if len(small) == 1 else [New(knots(small[0]), 2), New(knots(small[1]))]
    one = [New([small[0].start, small[-1].end])]
    descent = [bent.start, bent.at(1), between(bent.at(1), bent.end, 0.85), moved(upright.start, 0, 0.03), upright.end]
    return 3 + len(small), [
        (0.2, [New(knots(dot), 2), New(knots(bent)), New(knots(upright)), *last]),
        (0.2, [New(knots(dot)), New(knots(bent), 2), New(knots(upright), 0.6), *last]),
        (0.16, [New(knots(dot)), New(descent), *one]),
        (0.12, [New(knots(dot), 2), New(descent, 2), *one]),
        (0.08, [New(knots(dot)), New(knots(bent)), New(knots(upright), 2), *one]),
    ]
