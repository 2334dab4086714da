"""The running forms of a character: which strokes fast writers write otherwise, and what they like to join.

Between the skeletons and the copybook. A component that has running forms is a site: a run of strokes with alternatives
to them. Which one is written is a writer's liking, kept over characters. No two sites share a stroke; the rule that
comes first in `rules.RULES` has it.

Roofs are treated here, too (`sheltered`). In print 宀 is a lid with short sides, and what is below stands clear of it.
People give it sides and write the rest between them; how deep is a habit of each writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hcr.synth.cursive.dots import is_roof
from hcr.synth.cursive.lines import New
from hcr.synth.cursive.rules import RULES, box, walk
from hcr.synth.skeleton import BENT, CUTS, DOT, HENG, NA, PIE, SHU, TI, Stroke

# A roof, 宀, and what stands below it.
_LONGER = 1.0  # by how much of their length the sides grow
_LONGEST = 0.3  # of the height of what is below
_RAISED = 0.2
_CLEAR = 0.07  # sides of the box that stay free below the roof's line
_NARROWER = 0.1


class Site(NamedTuple):
    """`strokes` strokes from `first` on, and their alternatives: the share of each, and its lines."""

    first: int
    strokes: int
    rule: int
    alternatives: list[tuple[float, list[New]]]


def sites_of(strokes: Sequence[Stroke]) -> list[Site]:
    """Find the components that have running forms; no stroke is in two of them."""
    sites = []
    first = 0
    while first < len(strokes):
        for number, rule in enumerate(RULES):
            found = rule(strokes, first)
            if found:
                sites.append(Site(first, found[0], number, found[1]))
                first += found[0]
                break
        else:
            first += 1
    return sites


def around(strokes: Sequence[Stroke], sites: Sequence[Site]) -> int:
    """Count the strokes at the end of a character that go around those before, as 辶 with its dot does."""
    if not sites or RULES[sites[-1].rule] is not walk:
        return 0
    first = sites[-1].first
    dot, bent = strokes[first - 1], strokes[first]
    if first and dot.kind == DOT and dot.line[:, 0].max() < bent.line[:, 0].max() + 0.08:
        first -= 1
    return len(strokes) - first if first else 0


def tie(strokes: Sequence[Stroke], place: int) -> float:
    """Say how much likelier than others the stroke at `place` is joined to the one after it, 0-1."""
    if place + 1 == len(strokes):
        return 0.0
    one, two = strokes[place], strokes[place + 1]
    gap = float(np.hypot(*(two.start - one.end)))
    if one.kind == HENG and two.kind == HENG and 0 < two.start[1] - one.start[1] < 0.3:
        return 0.45
    if one.kind == DOT and two.kind in (DOT, TI) and gap < 0.4:
        return 0.55
    return _TIES.get((one.kind, two.kind), 0.0) if gap < 0.45 else 0.0


_TIES = {
    (SHU, BENT): 0.3,
    (DOT, HENG): 0.3,
    (DOT, BENT): 0.25,
    (DOT, PIE): 0.3,
    (PIE, DOT): 0.4,
    (PIE, NA): 0.35,
    (PIE, HENG): 0.35,
    (PIE, SHU): 0.2,
    (PIE, PIE): 0.3,
    (PIE, BENT): 0.25,
    (TI, PIE): 0.15,
    (TI, BENT): 0.2,
    (TI, SHU): 0.15,
    (SHU, TI): 0.4,
    (BENT, HENG): 0.35,
    (HENG, PIE): 0.25,
    (HENG, SHU): 0.15,
    (HENG, BENT): 0.15,
    (HENG, DOT): 0.2,
    (BENT, PIE): 0.25,
    (BENT, NA): 0.3,
    (BENT, DOT): 0.25,
    (BENT, BENT): 0.2,
    (BENT, SHU): 0.15,
    (SHU, HENG): 0.2,
    (SHU, PIE): 0.15,
    (SHU, DOT): 0.15,
    (SHU, SHU): 0.15,
    (DOT, NA): 0.3,
    (DOT, SHU): 0.2,
}


def with_running_forms(strokes: Sequence[Stroke], sites: Sequence[Site], new: Iterator[Stroke]) -> list[Stroke]:
    """Return the strokes of a character in writing order with the lines of all alternatives at their places.

    new: the strokes through `knots_of(sites)`, in that order.
    """
    numbered = [replace(stroke, place=place, tie=tie(strokes, place)) for place, stroke in enumerate(strokes)]
    result: list[Stroke] = []
    done = 0
    for number, site in enumerate(sites, 1):
        result += numbered[done : site.first]
        done = site.first + site.strokes
        total = sum(share for share, _ in site.alternatives)
        result += [replace(stroke, low=total, site=number, rule=site.rule) for stroke in numbered[site.first : done]]
        low = 0.0
        for share, lines in site.alternatives:
            for order, line in enumerate(lines):
                made = next(new)
                made.place = site.first + min(order, site.strokes - 1)
                made.site, made.rule, made.low, made.high = number, site.rule, low, low + share
                made.tie = numbered[done - 1].tie if line is lines[-1] else line.tie
                result.append(made)
            low += share
    return result + numbered[done:]


def knots_of(sites: Sequence[Site]) -> list[np.ndarray]:
    """List the knots of all alternatives."""
    return [np.array(line.knots) for site in sites for _, lines in site.alternatives for line in lines]


def sheltered(strokes: Sequence[Stroke], written: Sequence[Stroke]) -> np.ndarray:
    """Return by how much the points of each written line move when what is below a roof is drawn into it.

    strokes: of one character, in order; written: these and the lines of their running forms.
    Returns: float[Q, CUTS, 2] for Q written lines.
    """
    moved = np.zeros((len(written), CUTS, 2))
    for first in range(len(strokes) - 2):
        if not is_roof(strokes, first) or box(strokes, first):
            continue
        left, top = strokes[first : first + 2]
        line, ends = float(top.start[1]), (left.line[:, 0].min() - 0.05, top.line[:, 0].max() + 0.05)
        last = first + 2
        for stroke in strokes[first + 2 :]:
            if not ends[0] < stroke.line[:, 0].mean() < ends[1] or stroke.line[:, 1].min() < line - 0.12:
                break
            last += 1
        if last == first + 2:
            continue
        below = np.concatenate([stroke.line for stroke in strokes[first + 2 : last]])
        high, low = below[:, 1].min(), below[:, 1].max()
        middle = 0.5 * (ends[0] + ends[1])
        raised = min(_RAISED, max(0.0, high - line - _CLEAR))
        for number, stroke in enumerate(written):
            x, y = stroke.line[:, 0], stroke.line[:, 1]
            if first <= stroke.place < first + 2:
                moved[number, :, 1] = np.minimum(_LONGER * np.maximum(0, y - line), _LONGEST * (low - line))
            elif first + 2 <= stroke.place < last:
                share = (low - y) / max(low - high, 0.05)
                moved[number] = np.stack([_NARROWER * share * (middle - x), -raised * share], 1)
    return moved
