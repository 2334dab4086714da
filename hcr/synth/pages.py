"""Drawn pages: characters of one hand on paper, seen by a camera, and the one in the middle cut out.

A crop of a photographed page holds what a drawn character lacks: strokes of its neighbours, ruled lines, frames, shade,
a sheet's edge, few pixels. Each is drawn here as it comes about: the hand writes in the size of the capture, lines are
printed on the paper, light falls on it, a camera blurs, sharpens and compresses, and somebody cuts. Then
`hcr.synth.fitting` does what the preprocessing does with a photograph.

A picture is a function of (seed, sample) and of who writes what. Sums, products and roots alone, as in `rng.py`.
Lengths are in sides of a character's box, unless pixels are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hcr.synth.camera import blank_paper, lit, seen_by_camera, uneven
from hcr.synth.chance import Chance
from hcr.synth.fitting import Crops, fit_crops
from hcr.synth.generator import Generator
from hcr.synth.render import render
from hcr.synth.rng import growth, keyed, turning, uniform
from hcr.synth.ruling import PAPERS, lines, rule
from hcr.synth.running import forms
from hcr.synth.style import Manner, WriterStyles
from hcr.synth.trajectory import Trajectory

PAGES_VERSION = 1
"""Grows whenever the same arguments of `draw_crops` give other pictures."""

CAPTURES = ((32, 0.27), (40, 0.25), (56, 0.26), (80, 0.22))
"""Pixels a side of what a camera sees of a page, and how many of the pictures have so many.

The crop takes 0.68 to 1 of it, less RIM: 18 to 74 pixels.
"""
RIM = 6


COMMON = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后"
    "作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因"
    "只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应"
    "战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿"
    "原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太"
    "量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界"
    "达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今"
    "切院让识候带导争运笔找快写喜欢爱"
)
"""Some 350 of the commonest characters of modern Chinese: they are written fastest, and photographed most."""

LEVEL = "一二三十土士工王干上下七丁于正五口日"
"""Characters that are like ruled lines."""

SHARES = {"common": 0.12, "running": 0.1, "level": 0.03}
"""How many of the pages have a common character, one with running forms, one like lines, whatever their turn was."""

QUICK = 0.5
"""How many of the characters that have them are written in running forms of the whole."""

_SALT, _SALT_OF_MIXTURE, _SALT_OF_LABEL = 77, 78, 79
_LEFT, _UP, _RIGHT, _DOWN = range(4)


def are_pages(samples: Tensor, seed: int, share: float) -> Tensor:
    """Tell which samples, int64[B], are cut out of pages where a share of all is: bool[B]."""
    return uniform(keyed(seed, samples, samples * 0 + _SALT_OF_MIXTURE), 1)[:, 0] < share


def common_labels(labels: Tensor, samples: Tensor, seed: int, characters: str) -> Tensor:
    """Give a share of the pages' labels int64[B] to characters that pages have often: int64[B], in memory."""
    chance = uniform(keyed(seed, samples, samples * 0 + _SALT_OF_LABEL), 2)
    start = 0.0
    place = {char: label for label, char in enumerate(characters)}
    for chosen, share in zip((COMMON, "".join(forms()), LEVEL), SHARES.values(), strict=True):
        known = torch.tensor([place[char] for char in chosen if char in place], dtype=torch.int64)
        if len(known):
            mine = (chance[:, 0] >= start) & (chance[:, 0] < start + share)
            labels = torch.where(mine, known[(chance[:, 1] * len(known)).long()], labels)
        start += share
    return labels


def draw_crops(
    generator: Generator, labels: Tensor, writers: Tensor, numbers: Tensor, samples: Tensor, *, seed: int, size: int
) -> Tensor:
    """Draw each label on a page and cut it out: uint8[B, 1, size, size], 255 = paper, as prediction would see it.

    labels, writers, numbers: as `Generator.draw` takes them. samples: int64[B] in memory, what else is random follows.
    """
    out = torch.empty(len(labels), size, size, dtype=torch.uint8, device=generator.device)
    for chosen, crops, kept, strict in capture_pages(generator, labels, writers, numbers, samples, seed=seed):
        out[chosen] = fit_crops(crops, size, kept, strict)
    return out[:, None]


def papers_of(samples: Tensor, seed: int) -> Tensor:
    """Return which of PAPERS each sample is on, if it is on a page: int64[B]."""
    return _choice(uniform(keyed(_key(samples, seed), 4), 1)[:, 0], tuple(PAPERS.values()))


def _key(samples: Tensor, seed: int) -> Tensor:
    return keyed(seed, samples, samples * 0 + _SALT)


def _choice(chance: Tensor, shares: Sequence[float]) -> Tensor:
    """Return which of the shares, whose sum is 1, a chance falls into: int64[B]."""
    return (chance[:, None] >= torch.tensor(shares).cumsum(0)[:-1]).sum(1)


