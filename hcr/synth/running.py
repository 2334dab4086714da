"""The commonest characters as quick hands write them: forms of the whole character, which no rule of parts gives.

是, 的 or 我 have running forms that everybody knows, and that are not what joining and shortening their strokes leads
to. They stand in running.txt, a form a line: the character, then the lines of a pen, stroke by stroke, in hundredths of
the box, x right and y down. Each writer writes a form in his own style, like any other character. The forms were drawn
up for this project from what is common in running script, not from anybody's handwriting.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

from hcr.synth.copybook import make_copybook
from hcr.synth.rng import keyed, uniform
from hcr.synth.style import Manner, WriterStyles
from hcr.synth.trajectory import Trajectory, write


@cache
def forms() -> dict[str, list[list[np.ndarray]]]:
    """Return the forms of each character: strokes float64[P, 2], in sides of the box."""
    found: dict[str, list[list[np.ndarray]]] = {}
    for line in (files("hcr.synth") / "running.txt").read_text("utf-8").splitlines():
        char, lines = line.split(" ", 1)
        strokes = [[[float(x) for x in point.split(",")] for point in stroke.split()] for stroke in lines.split("|")]
        found.setdefault(char, []).append([np.array(stroke) / 100 for stroke in strokes])
    return found


class RunningForms:
    """The characters of a charset that have forms, for hands that write it so."""

    def __init__(self, characters: str, device: torch.device) -> None:
        known = forms()
        entries = [(label, form) for label, char in enumerate(characters) for form in known.get(char, ())]
        labels = np.array([label for label, _ in entries], np.int64)
        self.count = torch.from_numpy(np.bincount(labels, minlength=len(characters)))
        self._first = self.count.cumsum(0) - self.count
        self._codes = torch.tensor([ord(char) for char in characters], device=device)
        self._device = device
        if entries:
            named = "".join(characters[label] for label, _ in entries)
            self._book = make_copybook(named, medians=[form for _, form in entries]).to(device)

    def write(
        self, labels: Tensor, writers: Tensor, numbers: Tensor, *, seed: int, manner: Manner
    ) -> tuple[Trajectory, WriterStyles]:
        """Return trajectories and styles of labels int64[B], each in a form that its writer likes. All have forms."""
        liking = uniform(keyed(seed, writers, labels, numbers // 4), 1)[:, 0]
        entries = self._first[labels] + (liking * self.count[labels]).long()
        rows = int(self._book.host_rows[entries].sum())
        device_labels, device_writers, device_numbers, device_entries = (
            each.to(self._device, non_blocking=True) for each in (labels, writers, numbers, entries)
        )
        styles = WriterStyles(seed, device_writers, self._codes[device_labels], device_numbers, manner)
        return write(self._book, device_entries, rows, styles), styles
