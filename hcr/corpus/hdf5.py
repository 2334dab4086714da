"""HDF5 copies of CASIA-HWDB: pictures and labels in one array each, below trn, vld and tst (docs/formats.md).

Partitions are ranges of samples, so that several processes can read one file. What the labels mean and whether paper is
white or black is decided once, when the file is recognised, at the price of reading all labels and a few hundred
pictures. To look for the paper of every picture would take seven times as long as to fit it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from hcr.charset import Charset
from hcr.corpus.archive import changed
from hcr.corpus.labels import char_of, characters_of, read_labels, values_of
from hcr.corpus.names import SPLIT_WORDS
from hcr.corpus.sample import Damage, Digest, Partition, Sample
from hcr.errors import DataError, HcrError
from hcr.preprocess.fit import to_paper
from hcr.text import counted

_PARTITION = 4096
_RUN_BYTES = 1 << 22
_LOOKED_AT = 256
# h5py's ways to say that a file is damaged.
_ERRORS = (OSError, RuntimeError, KeyError, ValueError)


def load_h5py() -> ModuleType:
    """Return the package h5py, which only HDF5 files need. Raises: HcrError where it is not installed."""
    try:
        import h5py
    except ImportError:
        raise HcrError("HDF5 files need the package h5py; install it with: pip install 'hcr[hdf5]'") from None
    module: ModuleType = h5py
    return module


@dataclass(frozen=True)
class Hdf5Partition(Partition):
    """Samples `start` to `stop` of one group of a file, all by one writer where the file names writers.

    labels: name of the array of labels.
    tags: whether they are GBK codes, not numbers.
    characters: what the numbers 0, 1, 2 … mean.
    paper: 255 or 0 where the pictures have exactly this paper; None where the polarity of each is detected.
    """

    path: Path
    group: str
    start: int
    stop: int
    labels: str
    tags: bool
    characters: str
    paper: int | None

    def samples(self, digest: Digest) -> Iterator[Sample | Damage]:
        """Yield the samples in their order, feeding their pixels and labels, as they are unpacked, to `digest`."""
        h5py = load_h5py()
        try:
            with h5py.File(self.path, "r") as file:
                pictures, labels = _Pictures(file[self.group], str(self.path)), file[self.group][self.labels]
                step = max(1, _RUN_BYTES // pictures.bytes)
                for start in range(self.start, self.stop, step):
                    yield from self._read(pictures, labels, start, min(start + step, self.stop), digest)
        except (DataError, *_ERRORS) as error:
            yield self._damage(self.start, self.stop, _reason(error))

    def _read(
        self, pictures: _Pictures, labels: Any, start: int, stop: int, digest: Digest
    ) -> Iterator[Sample | Damage]:
        try:
            pixels, rows = pictures.read(start, stop), labels[start:stop]
            values = values_of(rows).tolist()
            if not len(pixels) == len(values) == stop - start:
                raise DataError(
                    f"gone since the file was recognised, which now has {counted(pictures.count, 'picture')}"
                )
        except (DataError, *_ERRORS) as error:
            if stop - start == 1:
                yield self._damage(start, stop, _reason(error))
            else:
                # Halves of halves, so that all readable samples of a damaged run are read.
                middle = (start + stop) // 2
                yield from self._read(pictures, labels, start, middle, digest)
                yield from self._read(pictures, labels, middle, stop, digest)
            return
        digest.update(pixels.tobytes())
        digest.update(rows.tobytes())
        for index, picture, value in zip(range(start, stop), pixels, values, strict=True):
            if char := char_of(value, self.tags, self.characters):
                yield Sample(on_white(picture, self.paper), char, self.writer, f"{self._array}:{index}")
            else:
                yield self._damage(index, index + 1, f"label {value} means no character")

    def changed(self) -> float:
        """Return when the file last changed."""
        return changed(self.path)

    @property
    def _array(self) -> str:
        return self.name.rpartition(":")[0]

    def _damage(self, start: int, stop: int, found: str) -> Damage:
        which = f"sample {start}" if stop - start == 1 else f"samples {start} to {stop - 1}"
        advice = (
            f"fetch the file again, or pack with --skip-damaged to leave {'it' if stop - start == 1 else 'them'} out"
        )
        length = self.size // (self.stop - self.start) * (stop - start)
        return Damage(f"{self._array}:{start}", length, f"{self._array}: {which}: {found}; {advice}")


def on_white(picture: np.ndarray, paper: int | None) -> np.ndarray:
    """Return uint8[H, W] on paper of 255, whatever it is on; `paper` as in `Hdf5Partition`."""
    if paper is None:
        return to_paper(Image.fromarray(picture))
    return picture if paper else ~picture


def find_hdf5(path: Path, name: str, numbering: Charset) -> tuple[list[Hdf5Partition], str]:
    """Return the partitions of one file, called `name` in its corpus, and a sentence that says what they are.

    Numbers without a list of characters count through `numbering`, in code-point or in GB2312 order.
    Raises: DataError for what is no HDF5 file of pictures and labels; HcrError where h5py is missing.
    """
    h5py = load_h5py()
    try:
        with h5py.File(path, "r") as file:
            return _find(file, path, name, numbering)
    except _ERRORS as error:
        raise DataError(f"{path}: not an HDF5 file, or damaged ({_reason(error)}); download it again") from None


def _find(file: Any, path: Path, name: str, numbering: Charset) -> tuple[list[Hdf5Partition], str]:
    groups = {key: file[key] for key in file if key.lower() in SPLIT_WORDS and hasattr(file[key], "keys")}
    if not groups:
        raise DataError(
            f"{path}: holds {', '.join(file) or 'nothing'}; expected the groups trn, vld, tst (or train, val, test), "
            "each with pictures x and labels y"
        )
    labels = {key: read_labels(group, f"{path}/{key}") for key, group in groups.items()}
    pictures = {key: _Pictures(group, f"{path}/{key}") for key, group in groups.items()}
    for key, found in labels.items():
        if len(found.values) != pictures[key].count:
            raise DataError(
                f"{path}/{key}: {counted(pictures[key].count, 'picture')}, but "
                f"{counted(len(found.values), 'label')} in {found.name}; "
                "each picture needs one"
            )
    total = sum(array.count for array in pictures.values())
    if not total:
        raise DataError(f"{path}: holds no picture")
    spread = {key: range(0, array.count, -(-total // _LOOKED_AT)) for key, array in pictures.items()}
    paper = _paper([picture for key, indices in spread.items() for picture in pictures[key].readable(indices)])
    characters, how = characters_of(
        file, str(path), labels, numbering,
        lambda key, indices: [on_white(picture, paper) for picture in pictures[key].readable(indices)],
    )  # fmt: skip
    partitions = []
    for key, group in groups.items():
        each = pictures[key].bytes + labels[key].bytes
        for start, stop, writer in _ranges(group, pictures[key].count, f"{path}/{key}"):
            split = SPLIT_WORDS[key.lower()]
            found = labels[key]
            partitions.append(
                Hdf5Partition(f"{name}/{key}:{start:08d}", split, writer, (stop - start) * each, path, key, start, stop,
                         found.name, found.tags, characters, paper)
            )  # fmt: skip
    return partitions, _sentence(file, pictures, how, paper)


class _Pictures:
    """The array of pictures of a group, uint8 [N, H, W], [N, 1, H, W] or [N, H, W, 1]; `bytes` are those of one."""

    def __init__(self, group: Any, where: str) -> None:
        name = next((name for name in ("x", "bitmap") if name in group), "")
        if not name:
            raise DataError(f"{where}: holds {', '.join(group) or 'nothing'}; expected pictures x and labels y")
        self._array = group[name]
        dtype = getattr(self._array, "dtype", None)
        shape: tuple[int, ...] = getattr(self._array, "shape", ())
        sides = [*shape[1:]]
        if len(sides) == 3 and 1 in sides[::2]:
            sides.pop(0 if sides[0] == 1 else 2)
        if dtype != np.uint8 or len(sides) != 2 or 0 in sides:
            raise DataError(
                f"{where}/{name}: {dtype}{list(shape)}; expected pictures uint8 [N, H, W], [N, 1, H, W] or [N, H, W, 1]"
            )
        self.count, self.sides = int(shape[0]), (int(sides[0]), int(sides[1]))
        self.bytes = self.sides[0] * self.sides[1]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return pictures uint8[n, H, W]. Raises: one of `_ERRORS`."""
        pixels: np.ndarray = self._array[start:stop]
        return pixels.reshape(-1, *self.sides)

    def readable(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Yield these pictures uint8[H, W] but for damaged ones."""
        for index in indices:
            with suppress(*_ERRORS):
                yield self.read(index, index + 1)[0]


def _paper(pictures: list[np.ndarray]) -> int | None:
    """Return the paper of a file: 255 or 0 where nearly all of these pictures have exactly that, else None."""
    kept = [to_paper(Image.fromarray(picture)) for picture in pictures]
    for paper in (255, 0):
        same = sum(
            np.array_equal(on_white(picture, paper), whole) for picture, whole in zip(pictures, kept, strict=True)
        )
        if same >= 0.95 * len(pictures):
            return paper
    return None


def _ranges(group: Any, count: int, where: str) -> Iterator[tuple[int, int, str]]:
    """Yield ranges of a group, of at most 4,096 samples each and by one writer: start, stop, writer.

    Writers whose samples are not together, as in a shuffled file, are ignored: each sample would be a partition.
    """
    key = next((key for key in ("writer", "writercode") if key in group), None)
    codes = np.zeros(count, np.int64) if key is None else group[key][()].ravel()
    if len(codes) != count or codes.dtype.kind not in "ui":
        raise DataError(f"{where}/{key}: {codes.dtype}[{len(codes)}], expected whole numbers, one for each picture")
    names = group["writers"].asstr()[()].tolist() if "writers" in group else None
    if key and names and codes.max(initial=0) >= len(names):
        raise DataError(f"{where}/{key}: writer {codes.max()}, but the list `writers` has {len(names)}")
    cuts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), count]
    together = key is not None and len(cuts) <= 100 + count // 16
    for first, last in pairwise(cuts if together else [0, count]):
        writer = "" if not together else names[codes[first]] if names else str(codes[first])
        for start in range(first, last, _PARTITION):
            yield start, min(start + _PARTITION, last), writer


def _sentence(file: Any, pictures: dict[str, _Pictures], how: str, paper: int | None) -> str:
    counts = Counter[str]()
    for key, array in pictures.items():
        counts[SPLIT_WORDS[key.lower()]] += array.count
    sides = " and ".join(sorted({f"{array.sides[1]} × {array.sides[0]}" for array in pictures.values()}))
    listed = ", ".join(f"{split} {count:,}" for split, count in sorted(counts.items()))
    kind = {255: "on white", 0: "on black", None: "on paper of several kinds"}[paper]
    text = f"{counted(counts.total(), 'picture')} of {sides} pixels {kind} in HDF5, {how} ({listed})"
    others = sorted(key for key in file if key not in pictures and key != "characters")
    return text + (f"; ignored: {', '.join(others)}" if others else "")


def _reason(error: Exception) -> str:
    """Return a message of h5py in one line; a KeyError's own text is its argument."""
    return " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
