"""The habits of drawn writers, as tensors: one value a picture.

Between the random numbers and the writing. A writer is a function of (seed, writer) and is never stored: 40 numbers are
quicker made than looked up. Fast writers join, round, shorten and like running forms, each to a degree of his own. That
these go together is what makes a page look like one person's. The ranges were set by looking at pages of real
handwriting beside drawn ones, and by what a network that learnt from them could read (docs/lab-notes.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from hcr.synth.cursive.rules import RULES
from hcr.synth.rng import growth, keyed, normals, uniforms

_NORMALS = 40
_UNIFORMS = 24
KINDS = 7
_OF_WRITER, _OF_PICTURE = 1, 2


class Manner(NamedTuple):
    """How B pictures are written other than usual, float32[B] each.

    hurry: 0-1, how much of what they lack of the greatest speed. longer: log, by how much strokes are longer. tail: how
    many of the strokes that are not joined end in the way towards the next one, 0-1.
    """

    hurry: Tensor
    longer: Tensor
    tail: Tensor

    def taken(self, index: Tensor) -> Manner:
        """Return those at int64[N]."""
        return Manner(*(each.index_select(0, index) for each in self))


class WriterStyles:
    """The styles in which B pictures are written.

    All float32[B] where no other shape is said; lengths in sides of the box.
    """

    def __init__(
        self, seed: int, writers: Tensor, codes: Tensor, numbers: Tensor, manner: Manner | None = None
    ) -> None:
        """writers, codes (code points), numbers: int64[B] on one device. manner: other than the usual one."""
        person = keyed(seed, writers)
        self.writer = writer = keyed(person, _OF_WRITER)
        self.key = keyed(person, codes, numbers)
        # For 3: habits that do not vary; 5: for kinds of strokes; 7: likings.
        of_writer = keyed(writer[:, None], torch.arange(3, 8, 2, device=writer.device))
        of_picture = keyed(self.key[:, None], torch.arange(_OF_PICTURE, 4, device=writer.device))
        keys = torch.stack([writer, of_writer[:, 1], of_picture[:, 0]], 1)
        habits, of_kind, moods = normals(keys, (_NORMALS, 3 * KINDS, 20))
        keys = torch.stack([of_writer[:, 0], of_writer[:, 2], of_picture[:, 1]], 1)
        always, likings, chances = uniforms(keys, (_UNIFORMS, len(RULES), 2))
        habit, fixed, mood = habits.unbind(1), always.unbind(1), moods.unbind(1)

        speed = (fixed[0] * (0.4 + 0.6 * fixed[1]) + 0.06 * mood[0]).clamp(0, 1)
        if manner is not None:
            speed = speed + (1 - speed) * manner.hurry
        self.speed = speed
        care = growth(0.3 * habit[0]) * (0.75 + 0.5 * speed)
        self.care = care.clamp(0.4, 1.8)

        # The page.
        self.slant = 0.01 + 0.14 * habit[1] + 0.04 * mood[1]
        self.rise = 0.095 + 0.085 * habit[2] + 0.03 * mood[2]
        self.aspect = -0.17 + 0.17 * habit[3] + 0.08 * mood[3]
        bends = zip(habit[4:10], mood[4:10], strict=True)
        self.warp = torch.stack([0.03 * usual + 0.035 * self.care * now for usual, now in bends], 1)  # float32[B, 6]
        self.height = (94 * growth(0.13 * habit[10])).clamp(72, 128)

        self.tuck = 0.5 + 0.4 * habit[18] + 0.2 * mood[12]  # how much of what sticks out is taken in, in halves
        self.nest = 0.6 + 0.45 * habit[20] + 0.25 * mood[13]  # how far what is below a roof is drawn into it
        self.tight = (0.75 + 0.2 * habit[19]).clamp(0, 1)  # how well strokes that touch go on touching
        self.crowd = 0.02 + 0.05 * habit[21]  # by how much the halves are larger than their room, log

        # Whose proportions, where there are fonts: two of them, 0 to 1 for the first to the last, and how much each.
        self.models = torch.stack([fixed[13], fixed[14]], 1)
        like = (1.2 * fixed[15]).clamp(max=1)
        self.likeness = torch.stack([like * fixed[16], like * (1 - fixed[16])], 1)

        # Parts and strokes, standard deviations.
        self.half_shift, self.half_size = 0.025 * self.care, 0.12 * self.care
        self.part_shift, self.part_size = 0.018 * self.care, 0.085 * self.care
        self.turn, self.size = 0.075 * self.care, 0.13 * self.care
        self.shift, self.bow = (0.004 + 0.012 * fixed[2]) * self.care, 0.05 * self.care
        # What a writer does to every stroke of a kind: float32[B, KINDS].
        self.kind_turn, self.kind_size, self.kind_bow = (of_kind.view(-1, 3, KINDS) * _spreads(writer.device)).unbind(1)
        self.longer = torch.zeros_like(speed) if manner is None else manner.longer
        self.tail = torch.zeros_like(speed) if manner is None else manner.tail
        self.straight = (0.15 + 0.25 * habit[11]).clamp(-0.2, 1)  # how much of a stroke's curve is lost

        # What is left of hooks, sweeps and dots, with HOOK, SWEEP and SPOT: float32[B, 4].
        hook = (0.9 + 0.45 * habit[12] - 0.3 * speed).clamp(0, 1.5)
        sweep = (1.05 + 0.2 * habit[13] - 0.25 * speed).clamp(0.35, 1.3)
        whole = torch.ones_like(hook)
        self.left = torch.stack([whole, hook, sweep, 1.1 * whole], 1)

        # Running script.
        self.join = (0.02 + 0.95 * speed * torch.sqrt(torch.sqrt(speed)) + 0.1 * habit[14]).clamp(0, 0.9)
        self.leap = 0.15 + 0.25 * speed  # gaps up to this long are joined as if there were none
        self.fluency = (1.15 * speed + 0.12 * habit[15]).clamp(0, 1)  # of ties
        self.running = (1.05 * speed + 0.22 * habit[16] + 0.05).clamp(0.02, 1)  # of running forms
        self.smooth = 0.15 + 1.5 * speed * (0.15 + 0.85 * fixed[3])  # steps of the pen's clock
        # Which of the forms, a number for each rule: float32[B, len(RULES)], uniform, kept over characters. A further
        # rule changes no number of the others.
        self.liking = likings

        # Pen and paper.
        self.link_pressure = 1 - (0.75 - 0.65 * fixed[4]) * (1 - 0.7 * speed)
        # One writer in twelve has a hairline, one in twelve a marker.
        pens = torch.where(fixed[12] < 1 / 12, 0.45, torch.where(fixed[12] < 1 / 6, 1.7, 1.0))
        self.width = (0.043 * pens * growth(0.28 * habit[17] + 0.08 * mood[10])).clamp(0.012, 0.11)
        self.soft = 0.2 + 0.6 * fixed[11]  # how far ink and scanner spread a pixel's ink to those around, 0-1
        self.width_spread = 0.04 + 0.1 * fixed[5]
        self.taper, self.attack = (
            0.05 + 0.6 * fixed[6] * torch.sqrt(fixed[6]),
            0.02 + 0.35 * fixed[7] * torch.sqrt(fixed[7]),
        )
        self.ink = (1 - 0.5 * fixed[8] * fixed[8] * torch.sqrt(fixed[8])) * growth(-0.08 * mood[11].abs())
        self.ink_spread = 0.03 + 0.17 * fixed[9]
        self.grain = 0.05 + 0.45 * fixed[10]
        self.spot = (chances[:, 0] * 2**24).long() * 64

    def part(self, first: int, last: int) -> WriterStyles:
        """Return the styles of the pictures from `first` up to `last`."""
        part = copy(self)
        part.__dict__ = {name: values[first:last] for name, values in vars(self).items()}
        return part

    @staticmethod
    def joined(parts: Sequence[WriterStyles], index: Tensor) -> WriterStyles:
        """Return the styles at `index`, int64[N], of several batches one after the other."""
        whole = copy(parts[0])
        whole.__dict__ = {
            name: torch.cat([vars(part)[name] for part in parts]).index_select(0, index) for name in vars(parts[0])
        }
        return whole


@cache
def _spreads(device: torch.device) -> Tensor:
    """Return by how much kinds of strokes are turned, grown and bent, standard deviations: float32[3, KINDS].

    Made once, as a copy to a GPU stops the host.
    """
    return torch.tensor(
        [
            [0.04, 0.04, 0.1, 0.12, 0.3, 0.15, 0.04],
            [0.1, 0.08, 0.12, 0.15, 0.25, 0.2, 0.06],
            [0.03] * KINDS,
        ],
        device=device,
    )
