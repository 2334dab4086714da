"""Running forms of components around an upright: frames, the left sides of many characters, and stacked levels.

What a rule is stands in `rules.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hcr.synth.cursive.lines import Found, New, between, body, knots, moved
from hcr.synth.skeleton import DOT, HENG, NA, PIE, SHU, TI, Stroke


def ear(strokes: Sequence[Stroke], first: int) -> Found | None:
    """阝 and 卩 with its bow: a bow of two bends and a long upright from its head: joined, or the upright first."""
    if first + 1 >= len(strokes):
        return None
    bow, upright = strokes[first : first + 2]
    if not bow.hooked or bow.pieces < 3 or abs(bow.direction(0)) > 35 or not 75 < bow.direction(1) < 150:
        return None
    head, shoulder, low = upright.start, bow.at(1), bow.body_end
    if upright.kind != SHU or upright.hooked or upright.end[1] < low[1] + 0.1:
        return None
    if np.hypot(*(head - bow.start)) > 0.13 or head[1] > bow.start[1] + 0.08:  # 子's upright begins at the bow's end
        return None
    waist = bow.at(2) if bow.pieces > 3 else between(between(head, low), shoulder, 0.3)
    foot = between(low, moved(bow.end, 0, 0.02), 0.7)
    side = New(knots(upright))
    return 2, [
        (0.22, [New([bow.start, shoulder, waist, low, foot]), side]),
        (0.16, [New([bow.start, shoulder, waist, low, foot], 2), side]),
        (0.2, [side, New([head, shoulder, waist, low, foot])]),
        (0.08, [side, New([head, shoulder, between(shoulder, low, 0.6), foot * [0, 1] + head * [1, 0]])]),
    ]


def frame(strokes: Sequence[Stroke], first: int) -> Found | None:
    """门 月 贝 同 and the like: a left side, then a top that bends into the right side, open below."""
    if first + 1 >= len(strokes):
        return None
    left, bend = strokes[first : first + 2]
    if left.kind not in (SHU, PIE) or not 65 < left.direction(0) < 125 or bend.pieces - bend.hooked != 2:
        return None
    if abs(bend.direction(0)) > 28 or not 70 < bend.direction(1) < 120:
        return None
    shoulder, low = bend.at(1), bend.body_end
    if low[1] - shoulder[1] < 0.2 or left.end[1] - left.start[1] < 0.2 or abs(left.start[1] - bend.start[1]) > 0.15:
        return None
    if not -0.06 < bend.start[0] - left.start[0] < 0.4 or shoulder[0] - left.start[0] < 0.12:
        return None
    head = between(left.start, bend.start)
    side = New(knots(left))
    round_side = [bend.start, between(bend.start, shoulder, 0.7), between(shoulder, low, 0.3), low]
    return 2, [
        (0.24, [New(knots(left), 2), New(knots(bend))]),
        (0.16, [side, New(body(bend))]),
        (0.16, [side, New(round_side)]),
        (0.12, [New([left.end, head, shoulder, low])]),
        (0.08, [New(knots(left), 2), New(round_side)]),
    ]


def levels(strokes: Sequence[Stroke], first: int) -> Found | None:
    """Two or three short level strokes one below the other, as in 月, 言, 钅: a zigzag, dashes, or one left out."""
    run: list[Stroke] = []
    for stroke in strokes[first : first + 3]:
        across, down = stroke.end - stroke.start
        if stroke.kind != HENG or stroke.hooked or across > 0.45 or abs(down) > 0.4 * across:
            break
        if run:
            step = between(stroke.start, stroke.end) - between(run[-1].start, run[-1].end)
            if abs(step[0]) > 0.1 or not 0.05 < step[1] < 0.25:
                break
        run.append(stroke)
    if len(run) < 2:
        return None
    tied = [New(knots(s), 2) for s in run[:-1]] + [New(knots(run[-1]))]
    alternatives = [
        (0.3, tied),
        (0.14, [New([between(s.start, s.end, 0.15), between(s.start, s.end, 0.75)], 2) for s in run[:-1]] + tied[-1:]),
        (0.08, [New([run[0].start, run[0].end, between(run[-1].start, run[-1].end, 0.25), run[-1].end])]),
    ]
    if len(run) == 3:
        alternatives.append((0.14, [New(knots(run[0])), *tied[1:]]))
    elif run[0].end[0] - run[0].start[0] < 0.22:
        alternatives.append((0.08, [New([between(s.start, s.end) for s in run])]))
    return len(run), alternatives


def tick(strokes: Sequence[Stroke], first: int) -> Found | None:
    """扌 and the left sides 土 牛 王 子: an upright, then a rising stroke across it: one line."""
    if first + 1 >= len(strokes):
        return None
    upright, rise = strokes[first : first + 2]
    straight = upright.pieces - upright.hooked == 1 and 70 < upright.direction(0) < 115
    if not straight or rise.kind not in (HENG, TI) or rise.hooked or not -60 < rise.direction(0) < -11:
        return None
    foot = upright.body_end
    if not rise.start[0] < foot[0] + 0.03 < rise.end[0] + 0.02 or rise.end[0] - rise.start[0] > 0.48:
        return None
    if rise.start[1] < between(upright.start, foot, 0.4)[1] or rise.start[1] > foot[1] + 0.16:
        return None
    alternatives = [
        (0.3, [New(knots(upright), 2), New(knots(rise))]),
        (0.16, [New([upright.start, foot, rise.start, rise.end])]),
        (0.1, [New(body(upright)), New(knots(rise))]),
    ]
    if (
        first and strokes[first - 1].kind == HENG and not strokes[first - 1].hooked
    ):  # without a level stroke above, 子 would become 阝
        alternatives.append((0.2, [New([upright.start, foot, rise.end])]))
    return 2, alternatives


def side_tree(strokes: Sequence[Stroke], first: int) -> Found | None:
    """The left sides 木 禾 米: an upright, a stroke falling left from it, and a dot at its right."""
    run = strokes[first : first + 3]
    if len(run) < 3 or [s.kind for s in run[1:]] not in ([PIE, DOT], [PIE, NA], [DOT, DOT]):
        return None
    upright, fall, dot = run
    if upright.kind != SHU or upright.hooked or fall.direction(0) < 105 or np.hypot(*(dot.end - dot.start)) > 0.26:
        return None
    if abs(fall.start[0] - dot.start[0]) > 0.15 or not upright.start[1] < fall.start[1] < upright.end[1] - 0.15:
        return None
    if not abs(fall.start[0] - upright.line[:, 0].mean()) < 0.1:
        return None
    stem = New(knots(upright))
    return 3, [
        (0.22, [stem, New(knots(fall), 2), New(knots(dot))]),
        (0.16, [stem, New([fall.start, fall.end, dot.end])]),
        (0.16, [New([upright.start, upright.end, between(fall.start, fall.end, 0.85), dot.end])]),
        (0.14, [New(knots(upright), 2), New(knots(fall)), New([dot.start, between(dot.start, dot.end, 0.7)])]),
    ]


def foot(strokes: Sequence[Stroke], first: int) -> Found | None:
    """What is below in 是 定 走 足: an upright, a short level stroke at its right, falling left, then a long sweep."""
    run = strokes[first : first + 4]
    if len(run) < 4 or run[0].kind != SHU or run[0].hooked or run[1].kind not in (HENG, TI) or run[1].hooked:
        return None
    upright, level, fall, sweep = run
    if fall.kind not in (PIE, SHU, DOT) or fall.direction(0) < 90 or not 8 < sweep.direction(0) < 65:
        return None
    if abs(level.start[0] - upright.line[:, 0].mean()) > 0.1 or level.end[0] - level.start[0] > 0.4:
        return None
    if fall.end[0] > upright.end[0] or sweep.end[0] < upright.end[0] + 0.15 or sweep.end[1] < upright.end[1] - 0.1:
        return None
    side, turn = New(knots(fall), 2), New([upright.start, upright.end, level.end])
    return 4, [
        (0.2, [New(knots(upright), 2), New(knots(level)), side, New(knots(sweep))]),
        (0.2, [turn, side, New(knots(sweep))]),
        (0.16, [New([upright.start, between(upright.start, upright.end, 0.7), fall.end, sweep.end])]),
        (0.12, [turn, New([fall.end, sweep.end])]),
        (0.08, [New(knots(upright)), New(knots(level), 2), side, New(knots(sweep))]),
    ]


def step(strokes: Sequence[Stroke], first: int) -> Found | None:
    """彳: two strokes that fall left, the lower one with an upright from it: joined, or the upright hangs on both."""
    run = strokes[first : first + 3]
    if len(run) < 3 or run[0].kind not in (PIE, DOT) or run[1].kind != PIE or run[2].kind != SHU or run[2].hooked:
        return None
    upper, lower, upright = run
    if upper.direction(0) < 100 or not -0.1 < lower.start[1] - upper.start[1] < 0.35:
        return None
    if (
        abs(lower.start[0] - upper.start[0]) > 0.15
        or not lower.end[0] - 0.03 < upright.start[0] < lower.start[0] + 0.05
    ):
        return None
    hanging = [lower.start, between(lower.start, lower.end, 0.8), upright.start, upright.end]
    return 3, [
        (0.2, [New(knots(upper), 2), New(knots(lower)), New(knots(upright))]),
        (0.2, [New(knots(upper), 2), New(knots(lower), 2), New(knots(upright))]),
        (0.16, [New(knots(upper)), New(hanging)]),
        (0.1, [New(knots(upper), 2), New(hanging)]),
    ]


def base(strokes: Sequence[Stroke], first: int) -> Found | None:
    """土 工 王 止 and the like: an upright, then the level stroke on which it stands: joined, or it turns into it."""
    if first + 1 >= len(strokes):
        return None
    upright, level = strokes[first : first + 2]
    if upright.kind != SHU or upright.hooked or level.kind != HENG or level.hooked:
        return None
    foot = upright.end
    along = (foot[0] - level.start[0]) / max(0.05, level.end[0] - level.start[0])
    if not 0.15 < along < 0.8 or abs(between(level.start, level.end, along)[1] - foot[1]) > 0.08:
        return None
    return 2, [
        (0.3, [New(knots(upright), 2), New(knots(level))]),
        (0.12, [New([upright.start, foot, between(level.start, level.end, 0.1), level.end])]),
        (0.1, [New([upright.start, foot, level.end])]),
    ]


def _hooked_upright(stroke: Stroke) -> bool:
    return stroke.hooked and stroke.pieces == 2 and 70 < stroke.direction(0) < 110


def inch(strokes: Sequence[Stroke], first: int) -> Found | None:
    """寸: a level stroke, a hooked upright through it, a dot at its left: the hook leads to the dot, or is lost."""
    run = strokes[first : first + 3]
    if len(run) < 3 or run[0].kind != HENG or run[0].hooked or not _hooked_upright(run[1]) or run[2].kind != DOT:
        return None
    level, upright, dot = run
    low = upright.body_end
    if dot.direction(0) > 90 or not level.start[0] < dot.start[0] < low[0]:
        return None
    if not level.line[:, 1].mean() < dot.start[1] < low[1]:
        return None
    return 3, [
        (0.26, [New(knots(level)), New(knots(upright), 2), New(knots(dot))]),
        (0.16, [New(knots(level), 2), New(knots(upright)), New(knots(dot))]),
        (0.14, [New(knots(level), 2), New(knots(upright), 2), New(knots(dot))]),
        (0.12, [New(knots(level)), New(body(upright)), New(knots(dot))]),
        (0.08, [New(knots(level)), New([upright.start, low, moved(dot.start, 0, 0.02), dot.end])]),
    ]


def small(strokes: Sequence[Stroke], first: int) -> Found | None:
    """小 in 示 宗 京 and 糸: a hooked upright, a short stroke at each side: the hook leads on, or they are a line."""
    run = strokes[first : first + 3]
    if len(run) < 3 or run[0].kind != SHU or run[1].kind not in (PIE, DOT) or run[2].kind not in (NA, DOT):
        return None
    upright, left, right = run
    low, high = upright.body_end, upright.start
    if not left.line[:, 0].max() < low[0] + 0.02 or not right.line[:, 0].min() > low[0] - 0.02:
        return None
    longest = max(abs(stroke.end - stroke.start).max() for stroke in (left, right))
    level = min(left.start[1], right.start[1])
    if longest > 0.3 or abs(left.start[1] - right.start[1]) > 0.12 or not high[1] - 0.03 < level < low[1] - 0.05:
        return None
    out = New([right.start, between(right.start, right.end, 0.7)])
    wave = [left.start, left.end, between(left.end, right.start), right.end]
    return 3, [
        (0.22, [New(knots(upright), 2), New(knots(left)), New(knots(right))]),
        (0.18, [New(body(upright)), New(knots(left), 2), New(knots(right))]),
        (0.14, [New(knots(upright), 2), New(knots(left), 2), New(knots(right))]),
        (0.12, [New(body(upright)), New([left.start, between(left.start, left.end, 0.6)]), out]),
        (0.08, [New(body(upright)), New(wave)]),
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
    upright, bend, right = run
    if not 65 < bend.direction(0) < 115 or not -40 < bend.direction(1) < 15 or not 65 < right.direction(0) < 120:
        return None
    if not bend.start[0] < upright.start[0] < right.start[0] or upright.start[1] > right.start[1] + 0.03:
        return None
    corner = bend.at(1)
    if abs(upright.end[1] - corner[1]) > 0.12 or right.start[0] - bend.end[0] > 0.12:
        return None
    foot = between(upright.end, corner, 0.3)
    return 3, [
        (0.2, [New(knots(upright)), New(knots(bend), 2), New(knots(right))]),
        (0.16, [New(knots(upright)), New([bend.start, corner, right.end, right.start])]),
        (0.14, [New(knots(upright), 2), New(knots(bend), 2), New(knots(right))]),
        (
            0.14,
            [New(knots(upright)), New([bend.start, corner, between(corner, right.end, 0.9), right.start, right.end])],
        ),
        (0.1, [New([bend.start, corner, foot, upright.start, upright.end, right.end, right.start])]),
    ]


def person(strokes: Sequence[Stroke], first: int) -> Found | None:
    """亻: falling left, then an upright from it: joined, in one line, or the first cut short to a dot."""
    run = strokes[first : first + 2]
    if len(run) < 2 or run[0].kind != PIE or run[1].kind != SHU or run[1].hooked or run[1].pieces != 1:
        return None
    fall, upright = run
    along = (upright.start[1] - fall.start[1]) / max(0.05, fall.end[1] - fall.start[1])
    on = between(fall.start, fall.end, along)
    if not 0.25 < along < 1.05 or abs(on[0] - upright.start[0]) > 0.09 or upright.end[1] < fall.end[1] + 0.12:
        return None
    if not 100 < fall.direction(0) < 145 or not 75 < upright.direction(0) < 105:
        return None
    return 2, [
        (0.26, [New(knots(fall), 2), New(knots(upright))]),
        (0.2, [New([fall.start, between(fall.start, fall.end, 0.85), moved(upright.start, 0, 0.03), upright.end])]),
        (0.16, [New([fall.start, moved(on, 0, 0.02), upright.end])]),
        (0.1, [New([between(fall.start, fall.end, 0.15), between(fall.start, fall.end, 0.65)]), New(knots(upright))]),
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
