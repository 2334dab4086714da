"""Partitions in, samples out in chunks, fitted into memory that the caller gives: what a reading process does.

A chunk is bounded four ways: by samples, by bytes of squares, by bytes of source pictures, and by time. So memory stays
flat and nobody waits long, whether a source holds crops of 5 KB or photos of a megabyte. Where chunks end decides
nothing about the pack.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hcr.corpus.sample import Damage, Partition
from hcr.files import short_digest
from hcr.preprocess.fit import fit_squares

_CHUNK, _CHUNK_BYTES = 512, 4 << 20
_CHUNK_SECONDS = 0.2  # however slow the source is, the packer can save itself and stop this often
_NATIVE_BYTES = 16 << 20  # of pictures that wait to be fitted


@dataclass(frozen=True)
class ReadJob:
    """What a process has to read.

    partitions: by their number in the corpus, in order.
    characters: those to keep, None for all.
    starts: for each size in pixels the first (partition, item) that is needed at it. The items of a partition are its
    samples, kept or not, and its damage.
    """

    partitions: dict[int, Partition]
    characters: frozenset[str] | None
    starts: dict[int, tuple[int, int]]

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample's squares."""
        return sum(size * size for size in self.starts)

    @property
    def capacity(self) -> int:
        """Samples in a chunk at most."""
        return max(1, min(_CHUNK, _CHUNK_BYTES // self.sample_bytes))


class Chunk(NamedTuple):
    """Consecutive items of one partition.

    partition: its number.
    items: how many items of the partition are read after this chunk.
    last: whether those are all.
    sizes: the sizes at which the samples are needed.
    chars, writers, origins: of each sample.
    left_out: items of other characters.
    damage: messages.
    bytes: of the source, read since the chunk before.
    sha256: first 16 hex digits of the digest of the partition's bytes that were read up to here.
    """

    partition: int
    items: int
    last: bool
    sizes: tuple[int, ...]
    chars: str
    writers: list[str]
    origins: list[str]
    left_out: int
    damage: list[str]
    bytes: int
    sha256: str


Squares = dict[int, np.ndarray]
"""Fitted pictures uint8[n, S, S] by their size S."""


def chunks_of(job: ReadJob) -> Iterator[tuple[Chunk, list[np.ndarray]]]:
    """Read the partitions in order; yield each chunk with its pictures as they lie in the source."""
    capacity = job.capacity
    for number, partition in job.partitions.items():
        digest = _Digest()
        stream = partition.samples(digest)
        items = reported = 0
        last = False
        while not last:
            sizes = tuple(size for size, start in job.starts.items() if start <= (number, items))
            edges = [item for start, item in job.starts.values() if start == number and item > items]
            edge = min(edges, default=sys.maxsize)
            pictures: list[np.ndarray] = []
            chars: list[str] = []
            writers: list[str] = []
            origins: list[str] = []
            damage: list[str] = []
            left_out = waiting = 0
            until = time.monotonic() + _CHUNK_SECONDS
            while True:
                sample = next(stream, None)
                if sample is None:
                    last = True
                    break
                items += 1
                if isinstance(sample, Damage):
                    damage.append(sample.message)
                elif job.characters is not None and sample.char not in job.characters:
                    left_out += 1
                elif sizes:
                    pictures.append(sample.picture)
                    chars.append(sample.char)
                    writers.append(sample.writer)
                    origins.append(sample.origin)
                    waiting += sample.picture.nbytes
                full = len(pictures) == capacity or waiting >= _NATIVE_BYTES
                if full or items == edge or time.monotonic() > until:
                    break
            if not sizes:
                # An earlier run has packed all of this; only where the partition ends is still news.
                left_out, damage = 0, []
                if not last:
                    continue
            taken = (partition.size if last else min(digest.count, partition.size)) - reported
            reported += taken
            sha256 = short_digest(digest.sha)
            yield (
                Chunk(number, items, last, sizes, "".join(chars), writers, origins, left_out, damage, taken, sha256),
                pictures,
            )


class _Digest:
    """SHA-256 of a partition's bytes, and how many there were."""

    def __init__(self) -> None:
        self.sha, self.count = hashlib.sha256(), 0

    def update(self, data: bytes, /) -> None:
        self.sha.update(data)
        self.count += len(data)


def fit(chunk: Chunk, pictures: list[np.ndarray], squares: Squares) -> Squares:
    """Fit a chunk's pictures into the first of `squares` at the sizes that it needs; return those filled."""
    fitted = {size: squares[size][: len(pictures)] for size in chunk.sizes}
    if pictures:
        fit_squares(pictures, list(fitted.values()))
    return fitted


def cut(memory: Any, job: ReadJob, slot: int = 0) -> Squares:
    """Cut a slot of memory into squares uint8[capacity, S, S] of each size."""
    capacity, start, squares = job.capacity, slot * job.capacity * job.sample_bytes, {}
    for size in job.starts:
        shape = (capacity, size, size)
        squares[size] = np.frombuffer(memory, np.uint8, capacity * size * size, start).reshape(shape)
        start += capacity * size * size
    return squares