def capture_pages(
    generator: Generator, labels: Tensor, writers: Tensor, numbers: Tensor, samples: Tensor, *, seed: int
) -> Iterator[tuple[Tensor, Crops, Tensor, Tensor]]:
    """See the pages with cameras, those of one size together: which they are, int64[b], and what `fit_crops` takes."""
    key = _key(samples, seed)
    capture = _choice(uniform(keyed(key, 2), 1)[:, 0], [share for _, share in CAPTURES])
    paper = papers_of(samples, seed)
    for number, (side, _) in enumerate(CAPTURES):
        members = (capture == number).nonzero().squeeze(1)
        for chosen in members.split(max(1, (1 << 19) // side**2)):
            if len(chosen):
                parts = (each.index_select(0, chosen) for each in (labels, writers, numbers, key, paper))
                yield chosen.to(generator.device), *_capture(generator, *parts, seed=seed, side=side)


def _capture(
    generator: Generator,
    labels: Tensor,
    writers: Tensor,
    numbers: Tensor,
    key: Tensor,
    paper: Tensor,
    *,
    seed: int,
    side: int,
) -> tuple[Crops, Tensor, Tensor]:
    """See pages with a camera of `side` pixels, and cut out the character in the middle."""
    count = len(labels)
    chance = Chance(key.to(generator.device))
    upright = chance.happens(0.15)
    pitch = growth(chance.bell(0.02, 0.09)) * chance.between(0.92, 1.12)
    apart = chance.between(1.05, 1.7)
    kind = paper.to(generator.device)
    ruling = rule(chance, kind, pitch, apart, upright)
    celled = (ruling.pitch_u > 0.85) & (ruling.dark_u > 0) & (kind != list(PAPERS).index("form"))
    pitch = torch.where(celled, ruling.pitch_u, pitch)

    # How the sheet lies: columns of the matrix are where one step across and one down lead.
    tilt = torch.where(chance.happens(0.08), 2.5, 1.0) * chance.bell(0, 0.035)
    lean, aspect = chance.bell(0, 0.03), growth(chance.bell(0.04, 0.06))
    cos, sin = turning(tilt)
    lie = torch.stack([cos * aspect, lean - sin / aspect, sin * aspect, cos / aspect], 1).view(-1, 2, 2)

    # On paper people write faster than in squares, and wider, with strokes that reach beyond where they end in print.
    hurry = torch.where(chance.happens(0.4), chance.between(0, 0.35), 0.0)
    manner = Manner(hurry, chance.bell(0.08, 0.05), chance.between(-0.3, 0.9))
    quick = uniform(keyed(key, 3), 1)[:, 0] < QUICK
    trajectory, styles = generator.write(labels, writers, numbers, seed=seed, manner=manner, quick=quick)
    # Who writes small has the same pens.
    wider = growth(chance.bell(0.22 - side / 400, 0.18)).clamp(0.7, 1.7)
    trajectory = trajectory._replace(width=trajectory.width * wider.index_select(0, trajectory.picture))
    points = _laid(trajectory.points - 0.5, lie, trajectory.picture)
    low, high = _bounds(points, 0.5 * trajectory.width[:, None], trajectory.picture, count)
    extent = (high - low).amax(1)
    box = _cut(chance, low, high, extent)

    # As much of the capture as the crop takes.
    longest = torch.maximum(box[:, _RIGHT] - box[:, _LEFT], box[:, _DOWN] - box[:, _UP])
    scale = (side - RIM) * chance.between(0.68, 1) / longest.clamp(min=0.2)
    stray = torch.stack([chance.between(-2, 2), chance.between(-2, 2)], 1)
    origin = side / 2 + stray - 0.5 * (box[:, :2] + box[:, 2:]) * scale[:, None]

    trajectories = [(trajectory, points)]
    # The neighbours that the crop can reach: before, after, in the line above or below.
    step = torch.where(upright, apart, pitch), torch.where(upright, pitch, apart)
    reached, offsets = [], torch.zeros(4, count, 2, device=points.device)
    for number, (axis, sign) in enumerate(((0, -1), (0, 1), (1, -1), (1, 1))):
        reach = sign * box[:, axis + (2 if sign > 0 else 0)] + 0.6 + 3 / scale
        reached.append((reach > step[axis]) & chance.happens(0.8))
        offsets[number, :, axis] = sign * step[axis]
    side_of, page = torch.stack(reached).nonzero().unbind(1)
    if len(page):
        on_host, host = side_of.cpu(), page.cpu()
        names = (uniform(keyed(key, torch.arange(10, 14)[:, None]), 1)[..., 0] * generator.classes).long()
        other, _ = generator.write(
            names[on_host, host], writers[host], numbers[host], seed=seed, manner=manner.taken(page), quick=quick[host]
        )
        owner = page.index_select(0, other.picture)
        offset = offsets[side_of, page].index_select(0, other.picture)
        moved = _laid(other.points - 0.5 + offset, lie, owner)
        trajectories.append((other._replace(picture=owner, width=other.width * wider.index_select(0, owner)), moved))
    ink = _inked(trajectories, origin, scale, styles, side)

    across, down = _places(lie, origin, scale, side)
    light = blank_paper(chance, side, count) * (1 - lines(ruling, across, down, 1 / scale))
    flow = 1 - chance.between(0, 0.5).square()[:, None, None] * uneven(key.to(generator.device), 21, side, 6).abs()
    strength = torch.where(chance.happens(0.1), chance.between(0.3, 0.55), chance.between(0.55, 0.98))
    light = light * (1 - strength[:, None, None] * flow * ink)
    light = lit(chance, light, across, down, box, lie)
    light = seen_by_camera(chance, light, strength)
    edges = (origin[:, [0, 1, 0, 1]] + box * scale[:, None]).round().long().clamp(1, side - 1)
    edges = torch.cat([edges[:, :2], torch.maximum(edges[:, 2:], edges[:, :2] + 6)], 1).clamp(max=side)
    return Crops(light, edges), chance.happens(0.04), chance.between(0, 1)


def _cut(chance: Chance, low: Tensor, high: Tensor, extent: Tensor) -> Tensor:
    """Return where people and detectors cut: left, up, right, down, float32[B, 4].

    Around the ink, by a margin of its own on each side that may cut some of it off; or around the room of a character.
    """
    margins = torch.stack([chance.bell(0.06, 0.09) for _ in range(4)], 1).clamp(-0.08, 0.5)
    loose = torch.where(chance.happens(0.12), chance.between(0.08, 0.35), 0.0)
    tight = torch.where(chance.happens(0.1), chance.between(0.0, 0.7), 1.0)
    margins = (margins * tight[:, None] + loose[:, None]) * extent[:, None]
    box = torch.cat([low - margins[:, :2], high + margins[:, 2:]], 1)
    half = 0.5 * chance.between(0.95, 1.25)
    moved = torch.stack([chance.bell(0, 0.04), chance.bell(0, 0.04)], 1)
    room = torch.cat([moved - half[:, None], moved + half[:, None]], 1)
    room = torch.cat([torch.minimum(room[:, :2], low + 0.05), torch.maximum(room[:, 2:], high - 0.05)], 1)
    return torch.where(chance.happens(0.2)[:, None], room, box)


def _laid(points: Tensor, lie: Tensor, picture: Tensor) -> Tensor:
    """Put points of the page, float32[N, 2] about the middle of the character, where they lie before the camera."""
    a, b, c, d = lie.view(-1, 4).index_select(0, picture).unbind(1)
    x, y = points.unbind(1)
    return torch.stack([a * x + b * y, c * x + d * y], 1)


def _places(lie: Tensor, origin: Tensor, scale: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return where on the page each pixel is: u and v, float32[B, side, side] each."""
    place = torch.arange(side, device=lie.device) + 0.5
    x = ((place - origin[:, :1]) / scale[:, None])[:, None, :]
    y = ((place - origin[:, 1:]) / scale[:, None])[:, :, None]
    a, b, c, d = (each[:, None, None] for each in lie.view(-1, 4).unbind(1))
    size = 1 / (a * d - b * c)
    return (d * x - b * y) * size, (a * y - c * x) * size


def _bounds(points: Tensor, reach: Tensor, picture: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the upper left and lower right end of the ink of each picture: float32[B, 2] each."""
    values = torch.cat([reach - points, points + reach], 1)
    owner = picture[:, None].expand(-1, 4)
    most = points.new_full((count, 4), -torch.inf).scatter_reduce_(0, owner, values, "amax")
    return -most[:, :2], most[:, 2:]


def _inked(
    trajectories: list[tuple[Trajectory, Tensor]], origin: Tensor, scale: Tensor, styles: WriterStyles, side: int
) -> Tensor:
    """Let the pens write: float32[B, side, side], the share of light that the ink takes, 0-1."""
    columns: list[list[Tensor]] = [[], [], [], [], [], []]
    ahead = 0
    for trajectory, points in trajectories:
        size = scale.index_select(0, trajectory.picture)
        x, y = (points * size[:, None] + origin.index_select(0, trajectory.picture)).unbind(1)
        width = trajectory.width * size
        # What is out of sight is not drawn.
        seen = (x > -width) & (x < side + width) & (y > -width) & (y < side + width)
        index = seen.nonzero().squeeze(1)
        gap = torch.ones_like(index, dtype=torch.bool)
        gap[1:] = (index[1:] != index[:-1] + 1) | (trajectory.path[index[1:]] != trajectory.path[index[:-1]])
        number = gap.cumsum(0) + ahead
        for column, values in zip(
            columns,
            (x[index], y[index], width[index], trajectory.ink[index], number, trajectory.picture[index]),
            strict=True,
        ):
            column.append(values)
        ahead += len(index) + 1
    x, y, width, ink, number, picture = (torch.cat(column) for column in columns)
    # Ink spreads on paper, not on the camera's pixels: the fewer there are, the less of them.
    grey = render(x, y, width, ink, number, picture, styles.grain, styles.spot, styles.soft * (side / 112), size=side)
    return (255 - grey.float()) * (1 / 255)
