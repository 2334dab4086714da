"""What every source yields: samples, and the damage between them.

A corpus is cut into partitions (a file, a class folder, a range of an HDF5 file). A partition knows where it lies but
holds no bytes. So a corpus of a million pictures lists in little memory, and its partitions can be sent to other
processes. The cost: a partition opens its file anew each time it is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


class Sample(NamedTuple):
    """One character as it lies in its file.

    picture: uint8[H, W], 255 = paper, ink 0-254, at its native size; it may be a read-only view.
    char: the character, one code point.
    writer: who wrote it, as the corpus names him; "" where it does not say.
    origin: "file:offset", the file relative to the corpus folder and the byte at which the record starts.
    """

    picture: np.ndarray
    char: str
    writer: str
    origin: str


class Damage(NamedTuple):
    """Bytes that hold no readable sample.

    origin: "file:offset", as in `Sample`.
    length: bytes from there that are left out; 0 for a file that is empty or cannot be read at all.
    message: one line for people: file and offset, expected and found, what to do.
    """

    origin: str
    length: int
    message: str


class Digest(Protocol):
    """Whatever takes in bytes as hashlib's objects do."""

    def update(self, data: bytes, /) -> object:
        """Take in `data`."""


@dataclass(frozen=True)
class Partition(ABC):
    """A part of a corpus that is read in one go.

    name: relative to the corpus folder, "/" between the parts; unique in its corpus.
    split: "train", "val" or "test"; None where the source does not say.
    writer: who wrote all of it; "" where the source does not say.
    size: bytes that reading it will take in (of a zip member: unpacked).
    """

    name: str
    split: str | None
    writer: str
    size: int

    @abstractmethod
    def samples(self, digest: Digest) -> Iterator[Sample | Damage]:
        """Yield what the partition holds in its file's order, feeding every byte of its files to `digest`.

        Damaged bytes are yielded, never raised: the caller decides whether they end the work.
        """

    @abstractmethod
    def changed(self) -> float:
        """Return when its files last changed, in seconds since 1970; infinity for a file that is gone."""

    def feed(self, digest: Digest) -> None:
        """Feed to `digest` the bytes that `samples` feeds to it, in the same order."""
        for _ in self.samples(digest):
            pass


@dataclass(frozen=True)
class Corpus:
    """What lies in some files and folders.

    name: for the names of what is made from it, such as "hwdb1.1".
    layout: one sentence that says what was recognised.
    partitions: sorted by name.
    """

    name: str
    layout: str
    partitions: tuple[Partition, ...]
