"""What is printed on paper: ruled lines, squares, practice cells, forms.

Lines are drawn pixel by pixel from where on the page each is, so that they turn and lean with it. They are longer than
strokes, ending beyond the crop, thin, even, and of any shade: by that a network can tell them from ink.
Lengths are in sides of a character's box.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hcr.synth.chance import Chance
from hcr.synth.rng import growth

PAPERS = {
    "plain": 0.36,
    "ruled": 0.24,
    "squared": 0.11,
    "tian": 0.06,
    "mi": 0.04,
    "form": 0.08,
    "graph": 0.05,
    "underlined": 0.06,
}
"""How many of the pages have which paper."""


class Ruling(NamedTuple):
    """What is printed on the paper, float32[B] each: lines at off_u + k * pitch_u across, at off_v + k * pitch_v down.

    dark_*: 0-1, of lines at u, at v, of lines half-way between them, of diagonals. width: of a line. dash: a period of
    dashes, 0 for a full line, and solid: the share of it that is inked. lone: whether there is one line at v only.
    """

    pitch_u: Tensor
    pitch_v: Tensor
    off_u: Tensor
    off_v: Tensor
    dark_u: Tensor
    dark_v: Tensor
    dark_half: Tensor
    dark_slope: Tensor
    width: Tensor
    dash: Tensor
    solid: Tensor
    lone: Tensor


def rule(chance: Chance, kind: Tensor, pitch: Tensor, apart: Tensor, upright: Tensor) -> Ruling:
    """Choose what is printed on each paper of a kind, int64[B]."""
    named = {name: kind == number for number, name in enumerate(PAPERS)}
    nothing = torch.zeros_like(pitch)
    tone = torch.where(
        chance.happens(0.6),
        chance.between(0.06, 0.35),
        torch.where(chance.happens(0.65), chance.between(0.3, 0.6), chance.between(0.55, 0.92)),
    )
    # Where lines are as close as strokes, print is faint.
    tone = torch.where(named["graph"], 0.5 * tone, tone)
    cell = chance.between(1.0, 1.45)
    squares = named["squared"] | named["tian"] | named["mi"]
    form = named["form"]
    wide, high = chance.between(0.95, 2.6), chance.between(1.0, 1.7)
    fine = chance.between(0.2, 0.55)
    pitch_u = torch.where(squares, cell, torch.where(form, wide, torch.where(named["graph"], fine, pitch)))
    pitch_v = torch.where(
        squares,
        cell * torch.where(chance.happens(0.3), chance.between(1.15, 1.5), 1.0),
        torch.where(form, high, torch.where(named["graph"], fine, apart)),
    )
    low_line = 0.5 + chance.bell(0.06, 0.1)
    anywhere = chance.between(0, 1)
    aside = chance.bell(0, 0.05), chance.bell(0, 0.05)
    ruled = named["ruled"] | named["underlined"]
    off_u = torch.where(named["graph"], anywhere * pitch_u, low_line)
    off_u = torch.where(squares, 0.5 * pitch_u + aside[0], off_u)
    # Where a wide box stands about a character is anywhere, but not through it.
    off_u = torch.where(form, 0.5 * pitch_u + (anywhere - 0.5) * (pitch_u - 0.95).clamp(min=0), off_u)
    off_v = torch.where(ruled, low_line, 0.5 * pitch_v + aside[1])
    off_v = torch.where(named["graph"], chance.between(0, 1) * pitch_v, off_v)
    # Some write on the line, and some through it.
    off_v = torch.where(named["ruled"] & chance.happens(0.15), chance.between(0, 1) * pitch_v, off_v)
    columns = named["ruled"] & upright
    level = named["ruled"] & ~upright | named["underlined"]
    thick = torch.where(form, 1.6, 1.0) * growth(chance.bell(0, 0.4))
    return Ruling(
        pitch_u,
        pitch_v,
        off_u,
        off_v,
        torch.where(squares | form | named["graph"] | columns, tone, nothing),
        torch.where(squares | form | named["graph"] | level, tone, nothing),
        torch.where(named["tian"] | named["mi"], tone * chance.between(0.5, 1), nothing),
        torch.where(named["mi"], tone * chance.between(0.5, 1), nothing),
        0.022 * thick,
        torch.where(chance.happens(0.35), chance.between(0.04, 0.16), nothing),
        chance.between(0.4, 0.7),
        named["underlined"],
    )


def lines(ruling: Ruling, across: Tensor, down: Tensor, pixel: Tensor) -> Tensor:
    """Return the share of light that printed lines take: float32[B, N, N]. pixel: float32[B], the side of one."""
    taken = torch.zeros_like(across)
    lined = (ruling.dark_u + ruling.dark_v > 0).nonzero().squeeze(1)
    if len(lined):
        r, u, v, p = _some(ruling, across, down, pixel, lined)
        full = r.dark_half + r.dark_slope > 0  # frames of cells whose inner lines are dashed
        upright = _line(u, r.pitch_u, r.off_u, r.width, p) * torch.where(full, 1.0, _dashed(v, r))
        pitch = torch.where(r.lone, 50.0, r.pitch_v)
        level = _line(v, pitch, r.off_v, r.width, p) * torch.where(full, 1.0, _dashed(u, r))
        taken[lined] = torch.maximum(r.dark_u * upright, r.dark_v * level)
    halved = (ruling.dark_half > 0).nonzero().squeeze(1)
    if len(halved):
        r, u, v, p = _some(ruling, across, down, pixel, halved)
        upright = _line(u, r.pitch_u, r.off_u + 0.5 * r.pitch_u, r.width, p) * _dashed(v, r)
        level = _line(v, r.pitch_v, r.off_v + 0.5 * r.pitch_v, r.width, p) * _dashed(u, r)
        taken[halved] = torch.maximum(taken[halved], r.dark_half * torch.maximum(upright, level))
    sloped = (ruling.dark_slope > 0).nonzero().squeeze(1)
    if len(sloped):
        r, u, v, p = _some(ruling, across, down, pixel, sloped)
        x, y = (u - r.off_u) * (1 / r.pitch_u), (v - r.off_v) * (1 / r.pitch_v)
        # Of a diagonal, in sides of its cell, which are about as long as the character's box.
        one, none = r.pitch_u * 0 + 0.7, r.pitch_u * 0
        slopes = [_line(each * 0.7, one, none, r.width, p) for each in (x - y, x + y)]
        taken[sloped] = torch.maximum(taken[sloped], r.dark_slope * torch.maximum(*slopes) * _dashed(u, r))
    return taken


def _some(
    ruling: Ruling, across: Tensor, down: Tensor, pixel: Tensor, index: Tensor
) -> tuple[Ruling, Tensor, Tensor, Tensor]:
    """Return what is known of the pictures int64[M], the numbers of each as float32[M, 1, 1]."""
    one = Ruling(*(each.index_select(0, index)[:, None, None] for each in ruling))
    return one, across.index_select(0, index), down.index_select(0, index), pixel.index_select(0, index)[:, None, None]


def _line(place: Tensor, pitch: Tensor, off: Tensor, width: Tensor, pixel: Tensor) -> Tensor:
    """Return how much of a pixel a line covers that comes back after each pitch, 0-1."""
    turns = place * (1 / pitch) - off / pitch
    far = (turns - turns.round()).abs_()
    return (far * (-pitch / pixel)).add_(0.5 * width / pixel + 0.5).clamp_(min=0).minimum((width / pixel).clamp(max=1))


def _dashed(place: Tensor, ruling: Ruling) -> Tensor:
    """Tell where a line has ink, 0 or 1."""
    turns = place * (1 / ruling.dash.clamp(min=0.02))
    return torch.where(ruling.dash > 0, (turns - turns.floor() < ruling.solid).float(), 1.0)
