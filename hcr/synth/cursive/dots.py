"""Running forms of components made of dots and other short strokes.

What a rule is stands in `rules.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hcr.synth.cursive.lines import Found, New, between, body, knots, moved
from hcr.synth.skeleton import DOT, HENG, NA, PIE, SHU, TI, Stroke


def water(strokes: Sequence[Stroke], first: int) -> Found | None:
    """氵 and 冫: dots above a rising tick."""
    for count in (3, 2):
        run = strokes[first : first + count]
        if len(run) < count or run[-1].kind != TI or any(s.kind != DOT or s.direction(0) > 100 for s in run[:-1]):
            continue
        *dots, tick = run
        if dots[-1].start[1] > tick.start[1] or abs(dots[-1].start[0] - tick.start[0]) > 0.3:
            continue
        foot = tick.start
        falls = [*(knots(dots[-1])[:1]), between(dots[-1].end, foot, 0.4), foot, tick.end]
        if count == 2:
            return 2, [(0.3, [New(knots(dots[0]), 2), New(knots(tick))]), (0.25, [New(falls)])]
        head = knots(dots[0])
        return 3, [
            (0.3, [New(head), New(falls)]),
            (0.16, [New(head, 2), New(falls)]),
            (0.14, [New([head[0], between(head[0], foot, 0.5), foot, tick.end])]),
            (0.12, [New(head), New(knots(dots[1]), 2), New(knots(tick))]),
            (0.1, [New(head, 2), New(knots(dots[1]), 2), New(knots(tick))]),
        ]
    return None


def dots_in_row(strokes: Sequence[Stroke], first: int) -> Found | None:
    """灬 and other rows of short strokes: a line, a wave, a dot and a line."""
    run = [strokes[first]]
    for stroke in strokes[first + 1 : first + 4]:
        step = stroke.start - run[-1].start
        if not 0.06 < step[0] < 0.4 or abs(step[1]) > 0.1:
            break
        run.append(stroke)
    short = [s for s in run if np.hypot(*(s.end - s.start)) < 0.3 and s.kind in (DOT, SHU, NA, PIE)]
    if len(run) < 3 or len(short) < len(run):
        return None
    middle = [between(s.start, s.end) for s in run]
    wave = [point for s in run for point in (s.start, s.end)]
    if len(run) == 3:
        return 3, [(0.3, [New(knots(s), 2) for s in run[:2]] + [New(knots(run[2]))]), (0.12, [New(wave)])]
    return len(run), [
        (0.24, [New([middle[0], *[between(s.start, s.end, 0.6) for s in run[1:]]])]),
        (0.16, [New(wave)]),
        (0.14, [New(knots(run[0])), New([*middle[1:-1], run[-1].end])]),
        (0.12, [New(knots(run[0])), *[New(knots(s), 2) for s in run[1:-1]], New(knots(run[-1]))]),
        (0.08, [New(knots(run[0])), New([middle[1], middle[2]]), New(knots(run[-1]))]),
    ]


def pair_of_dots(strokes: Sequence[Stroke], first: int) -> Found | None:
    """Two dots side by side or one above the other, as in 羊, 心, 母, 忄: joined, or one short line."""
    if first + 1 >= len(strokes):
        return None
    one, two = strokes[first : first + 2]
    if one.kind != DOT or two.kind != DOT or is_roof(strokes, first + 1):
        return None
    step = two.start - one.start
    if not 0.08 < np.hypot(*step) < 0.4:
        return None
    return 2, [
        (0.4, [New(knots(one), 2), New(knots(two))]),
        (0.12, [New([between(one.start, one.end, 0.4), between(two.start, two.end, 0.6)])]),
        (0.08, [New([one.start, one.end, two.end])]),
    ]


def speech(strokes: Sequence[Stroke], first: int) -> Found | None:
    """讠: a dot, then a short level stroke that falls and ticks."""
    if first + 1 >= len(strokes):
        return None
    dot, bent = strokes[first : first + 2]
    if dot.kind != DOT or bent.pieces != 3 or not -75 < bent.direction(2) < -15 or not 70 < bent.direction(1) < 115:
        return None
    if abs(bent.direction(0)) > 30 or bent.start[0] > 0.35:
        return None
    head, foot = bent.at(1), bent.at(2)
    upright = [head, foot, bent.end]
    return 2, [
        (0.24, [New(knots(dot)), New(upright)]),
        (0.18, [New(knots(dot), 2), New(upright)]),
        (0.16, [New(knots(dot), 2), New(knots(bent))]),
        (0.14, [New([dot.start, between(dot.end, head), foot, bent.end])]),
        (0.08, [New(knots(dot)), New([between(bent.start, head, 0.6), foot, bent.end])]),
    ]


def heart(strokes: Sequence[Stroke], first: int) -> Found | None:
    """心: a dot, a hollow stroke with a hook that turns back, two dots: the last two joined, the hook cut short."""
    run = strokes[first : first + 4]
    if len(run) < 4 or run[0].kind not in (DOT, PIE) or run[2].kind != DOT or run[3].kind not in (DOT, NA):
        return None
    dot, hollow, inner, outer = run
    if not hollow.hooked or not 5 < hollow.direction(0) < 65 or not -170 < hollow.direction(1) < -80:
        return None
    if dot.start[0] > hollow.start[0] or outer.start[0] < inner.start[0] + 0.1:
        return None
    line = New([inner.start, between(inner.end, outer.start), outer.end])
    bow = New(body(hollow))
    return 4, [
        (0.24, [New(knots(dot)), New(knots(hollow)), New(knots(inner), 2), New(knots(outer))]),
        (0.2, [New(knots(dot)), bow, line]),
        (0.14, [New(knots(dot), 2), New(body(hollow), 2), line]),
        (0.1, [New(knots(dot)), New(body(hollow), 2), New([inner.start, outer.end])]),
    ]


def legs(strokes: Sequence[Stroke], first: int) -> Found | None:
    """The sides of 木, 禾, 米 and the feet of 只, 贝: falling left, then right, the second cut short or turned back."""
    if first + 1 >= len(strokes):
        return None
    left, right = strokes[first : first + 2]
    if left.kind not in (PIE, DOT) or left.direction(0) < 105 or right.kind not in (NA, DOT):
        return None
    if left.kind == DOT and right.kind == DOT and left.start[1] < 0.4:
        return None
    gap = right.start - left.start
    foot = right.kind == DOT and right.start[1] > 0.5  # as in 贝
    if not -0.05 < gap[0] < 0.45 or abs(gap[1]) > (0.36 if foot else 0.2) or left.end[0] > right.end[0]:
        return None
    short = [right.start, between(right.start, right.end, 0.55)]
    return 2, [
        (0.25, [New(knots(left), 2), New(knots(right))]),
        (0.2, [New(knots(left)), New(short)]),
        (0.15, [New(knots(left), 2), New(short)]),
        (0.08, [New([left.start, left.end, between(right.start, right.end, 0.3)])]),
    ]


def is_roof(strokes: Sequence[Stroke], first: int) -> bool:
    """Say whether 宀 or 冖 begins here: a short left side, then a level stroke with a hook from its head."""
    if first + 1 >= len(strokes):
        return False
    left, top = strokes[first : first + 2]
    hooked = top.pieces == 2 and abs(top.direction(0)) < 28 and top.direction(1) > 100
    if left.kind not in (DOT, PIE, SHU) or not hooked or not 70 < left.direction(0) < 150:
        return False
    return bool(np.hypot(*(left.start - top.start)) <= 0.15 and np.hypot(*(left.end - left.start)) <= 0.25)


def roof(strokes: Sequence[Stroke], first: int) -> Found | None:
    """宀 and 冖: joined, or in one line from the foot of the left side."""
    if not is_roof(strokes, first):
        return None
    left, top = strokes[first : first + 2]
    head = between(left.start, top.start)
    return 2, [
        (0.4, [New(knots(left), 2), New(knots(top))]),
        (0.16, [New([left.end, head, *knots(top)[1:]])]),
        (0.12, [New(knots(left)), New(body(top))]),
        (0.1, [New([head, *knots(top)[1:]])]),
        (0.08, [New([left.start, moved(left.end, -0.02, 0.16)]), New(body(top))]),
    ]


def lid(strokes: Sequence[Stroke], first: int) -> Found | None:
    """亠 and the dot of 宀, 广, 主, above a level stroke: an upright onto it or through it, a dash, or joined to it."""
    if first + 1 >= len(strokes) or strokes[first].kind != DOT:
        return None
    dot, level = strokes[first : first + 2]
    roofed = is_roof(strokes, first + 1)
    if roofed:
        level = strokes[first + 2]
    elif level.kind != HENG or level.hooked:
        return None
    begin, end = level.start, level.at(1)
    along = (dot.end[0] - begin[0]) / max(0.05, end[0] - begin[0])
    on = between(begin, end, along)
    if not 0.15 < along < 0.85 or not -0.03 < on[1] - dot.end[1] < 0.16 or np.hypot(*(dot.end - dot.start)) > 0.24:
        return None
    top = np.array([between(dot.start, dot.end)[0], dot.start[1]])
    upright, through = [top, moved(on, 0, 0.01)], [top, moved(on, 0, 0.07)]
    if not roofed:
        dash = [moved(between(top, on, 0.5), -0.09, 0.01), moved(between(top, on, 0.5), 0.09, -0.01)]
        line = New(knots(level))
        return 2, [
            (0.2, [New(upright), line]),
            (0.16, [New(through), line]),
            (0.14, [New(knots(dot), 2), line]),
            (0.1, [New(upright, 2), line]),
            (0.1, [New(dash, 0.5), line]),
        ]
    left = strokes[first + 1]
    head, foot = between(left.start, level.start), moved(left.end, -0.02, 0.16)
    cover = [head, *knots(level)[1:]]
    over = [left.end, head, *knots(level)[1:]]
    return 3, [
        (0.14, [New(knots(dot)), New(knots(left), 2), New(knots(level))]),
        (0.08, [New(upright), New(knots(left), 2), New(knots(level))]),
        (0.08, [New(knots(dot)), New(over)]),
        (0.06, [New(upright), New(over)]),
        (0.06, [New(knots(dot)), New([left.start, foot]), New(body(level))]),
        (0.06, [New(upright), New([left.start, foot], 1), New(knots(level))]),
        (0.06, [New(knots(dot), 2), New(knots(left), 2), New(knots(level))]),
        (0.06, [New(knots(dot)), New(knots(left)), New(body(level))]),
        (0.06, [New(knots(dot), 2), New(cover)]),
        (0.05, [New([dot.start, head, foot]), New(cover)]),
        (0.05, [New(through), New(cover)]),
    ]
