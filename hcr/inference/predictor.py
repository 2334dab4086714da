"""Pictures in, named characters out.

Pictures are prepared one after the other and named in batches. Memory is that of one batch, whatever the number of
pictures. A picture that cannot be read is answered with its error, in its place.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hcr.errors import DataError, UsageError
from hcr.layout import find_weights
from hcr.models import Recognizer, load_recognizer
from hcr.models.device import choose_device
from hcr.preprocess.fit import candidate_squares, open_picture

BATCH = 64
# Where a picture can be read in several ways, another than the first has to be surer by this much.
SURER = 0.1

# Characters with their probabilities, the likeliest first.
Top = list[tuple[str, float]]
Picture = str | Path | bytes | Image.Image | np.ndarray


class Predictor:
    """Names the handwritten character on a picture; `hcr.load` makes it.

    recognizer: the network; the predictor computes on the device that it is on. weights: the file that it came from.

    Example:
        model = hcr.load()
        char, probability = model.read("photo.jpg")[0]
    """

    def __init__(self, recognizer: Recognizer, weights: Path | None = None) -> None:
        # As it was trained: a quarter less time for a single picture on a CPU, whose kernels want this layout.
        self.recognizer = recognizer.eval().to(memory_format=torch.channels_last)
        self.weights = weights
        self.size = recognizer.size
        self.device = next(recognizer.parameters()).device

    @property
    def characters(self) -> str:
        """All characters that the model can name, in label order.

        Example:
            model = hcr.load()
            print("永" in model.characters, len(model.characters))  # True 3755
        """
        return self.recognizer.charset.characters

    def read(self, picture: Picture, top: int = 5) -> Top:
        """Return the likeliest characters of one picture with their probabilities, the likeliest first.

        picture: a path, the bytes of a picture file, a PIL picture, or uint8[H, W], [H, W, 3] (RGB) or [H, W, 4]
        (RGBA). One character, dark on light or light on dark, any size. top: how many answers; at most one a character.

        Raises: DataError for what cannot be read as a picture; UsageError for a `top` that is no integer of 1 or more.

        Example:
            model = hcr.load()
            for char, probability in model.read("photo.jpg", top=3):
                print(char, f"{probability:.1%}")
        """
        (answer,) = self.read_many([picture], top)
        if isinstance(answer, DataError):
            raise answer
        return answer

    def read_many(self, pictures: Iterable[Picture], top: int = 5) -> Iterator[Top | DataError]:
        """Return the answers to pictures one after the other; pictures are taken from the iterable a batch of 64 ahead.

        pictures, top: as in `read`. A picture that cannot be read gives its DataError instead of an answer.

        Example:
            model = hcr.load()
            paths = ["photo.jpg", "missing.jpg"]
            for path, answer in zip(paths, model.read_many(paths)):
                print(path, answer if isinstance(answer, hcr.DataError) else answer[0])
        """
        return self._read_batches(pictures, _checked(top))

    def _read_batches(self, pictures: Iterable[Picture], top: int) -> Iterator[Top | DataError]:
        waiting: list[list[np.ndarray] | DataError] = []
        for number, picture in enumerate(pictures, 1):
            waiting.append(_prepared(picture, self.size, number))
            if len(waiting) == BATCH:
                yield from self._answers(waiting, top)
                waiting = []
        yield from self._answers(waiting, top)

    def _answers(self, prepared: list[list[np.ndarray] | DataError], top: int) -> Iterator[Top | DataError]:
        answers = iter(self.surest([squares for squares in prepared if not isinstance(squares, DataError)], top))
        for squares in prepared:
            yield squares if isinstance(squares, DataError) else next(answers)

    def surest(self, pictures: Sequence[Sequence[np.ndarray]], top: int = 5) -> list[Top]:
        """Return the answer to each picture, given as the squares that `candidate_squares` makes of it, in order.

        It is the first square's, unless the likeliest character of another is likelier by more than SURER.
        """
        answers = iter(self.predict([square for squares in pictures for square in squares], top))
        chosen = []
        for squares in pictures:
            first, *others = [next(answers) for _ in squares]
            best = max(others, key=lambda answer: answer[0][1], default=first)
            chosen.append(best if best[0][1] > first[0][1] + SURER else first)
        return chosen

    @torch.inference_mode()
    def predict(self, squares: Sequence[np.ndarray], top: int = 5) -> list[Top]:
        """Return the answers to prepared pictures uint8[size, size] (255 = paper), in order.

        A pack's pictures are prepared like this; for any other picture call `read`.

        Example:
            model = hcr.load()
            pack = hcr.open_pack("data/packed/hwdb1.1-64")
            print(model.predict([pack[0][0], pack[1][0]], top=1))  # [[("一", 0.99)], [("丁", 0.98)]]
        """
        top = min(_checked(top), len(self.characters))
        answers: list[Top] = []
        for start in range(0, len(squares), BATCH):
            images = torch.from_numpy(np.stack(squares[start : start + BATCH])[:, None]).to(self.device)
            best = self.recognizer(images).softmax(1).topk(top)
            for probabilities, labels in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                characters = [self.characters[label] for label in labels]
                answers.append(list(zip(characters, probabilities, strict=True)))
        return answers


def load(weights: str | Path = "level1", *, device: str = "auto") -> Predictor:
    """Load a model that reads pictures.

    weights: "level1" (released, 3,755 characters) or "gb2312" (released, 6,763 characters), the name of a run in
    artifacts/, or a file of weights (.pt, .safetensors). device: "cpu" or "cuda"; "auto"
    is the GPU if there is one.

    Raises: DataError for a missing, damaged or foreign file, and for a run without a checkpoint; UsageError for "cuda"
    without a GPU.

    Example:
        model = hcr.load("gb2312")
        print(len(model.characters))
    """
    path = find_weights(weights)
    return Predictor(load_recognizer(path, choose_device(device)), path)


def find_pictures(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield files as given and folders with all files below them, sorted; hidden entries of folders are left out.

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


def shown_path(path: Path) -> str:
    """Return a path as text that any UTF-8 output can show: bytes that are no UTF-8 are written as \\\\x escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _checked(top: int) -> int:
    if not isinstance(top, int | np.integer) or top < 1:
        raise UsageError(f"top {top!r}: expected a number of answers, an integer of 1 or more")
    return int(top)


def _prepared(picture: Picture, size: int, number: int) -> list[np.ndarray] | DataError:
    """Return the squares uint8[size, size] that a picture can be read as, or why there is none.

    number: the picture's place from 1, which names one without a path in errors.
    """
    try:
        return candidate_squares(_opened(picture, f"picture {number}"), size)
    except DataError as error:
        return error


def _opened(picture: Picture, name: str) -> Image.Image:
    if isinstance(picture, str | Path):
        path = Path(picture)
        if path.is_dir():
            raise DataError(f"{shown_path(path)}: a folder, not a picture; name pictures, or a folder that holds some")
        return open_picture(path, shown_path(path))
    if isinstance(picture, bytes):
        return open_picture(io.BytesIO(picture), name)
    if isinstance(picture, Image.Image):
        return open_picture(picture, name)
    channels = picture.shape[2:] if isinstance(picture, np.ndarray) else None
    if channels not in ((), (3,), (4,)) or picture.ndim < 2 or picture.dtype != np.uint8 or not picture.size:
        found = f"{picture.dtype}{list(picture.shape)}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise DataError(f"{name}: {found} is no picture; give uint8[H, W], [H, W, 3] or [H, W, 4], a path or bytes")
    return Image.fromarray(picture)
