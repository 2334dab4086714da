"""Batches drawn as they are needed: an endless stream of handwriting that no disk holds.

Sample g, counted from a run's first one, is a function of g and the seed: its label, its writer, its picture. Nothing
is read, nothing is kept, and no picture comes twice. The price is that each is drawn anew, on the device that trains.
The writers of training, of validation and of `hcr-data draw` are never the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from hcr.feed.sampler import Batch, SequentialBatches, TrainingBatches, epoch_order
from hcr.files import short_digest
from hcr.synth import GENERATOR_VERSION, Generator
from hcr.synth.fonts.glyphs import font_digest

# Numbers below these are left to corpora drawn as files.
TRAINING_WRITERS = range(1 << 30, 1 << 31)
VALIDATION_WRITERS = range(1 << 31, 1 << 32)

# Pictures. On a GPU a thousand calls draw a small batch in the time of a large one, so several are drawn at once.
_AT_ONCE = {"cpu": 1}
_AT_ONCE_ELSEWHERE = 8192


class SyntheticBatches:
    """Batches in the order of `batches`, drawn; images and labels on `device`, index (g) in memory.

    Each character comes once in as many samples as there are characters, in an order of its own each time, and each
    sample is by another one of `writers`; when those are used up they write again, otherwise. size: pixels a side.
    fonts: files in whose forms some of the writers write.

    Raises: DataError for a character without strokes, for what is no font of these characters.
    """

    def __init__(
        self,
        characters: str,
        batches: TrainingBatches | SequentialBatches,
        *,
        writers: range,
        seed: int,
        size: int,
        device: str = "cpu",
        fonts: Sequence[Path] = (),
    ) -> None:
        self.classes, self.batches, self.writers = len(characters), batches, writers
        self.seed, self.size, self.device = seed, size, device
        self._generator = _generator(characters, device, tuple(fonts))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for several in self._together():
            index = np.concatenate(several)
            labels = torch.from_numpy(_labels(index, self.classes, self.seed))
            rounds, places = np.divmod(index, len(self.writers))
            writers, numbers = torch.from_numpy(self.writers.start + places), torch.from_numpy(rounds)
            images = self._generator.draw(labels, writers, numbers, seed=self.seed, size=self.size)
            sizes = [len(batch) for batch in several]
            parts = images.split(sizes), labels.to(self.device).split(sizes), torch.from_numpy(index).split(sizes)
            yield from map(Batch, *parts)

    def _together(self) -> Iterator[list[np.ndarray]]:
        """Return the index of the batches that are drawn at once."""
        most = _AT_ONCE.get(torch.device(self.device).type, _AT_ONCE_ELSEWHERE)
        waiting: list[np.ndarray] = []
        for index in self.batches:
            waiting.append(index)
            if sum(map(len, waiting)) >= most:
                yield waiting
                waiting = []
        if waiting:
            yield waiting


def generator_digest(fonts: Sequence[Path] = ()) -> str:
    """Return the name of what draws: where it is the same, the same numbers give the same pictures.

    Raises: DataError for a font that cannot be read.
    """
    # A table that was built anew need not remember the version.
    strokes = short_digest((files("hcr.synth") / "strokes.bin").read_bytes())
    suffix = f", fonts {' '.join(map(font_digest, fonts))}" if fonts else ""
    return f"pen {GENERATOR_VERSION}, strokes {strokes}{suffix}"


def _labels(index: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Return the labels of samples int64[B]: each pass over the classes is a permutation of them."""
    passes, places = np.divmod(index, classes)
    labels = np.empty_like(index)
    for number in np.unique(passes).tolist():
        in_pass = passes == number
        labels[in_pass] = epoch_order(classes, seed, number)[places[in_pass]]
    return labels


@lru_cache(maxsize=1)
def _generator(characters: str, device: str, fonts: tuple[Path, ...]) -> Generator:
    """Return the generator that training and validation share."""
    return Generator(characters, device, fonts)
