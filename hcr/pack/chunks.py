"""Units in, samples out in chunks, fitted into memory that the caller gives: what a process does that reads.

A chunk is bounded four ways, so that memory stays flat and nobody waits long, whether a source holds crops of 5 KB or
photos of a megabyte; where chunks end decides nothing about the pack.
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
from hcr.preprocess.fit import fit_squares

_CHUNK, _CHUNK_BYTES = 512, 4 << 20
_CHUNK_SECONDS = 0.2  # however slow the source is, the packer can save itself and stop this often
_NATIVE_BYTES = 16 << 20  # of pictures that wait to be fitted


@dataclass(frozen=True)
class Plan:
    """What is to be read: units by their number, in order.

    characters: those kept, None for all. starts: for each size the first (unit, item) wanted at it; the items of a unit
    are its samples, kept or not, and its damage.
    """

    units: dict[int, Partition]
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
    """Consecutive items of one unit.

    unit, items: its number, and how many items of it are read after this chunk; last: whether those are all.
    sizes: those at which the samples are wanted; chars, writers, origins: of each sample.
    left_out: items of other characters; damage: messages. bytes: of the source taken in since the chunk before;
    sha256: in the last chunk, the first 16 hex digits of the digest of the unit's bytes.
    """

    unit: int
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


def chunks_of(plan: Plan) -> Iterator[tuple[Chunk, list[np.ndarray]]]:
    """Read the units in order, and give each chunk with its pictures as they lie in the source."""
    capacity = plan.capacity
    for number, unit in plan.units.items():
        digest = _Digest()
        stream = unit.samples(digest)
        items = reported = 0
        last = False
        while not last:
            sizes = tuple(size for size, start in plan.starts.items() if start <= (number, items))
            edges = [item for at, item in plan.starts.values() if at == number and item > items]
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
                elif plan.characters is not None and sample.char not in plan.characters:
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
                # All of this was packed before; only where the unit ends is still news.
                left_out, damage = 0, []
                if not last:
                    continue
            taken = (unit.size if last else min(digest.count, unit.size)) - reported
            reported += taken
            whole = digest.sha.hexdigest()[:16] if last else ""
            yield (
                Chunk(number, items, last, sizes, "".join(chars), writers, origins, left_out, damage, taken, whole),
                pictures,
            )


class _Digest:
    """SHA-256 of a unit's bytes, and how many there were."""

    def __init__(self) -> None:
        self.sha, self.count = hashlib.sha256(), 0

    def update(self, data: bytes, /) -> None:
        self.sha.update(data)
        self.count += len(data)


def fit(chunk: Chunk, pictures: list[np.ndarray], squares: Squares) -> Squares:
    """Fit a chunk's pictures into the first of `squares`, at the sizes asked for; return those filled."""
    fitted = {size: squares[size][: len(pictures)] for size in chunk.sizes}
    if pictures:
        fit_squares(pictures, list(fitted.values()))
    return fitted


def cut(memory: Any, plan: Plan, slot: int = 0) -> Squares:
    """Cut a slot of memory into squares uint8[capacity, S, S] of each size."""
    capacity, start, squares = plan.capacity, slot * plan.capacity * plan.sample_bytes, {}
    for size in plan.starts:
        shape = (capacity, size, size)
        squares[size] = np.frombuffer(memory, np.uint8, capacity * size * size, start).reshape(shape)
        start += capacity * size * size
    return squares
