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
from torch import Tensor

from hcr.feed.sampler import Batch, SequentialBatches, TrainingBatches, epoch_order
from hcr.files import short_digest
from hcr.synth import GENERATOR_VERSION, Generator
from hcr.synth.fonts.glyphs import font_digest
from hcr.synth.pages import CAPTURES, PAGES_VERSION, are_pages, capture_pages, common_labels, draw_crops

# Numbers below these are left to corpora drawn as files.
TRAINING_WRITERS = range(1 << 30, 1 << 31)
VALIDATION_WRITERS = range(1 << 31, 1 << 32)

# Pictures. On a GPU a thousand calls draw a small batch in the time of a large one, so several are drawn at once.
_AT_ONCE = {"cpu": 1}
_AT_ONCE_ELSEWHERE = 8192
# Pages take many calls, and a third of the time where so many are drawn with each.
_PAGES_AT_ONCE = 2048


class SyntheticBatches:
    """Batches in the order of `batches`, drawn; images and labels on `device`, index (g) in memory.

    Each character comes once in as many samples as there are characters, in an order of its own each time, and each
    sample is by another one of `writers`; when those are used up they write again, otherwise. size: pixels a side.
    fonts: files in whose forms some of the writers write. pages: the share of samples that are cut out of pages.
    taught: whether batches hold what a teacher is shown: the same characters by the same hands, not on a page.

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
        pages: float = 0.0,
        taught: bool = False,
    ) -> None:
        self.pages, self.taught, self.characters = pages, taught, characters
        self.classes, self.batches, self.writers = len(characters), batches, writers
        self.seed, self.size, self.device = seed, size, device
        self._generator = _generator(characters, device, tuple(fonts))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for several in self._together():
            index = np.concatenate(several)
            samples, labels = torch.from_numpy(index), torch.from_numpy(_labels(index, self.classes, self.seed))
            rounds, places = np.divmod(index, len(self.writers))
            writers, numbers = torch.from_numpy(self.writers.start + places), torch.from_numpy(rounds)
            paged = are_pages(samples, self.seed, self.pages)
            if self.pages:
                labels = torch.where(paged, common_labels(labels, samples, self.seed, self.characters), labels)
            images, clean = self._draw(labels, writers, numbers, samples, paged)
            sizes = [len(batch) for batch in several]
            parts = (each.split(sizes) for each in (images, labels.to(self.device), samples, clean))
            for pictures, targets, numbered, shown in zip(*parts, strict=True):
                yield Batch(pictures, targets, numbered, shown if self.taught else None)

    def _draw(
        self, labels: Tensor, writers: Tensor, numbers: Tensor, samples: Tensor, paged: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the pictures, and the same characters without a page: uint8[B, 1, S, S] each.

        Those without a page are left white where no teacher is shown them.
        """
        size = self.size
        clean = torch.full((len(labels), 1, size, size), 255, dtype=torch.uint8, device=self.device)
        plain = torch.arange(len(labels)) if self.taught else (~paged).nonzero().squeeze(1)
        if len(plain):
            chosen = labels[plain], writers[plain], numbers[plain]
            clean[plain.to(self.device)] = self._generator.draw(*chosen, seed=self.seed, size=size)
        images = clean.clone()
        index = paged.nonzero().squeeze(1)
        written = labels[index], writers[index], numbers[index], samples[index]
        images[index.to(self.device)] = draw_crops(self._generator, *written, seed=self.seed, size=size)
        return images, clean

    def _together(self) -> Iterator[list[np.ndarray]]:
        """Return the index of the batches that are drawn at once."""
        most = _AT_ONCE.get(torch.device(self.device).type, _AT_ONCE_ELSEWHERE)
        most = max(most, _PAGES_AT_ONCE) if self.pages else most
        waiting: list[np.ndarray] = []
        for index in self.batches:
            waiting.append(index)
            if sum(map(len, waiting)) >= most:
                yield waiting
                waiting = []
        if waiting:
            yield waiting


def generator_digest(fonts: Sequence[Path] = (), pages: float = 0.0) -> str:
    """Return the name of what draws: where it is the same, the same numbers give the same pictures.

    Raises: DataError for a font that cannot be read.
    """
    # A table that was built anew need not remember the version.
    strokes = short_digest((files("hcr.synth") / "strokes.bin").read_bytes())
    suffix = f", fonts {' '.join(map(font_digest, fonts))}" if fonts else ""
    suffix += f", pages {PAGES_VERSION}" if pages else ""
    return f"pen {GENERATOR_VERSION}, strokes {strokes}{suffix}"


def page_sheet(characters: str, count: int, seed: int, columns: int = 16) -> np.ndarray:
    """Return a sheet uint8[H, W] of drawn pages: what was cut out of each, and below it what a network of 64 px sees.

    Raises: DataError for a character without strokes.
    """
    samples = torch.arange(count)
    labels = torch.from_numpy(_labels(samples.numpy(), len(characters), seed))
    labels = common_labels(labels, samples, seed, characters)
    drawn = _generator(characters, "cpu", ()), labels, TRAINING_WRITERS.start + samples, samples * 0, samples
    side, gap = max(side for side, _ in CAPTURES), 2
    sheet = np.full((-(-count // columns) * (side + 64 + 2 * gap) + gap, columns * (side + gap) + gap), 200, np.uint8)

    def place(picture: np.ndarray, number: int, below: int) -> None:
        row, column = divmod(number, columns)
        high, wide = picture.shape
        top, left = gap + row * (side + 64 + 2 * gap) + below, gap + column * (side + gap) + (side - wide) // 2
        sheet[top : top + high, left : left + wide] = picture

    for chosen, crops, _, _ in capture_pages(*drawn, seed=seed):
        greys, boxes = (crops.grey * 255).round().to(torch.uint8).numpy(), crops.box.tolist()
        for number, grey, (left, top, right, bottom) in zip(chosen.tolist(), greys, boxes, strict=True):
            crop = grey[top:bottom, left:right]
            place(crop, number, side - len(crop))
    for number, picture in enumerate(draw_crops(*drawn, seed=seed, size=64).numpy()):
        place(picture[0], number, side + gap)
    return sheet


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
