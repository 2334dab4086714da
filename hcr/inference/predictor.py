"""Pictures in, named characters out.

Files are read one after the other and answered in batches: memory is that of one batch whatever the number of files,
and a file that cannot be read is answered with its error in its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hcr.errors import DataError
from hcr.models import Recognizer
from hcr.preprocess.fit import candidate_squares, open_picture

BATCH = 64
# Where a picture can be read in several ways, another than the first has to be surer by this much.
SURER = 0.1

# Characters with their probabilities, the likeliest first.
Top = list[tuple[str, float]]
_Prepared = tuple[Path, list[np.ndarray] | DataError]


@dataclass(frozen=True)
class Reading:
    """What one picture was read as."""

    path: Path
    top: Top


class Predictor:
    """Names the characters on prepared pictures with a recognizer, on the device that the recognizer is on.

    top: how many characters to give for each picture; a model with fewer gives them all.
    """

    def __init__(self, recognizer: Recognizer, top: int = 5) -> None:
        # As it was trained: a quarter less time for a single picture on a CPU, whose kernels want this layout.
        self.recognizer = recognizer.eval().to(memory_format=torch.channels_last)
        self.size = recognizer.size
        self.top = min(top, len(recognizer.charset))
        self.device = next(recognizer.parameters()).device

    @torch.inference_mode()
    def predict(self, pictures: Sequence[np.ndarray]) -> list[Top]:
        """Return the likeliest characters, with softmax probabilities, of each picture uint8[size, size] in order."""
        readings: list[Top] = []
        for start in range(0, len(pictures), BATCH):
            images = torch.from_numpy(np.stack(pictures[start : start + BATCH])[:, None]).to(self.device)
            best = self.recognizer(images).softmax(1).topk(self.top)
            for probabilities, labels in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                characters = [self.recognizer.charset[label] for label in labels]
                readings.append(list(zip(characters, probabilities, strict=True)))
        return readings

    def surest(self, pictures: Sequence[Sequence[np.ndarray]]) -> list[Top]:
        """Return the answer to each picture, given as the squares that `candidate_squares` makes of it.

        It is the first square's unless the likeliest character of another is likelier by more than SURER.
        """
        answers = iter(self.predict([square for squares in pictures for square in squares]))
        chosen = []
        for squares in pictures:
            first, *others = [next(answers) for _ in squares]
            best = max(others, key=lambda top: top[0][1], default=first)
            chosen.append(best if best[0][1] > first[0][1] + SURER else first)
        return chosen


def find_pictures(paths: Iterable[Path]) -> Iterator[Path]:
    """Go over files as given and over folders with all below them, sorted; hidden entries of folders are passed over.

    A folder that cannot be read or holds no file stands for itself, so that it is answered with an error.
    """
    for path in paths:
        found = False
        for file in _files_below(path) if path.is_dir() else [path]:
            found = True
            yield file
        if not found:
            yield path


def _files_below(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        yield folder
        return
    for entry in entries:
        # Links to folders are not followed: they can lead round in a circle.
        if entry.is_dir() and not entry.is_symlink():
            yield from _files_below(entry)
        elif not entry.is_dir():
            yield entry


def read_pictures(predictor: Predictor, files: Iterable[Path]) -> Iterator[Reading | DataError]:
    """Answer every file in order: with its reading, or with a DataError naming it. Files are read a batch ahead."""
    waiting: list[_Prepared] = []
    for path in files:
        waiting.append((path, _prepared(path, predictor.size)))
        if len(waiting) == BATCH:
            yield from _answered(predictor, waiting)
            waiting = []
    yield from _answered(predictor, waiting)


def shown_path(path: Path) -> str:
    """Return a path as text that any UTF-8 output can show: bytes that are no UTF-8 are written as \\\\x escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _prepared(path: Path, size: int) -> list[np.ndarray] | DataError:
    name = shown_path(path)
    try:
        if path.is_dir():
            raise DataError(f"{name}: a folder without readable files; name pictures, or folders that hold some")
        return candidate_squares(open_picture(path, name), size)
    except DataError as error:
        return error


def _answered(predictor: Predictor, waiting: list[_Prepared]) -> Iterator[Reading | DataError]:
    tops = iter(predictor.surest([squares for _, squares in waiting if not isinstance(squares, DataError)]))
    for path, squares in waiting:
        yield squares if isinstance(squares, DataError) else Reading(path, next(tops))
